//! Tests of the screening service over gRPC, beside a fake Hospital that the tests control.

mod attending;
mod booking;
mod cancelling;
mod correcting;
mod events;
mod hospital;
mod listing;
mod pending;
mod races;
mod refusing;
mod rescheduling;
mod stranded;
mod unknown;
mod world;
