//! The reservation service over gRPC, fed with events directly.

mod folding;
mod listing;
mod reading;
mod support;
