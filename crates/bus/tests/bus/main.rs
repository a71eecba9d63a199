//! The bus: what a consumer may rely on whichever road its events take, and what the road over a broker survives.
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks, and stands on the machine's own clock")]

mod broker;
mod conformance;
mod faulty;
mod losses;
mod outage;
mod random;
mod reader;
mod roads;
mod sharing;
mod told;
