//! The runtime from outside: real servers on port 0, real clients, and malicious clients.

#![allow(clippy::disallowed_methods, reason = "a test owns its tasks and may read the real clock")]

mod admin;
mod deadlines;
mod door;
mod drain;
mod identity;
mod languages;
mod limits;
mod replicas;
mod shares;
mod signals;
mod support;
