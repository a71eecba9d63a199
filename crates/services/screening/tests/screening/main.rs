//! The screening service over gRPC, beside a hospital that does as it is told.

mod attending;
mod booking;
mod cancelling;
mod events;
mod hospital;
mod listing;
mod pending;
mod races;
mod refusing;
mod unknown;
mod world;
