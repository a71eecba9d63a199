//! Errors as a client in any language decodes them.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::time::Duration;

use fault::Reason;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// The `ErrorInfo.domain` of every reason.
const DOMAIN: &str = "checkup";

/// A status with its details decoded.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// The gRPC status code.
    pub code: Code,
    /// The message of the status, for people.
    pub message: String,
    /// `ErrorInfo.reason`, which names the error for programs.
    pub reason: String,
    /// `ErrorInfo.metadata`, the values of the error.
    pub metadata: BTreeMap<String, String>,
    /// `BadRequest`: the field, reason and description of each violation.
    pub violations: Vec<(String, String, String)>,
    /// `RetryInfo`: how long to wait before a retry.
    pub retry_after: Option<Duration>,
    /// `PreconditionFailure`: the type and subject of each violation.
    pub preconditions: Vec<(String, String)>,
    /// `ResourceInfo`: the type and name of the resource.
    pub resource: Option<(String, String)>,
    /// `QuotaFailure`: the subject and description of each violation.
    pub quotas: Vec<(String, String)>,
    /// `LocalizedMessage`: the locale and the sentence for people.
    pub localized: Option<(String, String)>,
}

impl Refusal {
    /// Decodes a status; `None` if it has no `ErrorInfo` of this system.
    #[must_use]
    pub fn of(status: &Status) -> Option<Self> {
        let details = status.get_error_details();
        let info = details.error_info().filter(|info| info.domain == DOMAIN)?;
        let violations = details.bad_request().map_or_else(Vec::new, |bad| bad.field_violations.clone());
        let preconditions = details.precondition_failure().map_or_else(Vec::new, |failure| failure.violations.clone());
        let quotas = details.quota_failure().map_or_else(Vec::new, |failure| failure.violations.clone());
        Some(Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: info.reason.clone(),
            metadata: info.metadata.clone().into_iter().collect(),
            violations: violations.into_iter().map(|one| (one.field, one.reason, one.description)).collect(),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
            preconditions: preconditions.into_iter().map(|one| (one.r#type, one.subject)).collect(),
            resource: details.resource_info().map(|info| (info.resource_type.clone(), info.resource_name.clone())),
            quotas: quotas.into_iter().map(|one| (one.subject, one.description)).collect(),
            localized: status.get_details_localized_message().map(|said| (said.locale, said.message)),
        })
    }

    /// One value of the metadata.
    ///
    /// # Panics
    /// If the metadata has no such key.
    #[must_use]
    pub fn value(&self, key: &str) -> &str {
        match self.metadata.get(key) {
            Some(value) => value,
            None => panic!("{} carries no {key}: {:?}", self.reason, self.metadata),
        }
    }

    /// The paths of the invalid fields.
    #[must_use]
    pub fn fields(&self) -> Vec<&str> {
        self.violations.iter().map(|(field, _, _)| field.as_str()).collect()
    }

    /// The paths of the invalid fields, each with its reason.
    #[must_use]
    pub fn complaints(&self) -> Vec<(&str, &str)> {
        self.violations.iter().map(|(field, reason, _)| (field.as_str(), reason.as_str())).collect()
    }
}

/// The gRPC code that a reason is sent with.
fn code_of(reason: Reason) -> Code {
    match reason.code() {
        fault::Code::InvalidArgument => Code::InvalidArgument,
        fault::Code::NotFound => Code::NotFound,
        fault::Code::AlreadyExists => Code::AlreadyExists,
        fault::Code::FailedPrecondition => Code::FailedPrecondition,
        fault::Code::Aborted => Code::Aborted,
        fault::Code::ResourceExhausted => Code::ResourceExhausted,
        fault::Code::Unavailable => Code::Unavailable,
        fault::Code::Unauthenticated => Code::Unauthenticated,
        fault::Code::PermissionDenied => Code::PermissionDenied,
        fault::Code::DeadlineExceeded => Code::DeadlineExceeded,
        fault::Code::OutOfRange => Code::OutOfRange,
        fault::Code::Internal => Code::Internal,
    }
}

/// Returns the refusal of a call that must be refused with this reason and its code.
///
/// # Panics
/// If the call was answered, or refused differently.
#[track_caller]
pub fn refused<T: Debug>(result: Result<T, Status>, reason: Reason) -> Refusal {
    refused_one_of(result, &[reason])
}

/// Returns the refusal of a call that must be refused with one of these reasons and its code.
///
/// # Panics
/// If the call was answered, or refused differently.
#[track_caller]
pub fn refused_one_of<T: Debug>(result: Result<T, Status>, reasons: &[Reason]) -> Refusal {
    let status = match result {
        Ok(answer) => panic!("expected one of {reasons:?}, was answered {answer:?}"),
        Err(status) => status,
    };
    let Some(refusal) = Refusal::of(&status) else {
        panic!("expected one of {reasons:?}, got a status without ErrorInfo: {status:?}")
    };
    let Some(reason) = reasons.iter().find(|reason| reason.name() == refusal.reason) else {
        panic!("expected one of {reasons:?}, got {refusal:#?}")
    };
    assert_eq!(refusal.code, code_of(*reason), "{} travels under one code: {refusal:#?}", refusal.reason);
    assert!(!refusal.message.is_empty(), "an error says something to people: {refusal:#?}");
    refusal
}

/// Whether a status reports an orderly GOAWAY of the server: the server has not begun the call.
#[must_use]
pub fn is_goaway(status: &Status) -> bool {
    let causes = std::iter::successors(std::error::Error::source(status), |cause| cause.source());
    let mut causes = causes.filter_map(|cause| cause.downcast_ref::<h2::Error>());
    causes.any(|cause| cause.is_go_away() && cause.is_remote() && cause.reason() == Some(h2::Reason::NO_ERROR))
}
