//! What a process is told when it is a deterministic simulation: one seed for all it draws, and a clock that the simulation moves.
//!
//! It is for whole processes and for good: a simulation runs every service of a mesh in one thread, and a second one would see
//! what the first one left. Nothing of it costs anything elsewhere but the look at a cell that is empty.

use std::sync::{Mutex, OnceLock};

use jiff::Timestamp;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::lifecycle::lock;

/// The simulation of this process.
static WORLD: OnceLock<World> = OnceLock::new();

#[derive(Debug)]
struct World {
    now: fn() -> Timestamp,
    drawn: Mutex<Drawn>,
}

/// The seed and how often it was drawn from: the numbers are the digests of both.
#[derive(Debug)]
struct Drawn {
    seed: u64,
    count: u64,
}

/// From now on [`crate::clock::Clock::system`] is `now`, and [`crate::entropy`] follows from `seed`, in the whole process. What
/// is drawn depends on the order of drawing, so only one thread may.
///
/// # Panics
/// When it has begun before.
pub fn begin(seed: u64, now: fn() -> Timestamp) {
    let world = World { now, drawn: Mutex::new(Drawn { seed, count: 0 }) };
    assert!(WORLD.set(world).is_ok(), "a process is one simulation");
}

/// The simulated instant; none where nothing is simulated.
pub(crate) fn now() -> Option<Timestamp> {
    WORLD.get().map(|world| (world.now)())
}

/// Fills the bytes from the seed; false where nothing is simulated.
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

/// An id of the simulated instant that comes after all drawn before it in the same millisecond; none where nothing is simulated.
pub(crate) fn uuid_v7() -> Option<Uuid> {
    let world = WORLD.get()?;
    let millis = u64::try_from((world.now)().as_millisecond()).unwrap_or_default();
    let mut random = [0; 10];
    fill(&mut random);
    let count = lock(&world.drawn).count;
    // the count in front keeps them in order
    random[..6].copy_from_slice(&count.to_be_bytes()[2..]);
    Some(uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid())
}
