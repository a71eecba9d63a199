//! Marketing over gRPC, fed with events directly, beside a Hospital that stands in for the real one.

mod listing;
mod proposing;
mod stand_in;
mod support;
