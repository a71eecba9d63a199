//! My-page over gRPC, fed with events directly.

mod reading;
mod rebuilding;
mod support;
mod watching;
