//! Tests of my-page over gRPC. The tests feed it events directly.

mod reading;
mod rebuilding;
mod support;
mod watching;
