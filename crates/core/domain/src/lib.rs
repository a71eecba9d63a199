//! The rules of health-screening reservations, pure: `decide(state, command, now)` and `apply(state, event)`.
//!
//! Nothing here awaits, reads a clock, draws a random number, or knows tonic and sea-orm; whoever loads and saves is
//! elsewhere. What a rule refuses it refuses with a [`fault::Fault`].

pub mod access;
pub mod booking;
pub mod capacity;
pub mod civil;
pub mod demand;
pub mod event;
pub mod filter;
pub mod hospital;
pub mod ids;
pub mod invariants;
pub mod mypage;
pub mod page;
pub mod recovery;
pub mod request;
pub mod reservation;
pub mod screening;
pub mod screening_fact;
mod terms;
pub mod text;
pub mod token;
pub mod window;
