//! Events out of a real outbox and into a real inbox: none is lost, and each takes effect once, in spite of duplicates, reordering,
//! redelivery, poison, a store that fails, and a broker that loses what it acknowledged.
#![allow(clippy::disallowed_methods, reason = "a test owns what it spawns")]

mod consuming;
mod losses;
mod projecting;
mod publishing;
mod support;
