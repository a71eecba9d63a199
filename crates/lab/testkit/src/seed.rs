//! Reproducible randomness: a printed seed, a small generator, and ids that do not repeat.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

use uuid::Uuid;

const SEED: &str = "CHECKUP_TEST_SEED";

/// Makes a generator from the environment variable `CHECKUP_TEST_SEED`, or from the time. Prints the seed, which the
/// test harness shows when the test fails.
///
/// # Panics
/// If the variable is not a number.
#[must_use]
pub fn seed(test: &str) -> Random {
    let seed = match std::env::var(SEED) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{SEED} must be a number, not {text}")),
        Err(_) => SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as u64),
    };
    println!("{test}: {SEED}={seed}");
    Random::new(seed)
}

/// A small generator (SplitMix64): the same seed gives the same numbers on every machine. Not for secrets.
#[derive(Clone)]
pub struct Random {
    state: u64,
}

impl fmt::Debug for Random {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Random({:#x})", self.state)
    }
}

impl Random {
    /// Starts from a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    /// The next number, from the whole range of `u64`.
    pub fn number(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.state;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// A number below `end`. An `end` of 0 counts as 1.
    pub fn below(&mut self, end: u64) -> u64 {
        self.number() % end.max(1)
    }

    /// Returns true with a probability of `percent` in a hundred.
    pub fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    /// One random element.
    ///
    /// # Panics
    /// If there is none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len() as u64) as usize]
    }

    /// A separate generator for a task, so that the interleaving of tasks does not change what each of them does.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        Self::new(self.number())
    }

    /// A random UUID of version 4.
    pub fn uuid(&mut self) -> Uuid {
        let bits = (u128::from(self.number()) << 64) | u128::from(self.number());
        uuid::Builder::from_random_bytes(bits.to_be_bytes()).into_uuid()
    }

    /// A UUID of version 7, as clients should send: it begins with the time, and the rest is random.
    ///
    /// # Panics
    /// If the clock is before 1970.
    pub fn uuid_v7(&mut self) -> Uuid {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
        let [random @ .., _, _, _, _, _, _] =
            (u128::from(self.number()) << 64 | u128::from(self.number())).to_be_bytes();
        uuid::Builder::from_unix_timestamp_millis(since_1970.as_millis() as u64, &random).into_uuid()
    }

    /// 32 bytes, the seed of other generators.
    pub fn bytes(&mut self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for part in bytes.chunks_mut(8) {
            part.copy_from_slice(&self.number().to_be_bytes());
        }
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_numbers() {
        let (mut one, mut other) = (Random::new(7), Random::new(7));
        assert_eq!(
            (0..9).map(|_| one.number()).collect::<Vec<_>>(),
            (0..9).map(|_| other.number()).collect::<Vec<_>>()
        );
        assert_eq!(one.uuid(), other.uuid());
        assert_ne!(one.fork().number(), one.fork().number());
    }
}
