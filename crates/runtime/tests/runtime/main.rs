//! The runtime from outside: real servers on port 0, real clients, and clients that mean no good.

mod admin;
mod deadlines;
mod door;
mod drain;
mod identity;
mod limits;
mod signals;
mod support;
