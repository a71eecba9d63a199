//! Tests of the reservation service over gRPC. The tests feed it events directly.

mod folding;
mod listing;
mod migrating;
mod reading;
mod support;
