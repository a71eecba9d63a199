//! Events from a real outbox into a real inbox: none is lost, and each takes effect once, despite duplicates,
//! reordering, redelivery, poison, a store that fails, and a broker that loses acknowledged events.
#![allow(clippy::disallowed_methods, reason = "a test owns what it spawns")]

mod consuming;
mod following;
mod losses;
mod projecting;
mod publishing;
mod retaining;
mod support;
