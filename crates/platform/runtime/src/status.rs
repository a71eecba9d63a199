//! The one place where a fault becomes a gRPC status.
//!
//! The mapping of codes is exhaustive, so a new code does not compile until it is mapped here. The cause, which a log
//! may contain and a client may not see, is logged here and not sent. Clients read statuses with [`refusal_of`].

mod refusal;

use std::collections::HashMap;

use bytes::Bytes;
use fault::{Code, Fault, Reason, Violation};
use prost::Message;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic_types::pb;

pub use refusal::{Refusal, RefusedField, reason_of, refusal_of};

/// `google.rpc.ErrorInfo.domain` of every error of this system.
pub const DOMAIN: &str = "checkup";

/// The longest message that is sent, in bytes. It travels percent-encoded in a header, where a byte may become three.
const MAX_MESSAGE: usize = 512;

/// The longest metadata value or violation description that is sent, in bytes.
const MAX_VALUE: usize = 256;

/// The most bytes of violations that are sent. Details travel as base64 in the trailers, and several client libraries
/// refuse a header list of more than 8 KiB; the client would then see a broken stream instead of the refusal.
const MAX_VIOLATIONS: usize = 3_500;

/// Makes the status of a fault, logs its cause, and counts it. Services write `.map_err(status)`.
#[must_use]
pub fn status(fault: Fault) -> Status {
    log(&fault);
    ::metrics::counter!(crate::metrics::REFUSALS, "reason" => fault.reason().name()).increment(1);
    let message = shorten(fault.message(), MAX_MESSAGE);
    let details = pb::Status { code: code(fault.code()).into(), message: message.clone(), details: details(&fault) };
    let encoded = Bytes::from(details.encode_to_vec());
    Status::with_details_and_metadata(code(fault.code()), message, encoded, MetadataMap::new())
}

/// The gRPC code of a fault's code.
#[must_use]
pub fn code(code: Code) -> tonic::Code {
    match code {
        Code::InvalidArgument => tonic::Code::InvalidArgument,
        Code::NotFound => tonic::Code::NotFound,
        Code::AlreadyExists => tonic::Code::AlreadyExists,
        Code::FailedPrecondition => tonic::Code::FailedPrecondition,
        Code::Aborted => tonic::Code::Aborted,
        Code::ResourceExhausted => tonic::Code::ResourceExhausted,
        Code::Unavailable => tonic::Code::Unavailable,
        Code::Unauthenticated => tonic::Code::Unauthenticated,
        Code::PermissionDenied => tonic::Code::PermissionDenied,
        Code::DeadlineExceeded => tonic::Code::DeadlineExceeded,
        Code::OutOfRange => tonic::Code::OutOfRange,
        Code::Internal => tonic::Code::Internal,
    }
}

/// Logs a fault. Faults that clients cause are logged below the usual level; those that the system causes are not.
fn log(fault: &Fault) {
    let (reason, cause) = (fault.reason().name(), fault.cause());
    match fault.code() {
        Code::Internal => tracing::error!(reason, cause, "call failed"),
        // Logged once elsewhere, when the storage began to fail.
        Code::Unavailable if fault.reason() == Reason::StorageUnavailable => {
            tracing::debug!(reason, cause, detail = fault.message(), "call not served");
        }
        Code::Unavailable => tracing::warn!(reason, cause, detail = fault.message(), "call not served"),
        Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::ResourceExhausted
        | Code::Unauthenticated
        | Code::PermissionDenied
        | Code::DeadlineExceeded
        | Code::OutOfRange => tracing::debug!(reason, cause, detail = fault.message(), "call refused"),
    }
}

/// The first bytes of a text, with an ellipsis if anything is cut off.
fn shorten(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let end = (0..=limit).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    format!("{}…", &text[..end])
}

/// The `google.rpc` details of a fault, each type at most once.
fn details(fault: &Fault) -> Vec<prost_types::Any> {
    let (fields, omitted) = field_violations(fault.violations());
    let mut metadata: HashMap<String, String> =
        fault.metadata().iter().map(|(key, value)| (key.to_string(), shorten(value, MAX_VALUE))).collect();
    if omitted > 0 {
        metadata.insert("omittedViolations".to_owned(), omitted.to_string());
    }
    let info = pb::ErrorInfo { reason: fault.reason().name().to_owned(), domain: DOMAIN.to_owned(), metadata };
    let mut details = vec![any("ErrorInfo", &info)];
    if !fields.is_empty() {
        details.push(any("BadRequest", &pb::BadRequest { field_violations: fields }));
    }
    if let Some(delay) = fault.retry_delay() {
        let retry_delay = prost_types::Duration::try_from(delay).ok();
        details.push(any("RetryInfo", &pb::RetryInfo { retry_delay }));
    }
    if fault.code() == Code::FailedPrecondition {
        let violation = pb::precondition_failure::Violation {
            r#type: fault.reason().name().to_owned(),
            subject: fault.resource().map(|resource| shorten(&resource.name, MAX_VALUE)).unwrap_or_default(),
            description: shorten(fault.message(), MAX_VALUE),
        };
        details.push(any("PreconditionFailure", &pb::PreconditionFailure { violations: vec![violation] }));
    }
    if let Some(resource) = fault.resource() {
        let resource = pb::ResourceInfo {
            resource_type: resource.kind.clone().into_owned(),
            resource_name: shorten(&resource.name, MAX_VALUE),
            ..pb::ResourceInfo::default()
        };
        details.push(any("ResourceInfo", &resource));
    }
    details
}

/// As many violations as fit, in field order, and the number of the others.
fn field_violations(violations: &[Violation]) -> (Vec<pb::bad_request::FieldViolation>, usize) {
    let mut fields = Vec::new();
    let mut size = 0;
    for violation in violations {
        let field = pb::bad_request::FieldViolation {
            field: shorten(&violation.field, MAX_VALUE),
            description: shorten(&violation.description, MAX_VALUE),
            reason: violation.reason.name().to_owned(),
            localized_message: None,
        };
        size += field.encoded_len();
        if size > MAX_VIOLATIONS {
            break;
        }
        fields.push(field);
    }
    let omitted = violations.len() - fields.len();
    (fields, omitted)
}

fn any(kind: &str, message: &impl Message) -> prost_types::Any {
    prost_types::Any { type_url: format!("type.googleapis.com/google.rpc.{kind}"), value: message.encode_to_vec() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use fault::Violations;
    use tonic_types::StatusExt;

    use super::*;

    #[test]
    fn every_reason_travels_under_its_code_and_comes_back() {
        for reason in Reason::ALL {
            let status = status(Fault::new(*reason, "because").with("key", "value").caused_by("secret"));
            assert_eq!(status.code(), code(reason.code()));
            assert_eq!(reason_of(&status), Some(*reason));
            assert_eq!(status.get_details_error_info().unwrap().domain, DOMAIN);
            assert!(!format!("{status:?}").contains("secret"));
            assert_eq!(status.get_details_retry_info().is_some(), reason.retryable(), "{}", reason.name());
            assert_eq!(status.get_details_precondition_failure().is_some(), reason.code() == Code::FailedPrecondition);
        }
    }

    #[test]
    fn every_violation_keeps_its_reason() {
        let mut violations = Violations::new();
        violations.add("initial_slots[1].date", Reason::DateInvalid, "31 February does not exist");
        violations.add("display_name", Reason::FieldInvalid, "must not be empty");
        let status = status(violations.finish().unwrap_err());
        let sent = status.get_details_bad_request().unwrap().field_violations;
        assert_eq!(sent[0].reason, "DATE_INVALID");
        assert_eq!(sent[1].reason, "FIELD_INVALID");
        let refusal = refusal_of(&status).unwrap();
        assert_eq!(refusal.violations[0].field, "initial_slots[1].date");
        assert_eq!(refusal.violations[0].reason, Some(Reason::DateInvalid));
    }

    #[test]
    fn a_status_fits_a_header_whatever_was_wrong() {
        let mut violations = Violations::new();
        for i in 0..1000 {
            violations.add(format!("requests[{i}].slot.date"), Reason::DateInvalid, "日".repeat(1000));
        }
        let fault =
            violations.finish().unwrap_err().with("filter", "x".repeat(100_000)).about("Slot", "n".repeat(9999));
        let status = status(fault);
        let mut headers = http::HeaderMap::new();
        status.add_header(&mut headers).unwrap();
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(size <= 8 * 1024, "{size}");
        let refusal = refusal_of(&status).unwrap();
        let omitted: usize = refusal.metadata["omittedViolations"].parse().unwrap();
        assert_eq!(omitted + refusal.violations.len(), 1000);
    }

    #[test]
    fn the_retry_delay_and_the_resource_travel_along() {
        let fault = Fault::new(Reason::HospitalUnavailable, "hospital does not answer")
            .retry_after(Duration::from_millis(250))
            .about("Slot", "hospitals/seoul/slots/2027-01-04");
        let refusal = refusal_of(&status(fault)).unwrap();
        assert_eq!(refusal.retry_after, Some(Duration::from_millis(250)));
        assert_eq!(refusal.resource, Some(("Slot".to_owned(), "hospitals/seoul/slots/2027-01-04".to_owned())));
    }
}
