//! The only source of randomness: ids, trace ids, keys and jitter.
//!
//! Rules never draw a random number; their callers pass ids in. In a simulation everything is drawn from its seed, see
//! `runtime::simulation`.

#![allow(clippy::disallowed_methods, reason = "the one place that draws random numbers")]

use std::time::Duration;

use rand::Rng;
use uuid::Uuid;

/// A time-ordered id, for resources that the server names: pages and indexes follow the order of creation.
#[must_use]
pub fn uuid_v7() -> Uuid {
    #[cfg(feature = "testing")]
    if let Some(drawn) = crate::simulation::uuid_v7() {
        return drawn;
    }
    Uuid::now_v7()
}

/// A random id that reveals nothing, not even its time of creation.
#[must_use]
pub fn uuid_v4() -> Uuid {
    uuid::Builder::from_random_bytes(bytes()).into_uuid()
}

/// Bytes fit for a key, from this thread's generator, which the operating system seeds repeatedly. It saves a system
/// call per span of every call.
///
/// # Panics
/// If the operating system has no randomness; nothing in this process could continue then.
#[must_use]
pub fn bytes<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    #[cfg(feature = "testing")]
    if crate::simulation::fill(&mut bytes) {
        return bytes;
    }
    rand::rng().fill_bytes(&mut bytes);
    bytes
}

/// A duration between `base` and one and a half times `base`, so that many clients do not retry in step.
#[must_use]
pub fn jittered(base: Duration) -> Duration {
    let share = f64::from(u16::from_le_bytes(bytes())) / f64::from(u16::MAX);
    base.saturating_add(base.mul_f64(share / 2.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn server_made_ids_are_in_the_order_they_were_made() {
        let ids: Vec<Uuid> = (0..1000).map(|_| uuid_v7()).collect();
        assert!(ids.is_sorted());
    }

    #[test]
    fn jitter_stays_within_half_of_the_base() {
        let base = Duration::from_millis(100);
        assert!((0..1000).map(|_| jittered(base)).all(|delay| (base..=base * 3 / 2).contains(&delay)));
    }
}
