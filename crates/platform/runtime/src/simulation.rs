//! The simulation of a process: one seed for everything that is drawn, and a clock that the simulation moves.
//!
//! A simulation takes a whole process and cannot be ended: it runs every service of a mesh in one thread, and a second
//! one would see the state that the first one left. In other processes it costs one read of an empty cell.

use std::sync::{Mutex, OnceLock};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::lifecycle::lock;

/// The simulation of this process, if there is one.
static WORLD: OnceLock<World> = OnceLock::new();

#[derive(Debug)]
struct World {
    now: fn() -> Timestamp,
    drawn: Mutex<Drawn>,
}

/// The seed and how often it was drawn from; a random number is a digest of both.
#[derive(Debug)]
struct Drawn {
    seed: u64,
    count: u64,
}

/// Begins the simulation of this process. From now on [`crate::clock::Clock::system`] returns `now`, and
/// [`crate::entropy`] draws from `seed`. The numbers depend on the order of drawing, so only one thread may draw.
///
/// # Panics
/// If a simulation has begun in this process before.
pub fn begin(seed: u64, now: fn() -> Timestamp) {
    let world = World { now, drawn: Mutex::new(Drawn { seed, count: 0 }) };
    assert!(WORLD.set(world).is_ok(), "a process is one simulation");
}

/// The simulated instant; `None` without a simulation.
pub(crate) fn now() -> Option<Timestamp> {
    WORLD.get().map(|world| (world.now)())
}

/// Fills the bytes from the seed; false without a simulation.
pub(crate) fn fill(bytes: &mut [u8]) -> bool {
    let Some(world) = WORLD.get() else { return false };
    let mut drawn = lock(&world.drawn);
    for chunk in bytes.chunks_mut(32) {
        drawn.count += 1;
        let digest = Sha256::new().chain_update(drawn.seed.to_be_bytes()).chain_update(drawn.count.to_be_bytes());
        chunk.copy_from_slice(&digest.finalize()[..chunk.len()]);
    }
    true
}

/// An id of the simulated instant, ordered after all ids drawn before it in the same millisecond; `None` without a
/// simulation.
pub(crate) fn uuid_v7() -> Option<Uuid> {
    let world = WORLD.get()?;
    let millis = u64::try_from((world.now)().as_millisecond()).unwrap_or_default();
    let mut random = [0; 10];
    fill(&mut random);
    let count = lock(&world.drawn).count;
    // The count comes first, which keeps the ids in order.
    random[..6].copy_from_slice(&count.to_be_bytes()[2..]);
    Some(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}
