//! A simulated process follows its seed and its clock. A simulation cannot be ended, so this test has a process of its
//! own.

use std::sync::atomic::{AtomicI64, Ordering};

use jiff::Timestamp;
use runtime::clock::Clock;
use runtime::{entropy, simulation};

static SECOND: AtomicI64 = AtomicI64::new(0);

fn now() -> Timestamp {
    Timestamp::from_second(SECOND.load(Ordering::Relaxed)).unwrap()
}

#[test]
fn time_and_chance_are_the_simulations() {
    simulation::begin(7, now);
    SECOND.store(1_800_000_000, Ordering::Relaxed);
    assert_eq!(Clock::system().now().as_second(), 1_800_000_000);
    // These are the numbers of seed 7 on every machine.
    assert_eq!(entropy::bytes::<4>(), SEVEN);
    assert_eq!(entropy::uuid_v4().get_version_num(), 4);
    let ids: Vec<_> = (0..100).map(|_| entropy::uuid_v7()).collect();
    assert!(ids.is_sorted() && ids.iter().all(|id| id.get_version_num() == 7));
    SECOND.fetch_add(1, Ordering::Relaxed);
    assert!(entropy::uuid_v7() > ids[99]);
}

const SEVEN: [u8; 4] = [79, 241, 144, 180];
