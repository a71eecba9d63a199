//! Where the status of a failed call is written: in the head of the answer, or in its trailers.
//!
//! A proxy that watches replicas, such as Envoy's outlier detection, reads only the head of an answer, and counts
//! UNAVAILABLE, DEADLINE_EXCEEDED and similar codes against the replica. Clients read the status from either place. So
//! a status that is about this process goes into the head, and any other status (the caller gave too little time,
//! another service is out of reach) goes into the trailers. Otherwise one impatient caller could get a healthy replica
//! ejected for all callers.

use std::time::Duration;

use http::HeaderMap;
use tonic::{Code, Status};

use crate::deadline::FAIR;
use crate::status::reason_of;

/// The headers that carry a status.
const WRITTEN_WITH: [&str; 3] = ["grpc-status", "grpc-message", "grpc-status-details-bin"];

/// Removes the status of a failed call from the head, and returns it as trailers, unless the status is about this
/// process. `took` is how long the caller waited for it, at most as long as it wanted to.
pub(super) fn take_what_is_not_ours(head: &mut HeaderMap, took: Duration) -> Option<HeaderMap> {
    if !is_held_by_proxies(head) || is_ours(head, took) {
        return None;
    }
    let mut trailers = HeaderMap::new();
    for name in WRITTEN_WITH {
        if let Some(value) = head.remove(name) {
            trailers.insert(name, value);
        }
    }
    Some(trailers)
}

/// Whether proxies treat the status like an HTTP status of 500 and above.
fn is_held_by_proxies(head: &HeaderMap) -> bool {
    head.get("grpc-status").is_some_and(|status| match Code::from_bytes(status.as_bytes()) {
        Code::Unavailable
        | Code::DeadlineExceeded
        | Code::Unimplemented
        | Code::Internal
        | Code::Unknown
        | Code::DataLoss => true,
        Code::Ok
        | Code::Cancelled
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unauthenticated => false,
    })
}

/// Whether the status is about this process.
fn is_ours(head: &HeaderMap, took: Duration) -> bool {
    let Some(status) = Status::from_header_map(head) else { return true };
    match status.code() {
        // No service has this path.
        Code::Unimplemented => false,
        // A caller that had enough time and got no answer has met a hanging replica.
        Code::DeadlineExceeded => took >= FAIR,
        _ => reason_of(&status).is_none_or(fault::Reason::speaks_of_its_sender),
    }
}

#[cfg(test)]
mod tests {
    use fault::{Fault, Reason};

    use super::*;
    use crate::status::status;

    fn head(status: Status) -> HeaderMap {
        let mut head = HeaderMap::new();
        head.insert("content-type", "application/grpc".parse().unwrap());
        status.add_header(&mut head).unwrap();
        head
    }

    #[test]
    fn what_speaks_of_us_stays_where_proxies_look() {
        for reason in Reason::ALL {
            let mut head = head(status(Fault::new(*reason, "x")));
            let taken = take_what_is_not_ours(&mut head, Duration::ZERO);
            let elsewhere =
                matches!(reason, Reason::HospitalUnavailable | Reason::ViewLagging | Reason::DeadlineExceeded);
            assert_eq!(taken.is_some(), elsewhere, "{}", reason.name());
            assert_eq!(head.contains_key("grpc-status"), !elsewhere, "{}", reason.name());
            if let Some(trailers) = taken {
                assert_eq!(reason_of(&Status::from_header_map(&trailers).unwrap()), Some(*reason));
            }
        }
    }

    #[test]
    fn a_path_that_nobody_serves_says_nothing_of_us_and_a_defect_does() {
        assert!(take_what_is_not_ours(&mut head(Status::unimplemented("")), Duration::ZERO).is_some());
        for ours in [Status::internal("x"), Status::unknown("x"), Status::unavailable("x"), Status::data_loss("x")] {
            assert_eq!(take_what_is_not_ours(&mut head(ours), Duration::ZERO), None);
        }
    }

    #[test]
    fn who_hangs_for_long_is_held_to_it() {
        let late = || head(status(Fault::new(Reason::DeadlineExceeded, "x")));
        assert!(take_what_is_not_ours(&mut late(), FAIR - Duration::from_millis(1)).is_some());
        assert_eq!(take_what_is_not_ours(&mut late(), FAIR), None);
    }
}
