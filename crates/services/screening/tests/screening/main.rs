//! Tests of the screening service over gRPC, beside a fake Hospital that the tests control.

mod attending;
mod booking;
mod cancelling;
mod correcting;
mod events;
mod hospital;
mod limits;
mod listing;
mod migrating;
mod pending;
mod promoting;
mod races;
mod recovering;
mod refusing;
mod replicas;
mod rescheduling;
mod stranded;
mod unknown;
mod waiting;
mod world;
