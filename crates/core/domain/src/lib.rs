//! The rules of health-screening reservations, pure: `decide(state, command, now)` and `apply(state, event)`.
//!
//! Nothing here awaits, reads a clock, draws a random number, or knows tonic or sea-orm; loading and saving are done
//! elsewhere. A rule refuses with a [`fault::Fault`].

pub mod access;
pub mod booking;
pub mod capacity;
pub mod civil;
pub mod demand;
pub mod event;
pub mod filter;
pub mod frame;
pub mod hospital;
mod hospital_state;
pub mod ids;
pub mod invariants;
pub mod mypage;
pub mod page;
pub mod recovery;
pub mod request;
pub mod reservation;
pub mod retention;
pub mod screening;
pub mod screening_fact;
mod terms;
pub mod text;
pub mod token;
pub mod window;
