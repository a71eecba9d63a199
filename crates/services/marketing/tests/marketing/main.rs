//! Tests of Marketing over gRPC. The tests feed it events directly, beside a stand-in for Hospital.

mod listing;
mod proposing;
mod stand_in;
mod support;
mod waiting;
