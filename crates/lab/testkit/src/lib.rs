//! The tools of whole-system tests: `checkup` as a child process, typed clients, waits, faults between services, and a
//! history of what clients were answered.
//!
//! The crate drives the system from outside, over gRPC, signals and files, and does not know how a service works
//! inside. It is not production code: if a test cannot go on, it panics with what it saw.
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks, and stands on the machine's own clock")]

mod client;
mod disk;
mod history;
mod http1;
mod launch;
mod output;
mod power;
mod process;
mod proxy;
mod raw;
mod refusal;
mod rush;
mod scene;
mod seed;
mod small_disk;
mod start;
mod token;
mod wait;
mod wire;

pub use client::{Authorised, Credentials, PARTIES_READ, Party, Served, connect};
pub use disk::{Call, Disk, Fault};
pub use history::{Booking, BookingHistory, Cancelling, Finding, Moving, Outcome, Sighting, Wrong};
pub use http1::{Page, get};
pub use launch::{DataDir, Finished, Launch, StartFailure, Topology};
pub use output::Output;
pub use process::Checkup;
pub use proxy::{Direction, FaultProxy};
pub use raw::{Answer, RawMethod, call_raw, frame_of};
pub use refusal::{Refusal, is_goaway, refused, refused_one_of};
pub use rush::{gather, rush, start_together};
pub use scene::{Desk, day_of, in_days, slot_name, slots_of};
pub use seed::{Random, seed};
pub use small_disk::SmallDisk;
pub use token::{Claims, Tokens};
pub use wait::{eventually, eventually_within, wait_limit, within};
pub use wire::{Exchange, Held, Wire, WireAnswer};
