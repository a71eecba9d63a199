//! Reads a status as a refusal: what a peer refused, and why.
//!
//! Statuses that this system did not make (a proxy's, the transport's) are no refusals; `client` classifies those.

use std::collections::BTreeMap;
use std::time::Duration;

use fault::{Fault, Reason, Violation};
use tonic::Status;
use tonic_types::StatusExt;

use super::DOMAIN;

/// A refusal, decoded from a status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The reason, as in the contract.
    pub reason: Reason,
    /// The message for people.
    pub message: String,
    /// Every value of the message, by lowerCamelCase key.
    pub metadata: BTreeMap<String, String>,
    /// How long to wait before a retry; `None` if a retry does not help.
    pub retry_after: Option<Duration>,
    /// The wrong fields, in the order of the request's fields.
    pub violations: Vec<RefusedField>,
    /// The type and the name of the resource that the refusal is about.
    pub resource: Option<(String, String)>,
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedField {
    /// The dotted path of the field, in snake case.
    pub field: String,
    /// The reason; `None` if this version does not know it.
    pub reason: Option<Reason>,
    /// What is wrong and what would be right.
    pub description: String,
}

/// The reason of a status; `None` if no service of this system made it.
#[must_use]
pub fn reason_of(status: &Status) -> Option<Reason> {
    let info = status.get_details_error_info()?;
    if info.domain == DOMAIN { Reason::from_name(&info.reason) } else { None }
}

/// The refusal in a status; `None` if no service of this system made it.
#[must_use]
pub fn refusal_of(status: &Status) -> Option<Refusal> {
    let reason = reason_of(status)?;
    let details = status.get_error_details();
    let fields = details.bad_request().map(|bad| bad.field_violations.as_slice()).unwrap_or_default();
    Some(Refusal {
        reason,
        message: status.message().to_owned(),
        metadata: details.error_info()?.metadata.clone().into_iter().collect(),
        retry_after: details.retry_info().and_then(|info| info.retry_delay),
        violations: fields
            .iter()
            .map(|field| RefusedField {
                field: field.field.clone(),
                reason: Reason::from_name(&field.reason),
                description: field.description.clone(),
            })
            .collect(),
        resource: details.resource_info().map(|info| (info.resource_type.clone(), info.resource_name.clone())),
    })
}

impl Refusal {
    /// The refusal as a fault, for a service that passes its peer's answer on.
    #[must_use]
    pub fn into_fault(self) -> Fault {
        let mut fault = Fault::new(self.reason, self.message);
        for (key, value) in self.metadata {
            fault = fault.with(key, value);
        }
        if let Some((kind, name)) = self.resource {
            fault = fault.about(kind, name);
        }
        if let Some(delay) = self.retry_after {
            fault = fault.retry_after(delay);
        }
        let violations = self.violations.into_iter().map(|field| Violation {
            field: field.field,
            reason: field.reason.unwrap_or(Reason::FieldInvalid),
            description: field.description,
        });
        fault.violating(violations.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::status;

    #[test]
    fn a_peers_refusal_is_passed_on_whole() {
        let fault = Fault::new(Reason::SlotFull, "no place is left")
            .with("remaining", 0)
            .with("slot", "hospitals/h/slots/d")
            .with("aKeyOfTheNextVersion".to_owned(), 1)
            .about("Slot", "hospitals/h/slots/d");
        let passed_on = refusal_of(&status(fault.clone())).unwrap().into_fault();
        assert_eq!(passed_on, fault);
    }

    #[test]
    fn foreign_statuses_are_no_refusals() {
        assert_eq!(reason_of(&Status::unavailable("no healthy upstream")), None);
        assert_eq!(
            refusal_of(&Status::with_details(tonic::Code::Internal, "x", bytes::Bytes::from_static(&[0xff; 9]))),
            None
        );
    }
}
