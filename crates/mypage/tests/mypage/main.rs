//! My-page over gRPC, fed with events directly.

mod reading;
mod support;
mod watching;
