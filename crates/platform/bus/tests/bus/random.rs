//! Random numbers that can be repeated.

use std::time::{SystemTime, UNIX_EPOCH};

const SEED: &str = "CHECKUP_TEST_SEED";

/// The seed of a test, which is printed: the value of `CHECKUP_TEST_SEED`, or a new one.
pub(crate) fn seed(test: &str) -> u64 {
    let given = std::env::var(SEED).ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |since| since.as_micros() as u64);
    let seed = given.unwrap_or_else(now);
    println!("{test}: {SEED}={seed}");
    seed
}

/// A generator with the algorithm SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(crate) fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    pub(crate) fn below(&mut self, end: usize) -> usize {
        (self.number() % end.max(1) as u64) as usize
    }

    pub(crate) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }
}
