//! Bad input: every limit of every field is enforced at the door, and every mistake of a request is named at once.
//!
//! Each row sends one bad request and lists the expected violations: dotted paths in field order, with reasons.

mod calendar;
mod hospitals;
mod limits;
mod others;
mod queues;
mod readable;
mod texts;

use std::fmt::Debug;

use fault::Reason;
use testkit::{Refusal, refused};
use tonic::{Code, Response, Status};

const FIELD: &str = "FIELD_INVALID";
const DATE: &str = "DATE_INVALID";
const ZONE: &str = "TIME_ZONE_UNKNOWN";
const FILTER: &str = "FILTER_INVALID";
const TOKEN: &str = "PAGE_TOKEN_INVALID";
const REQUEST_ID: &str = "REQUEST_ID_MALFORMED";

/// A text of this many characters, each of several bytes.
fn hangul(length: usize) -> String {
    "검".repeat(length)
}

/// Asserts that a call is refused for exactly these fields, in this order.
#[track_caller]
fn complains<T: Debug>(result: Result<Response<T>, Status>, expected: &[(&str, &str)]) -> Refusal {
    let (first_field, first_reason) = expected.first().expect("something is expected");
    let reason = Reason::from_name(first_reason).expect("a reason of the contract");
    let refusal = refused(result, reason);
    assert_eq!(refusal.code, Code::InvalidArgument);
    assert_eq!(refusal.complaints(), expected, "{refusal:#?}");
    assert_eq!(refusal.value("field"), *first_field);
    assert!(refusal.violations.iter().all(|(_, _, description)| !description.is_empty()), "{refusal:#?}");
    refusal
}
