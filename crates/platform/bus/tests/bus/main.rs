//! The bus: what a consumer may rely on whichever transport brings its events, and what the transport over a broker survives.
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
