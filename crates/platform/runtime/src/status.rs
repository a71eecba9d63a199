//! The one place where a fault becomes a gRPC status.
//!
//! The mapping of codes is exhaustive, so a new code does not compile until it is mapped here. The cause, which a log
//! may contain and a client may not see, is logged here and not sent. Clients read statuses with [`refusal_of`].

mod refusal;

use std::collections::HashMap;

use bytes::Bytes;
use contract::google::rpc;
use fault::{Code, Fault, Language, Reason, Violation};
use http::HeaderMap;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use prost::Message;
use tonic::Status;
use tonic::metadata::MetadataMap;
use tonic_types::pb;

use crate::language::Languages;
use crate::scope;

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

/// Makes the status of a fault, logs its cause, and counts it. Services write `.map_err(status)`. In a call whose
/// caller reads a language that there are sentences in, it has one for people.
#[must_use]
pub fn status(fault: Fault) -> Status {
    // Read only here: an answer without an error costs nothing for it.
    let language = scope::current().and_then(|scope| scope.languages.as_ref()?.preferred());
    made(fault, language)
}

/// The same for a call with these headers that is answered without a door.
#[must_use]
pub fn status_of_call(fault: Fault, headers: &HeaderMap) -> Status {
    made(fault, Languages::of(headers).and_then(|languages| languages.preferred()))
}

fn made(fault: Fault, language: Option<Language>) -> Status {
    log(&fault);
    ::metrics::counter!(crate::metrics::REFUSALS, "reason" => fault.reason().name()).increment(1);
    let message = shorten(fault.message(), MAX_MESSAGE);
    let mut details = details(&fault);
    details.extend(language.and_then(|language| localized(&fault, language)));
    let details = pb::Status { code: code(fault.code()).into(), message: message.clone(), details };
    let encoded = Bytes::from(details.encode_to_vec());
    Status::with_details_and_metadata(code(fault.code()), message, encoded, MetadataMap::new())
}

/// A status as part of the answer of a call that answers several requests.
#[must_use]
pub fn embed(status: &Status) -> rpc::Status {
    match rpc::Status::decode(status.details()) {
        Ok(whole) if !whole.details.is_empty() => whole,
        _ => rpc::Status { code: status.code().into(), message: status.message().to_owned(), details: Vec::new() },
    }
}

/// The status that [`embed`] was given.
#[must_use]
pub fn extract(embedded: &rpc::Status) -> Status {
    let code = tonic::Code::from(embedded.code);
    Status::with_details(code, embedded.message.clone(), Bytes::from(embedded.encode_to_vec()))
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
    if let Some(quota) = fault.quota() {
        let violation = pb::quota_failure::Violation {
            subject: shorten(&quota.subject, MAX_VALUE),
            description: shorten(&quota.description, MAX_VALUE),
            ..pb::quota_failure::Violation::default()
        };
        details.push(any("QuotaFailure", &pb::QuotaFailure { violations: vec![violation] }));
    }
    details
}

/// The sentence for the person behind the caller, in a language that they read. It is there only if the call names such
/// a language: a program that shows nobody anything is not sent it.
fn localized(fault: &Fault, language: Language) -> Option<prost_types::Any> {
    let zone = fault.metadata().get("timeZone").and_then(|name| TimeZone::get(name).ok());
    let message = fault.sentence(language, |_, value| shown(value, zone.as_ref()))?;
    Some(any("LocalizedMessage", &pb::LocalizedMessage { locale: language.tag().to_owned(), message }))
}

/// A value of the metadata as people read it: an instant by the clocks of the hospital. The others are as they are.
fn shown(value: &str, zone: Option<&TimeZone>) -> String {
    match (value.parse::<Timestamp>(), zone) {
        (Ok(instant), Some(zone)) => instant.to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M").to_string(),
        (Err(_), _) | (_, None) => shorten(value, MAX_VALUE),
    }
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
    fn an_embedded_refusal_is_read_like_any_other() {
        let refused = status(Fault::new(Reason::SlotFull, "full").with("remaining", 0).about("Slot", "hospitals/a"));
        let read = extract(&embed(&refused));
        assert_eq!((read.code(), read.message()), (refused.code(), refused.message()));
        assert_eq!(refusal_of(&read).unwrap().metadata, refusal_of(&refused).unwrap().metadata);
        let bare = extract(&embed(&Status::unavailable("gone")));
        assert_eq!(
            (bare.code(), bare.message(), refusal_of(&bare).is_none()),
            (tonic::Code::Unavailable, "gone", true)
        );
    }

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

    /// The largest fault with this reason, said in a language or in none.
    fn largest(reason: Reason, language: Option<Language>) -> Status {
        let long = "日".repeat(1000);
        let mut fault = Fault::new(reason, &long).with("filter", &long).about("Slot", &long);
        if reason.code() == Code::InvalidArgument {
            let one = |i| Violation { field: format!("requests[{i}].slot.date"), reason, description: long.clone() };
            fault = fault.violating((0..1000).map(one).collect());
        }
        if reason == Reason::RateLimited {
            fault = fault.exceeding(&long, &long);
        }
        for part in reason.sentence(Language::English).split('{').skip(1) {
            fault = fault.with(part.split('}').next().unwrap().to_owned(), &long);
        }
        made(fault, language)
    }

    #[test]
    fn a_status_fits_a_header_whatever_was_wrong() {
        for reason in Reason::ALL {
            for language in [None, Some(Language::Korean), Some(Language::English)] {
                let status = largest(*reason, language);
                assert_eq!(status.get_details_localized_message().is_some(), language.is_some());
                let mut headers = http::HeaderMap::new();
                status.add_header(&mut headers).unwrap();
                let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
                assert!(size <= 8 * 1024, "{} in {language:?}: {size}", reason.name());
                let refusal = refusal_of(&status).unwrap();
                if let Some(omitted) = refusal.metadata.get("omittedViolations") {
                    assert_eq!(omitted.parse::<usize>().unwrap() + refusal.violations.len(), 1000);
                }
            }
        }
    }

    #[test]
    fn sentences_give_times_in_the_zone_of_the_hospital() {
        let fault = Fault::new(Reason::OutsideBookingWindow, "x")
            .with("today", "2027-03-01")
            .with("timeZone", "Asia/Seoul")
            .with("opensAt", "2027-01-31T15:00:00Z")
            .with("closesAt", "2027-03-01T15:00:00Z");
        let said = |fault: &Fault, language| {
            let status = made(fault.clone(), Some(language));
            status.get_details_localized_message().map(|said| (said.locale, said.message))
        };
        let english = "This date cannot be booked now. It can be booked from 2027-02-01 00:00 until 2027-03-02 00:00 (Asia/Seoul).";
        assert_eq!(said(&fault, Language::English), Some(("en".to_owned(), english.to_owned())));
        let korean = said(&fault, Language::Korean).unwrap();
        assert_eq!(korean.0, "ko");
        assert!(korean.1.contains("2027-02-01 00:00부터 2027-03-02 00:00까지"), "{korean:?}");
        // Values that are missing are not made up.
        assert_eq!(said(&Fault::new(Reason::OutsideBookingWindow, "x"), Language::Korean), None);
    }

    #[test]
    fn the_limit_that_was_reached_travels_along() {
        let fault = Fault::new(Reason::RateLimited, "x").exceeding("customer:kim", "calls under way: at most 32");
        let sent = status(fault).get_details_quota_failure().unwrap().violations;
        assert_eq!(
            (sent[0].subject.as_str(), sent[0].description.as_str()),
            ("customer:kim", "calls under way: at most 32")
        );
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
