//! Tests of my-page over gRPC. The tests feed it events directly.

mod migrating;
mod moving;
mod reading;
mod rebuilding;
mod sharing;
mod support;
mod waiting;
mod watching;
