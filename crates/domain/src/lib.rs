//! The rules of health-screening reservations, pure: `decide(state, command, now)` and `apply(state, event)`.
//!
//! Nothing here awaits, reads a clock, draws a random number, or knows tonic and sea-orm; whoever loads and saves is
//! elsewhere. What a rule refuses it refuses with a [`fault::Fault`].

pub mod access;
pub mod civil;
pub mod event;
pub mod filter;
pub mod ids;
pub mod page;
pub mod request;
pub mod text;
pub mod token;
