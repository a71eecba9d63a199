//! The customers that book: no name comes twice, and the names come in their order or at random.
//!
//! In order, every row is the last of each index by customer, so that an index costs as little as it can. Customers of
//! a real service come at random.

use std::fmt;
use std::str::FromStr;

/// The order in which customers book.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// In the order of their names: every index by customer is appended to.
    Sequential,
    /// At random: every booking is somewhere else in every index by customer.
    Random,
}

impl Order {
    /// Every order, in the order in which they are measured.
    pub const ALL: [Self; 2] = [Self::Sequential, Self::Random];

    /// The name on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sequential => "sequential",
            Self::Random => "random",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Order {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|order| order.name() == text);
        found.ok_or_else(|| "an order is sequential or random".to_owned())
    }
}

/// The customers of a measurement.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Customers {
    pub(crate) order: Order,
    /// Decides the random names. The same seed gives the same names.
    pub(crate) seed: u64,
}

impl Customers {
    /// The name of the customer with this number. Two numbers never have one name, so a customer has one booking per
    /// date. Names of both orders are equally long, because longer names would cost more.
    pub(crate) fn name(self, measurement: &str, number: u64) -> String {
        let (letter, position) = match self.order {
            Order::Sequential => ('s', number),
            Order::Random => ('r', shuffled(self.seed, number)),
        };
        format!("customers/{measurement}-{letter}{position:016x}")
    }
}

/// The member at this index of a sequence that the seed decides, uniform over all 64-bit numbers (SplitMix64). Within
/// one sequence no member comes twice: each step of [`mixed`] can be undone.
const fn shuffled(seed: u64, index: u64) -> u64 {
    mixed(mixed(seed).wrapping_add(index.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
}

const fn mixed(number: u64) -> u64 {
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    const MANY: u64 = 100_000;

    fn names(order: Order, seed: u64) -> Vec<String> {
        (0..MANY).map(|number| Customers { order, seed }.name("bench", number)).collect()
    }

    #[test]
    fn the_seed_decides_who_comes_at_random() {
        let one = names(Order::Random, 1);
        assert_eq!(one, names(Order::Random, 1));
        let both: BTreeSet<String> = one.into_iter().chain(names(Order::Random, 2)).collect();
        assert_eq!(both.len() as u64, 2 * MANY, "two seeds share a customer");
    }

    #[test]
    fn nobody_comes_twice() {
        let all = Order::ALL.into_iter().flat_map(|order| names(order, 7));
        assert_eq!(all.collect::<BTreeSet<_>>().len() as u64, 2 * MANY);
    }

    #[test]
    fn one_order_appends_and_the_other_goes_everywhere() {
        let sequential = names(Order::Sequential, 7);
        assert!(sequential.is_sorted());
        let random = names(Order::Random, 7);
        // Of uniform draws, half come after the one before, and each sixteenth of the space gets a sixteenth of them.
        let after = random.windows(2).filter(|pair| pair[0] < pair[1]).count() as f64 / MANY as f64;
        assert!((0.49..0.51).contains(&after), "{after}");
        let mut counts = [0_u64; 16];
        for name in &random {
            let first = name.trim_start_matches("customers/bench-r").chars().next().unwrap();
            counts[first.to_digit(16).unwrap() as usize] += 1;
        }
        let share = MANY / 16;
        assert!(counts.iter().all(|count| count.abs_diff(share) < share / 10), "{counts:?}");
        assert_eq!(sequential[0].len(), random[0].len());
    }

    #[test]
    fn an_order_has_a_name() {
        assert_eq!(Order::ALL.map(|order| order.name().parse()), Order::ALL.map(Ok));
        assert!("reversed".parse::<Order>().is_err());
    }
}
