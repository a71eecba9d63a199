//! Tests of the bus: the guarantees of the port over every transport, and outages of the broker.
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks, and stands on the machine's own clock")]

mod broker;
mod conformance;
mod faulty;
mod losses;
mod outage;
mod producer_events;
mod random;
mod reader;
mod sharing;
mod transports;
mod users;
