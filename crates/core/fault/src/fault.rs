//! A refusal or a failure, with what a client needs to act on it and what only a log may see.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::{Code, Language, Reason, Violation};

/// The thing a fault is about (`google.rpc.ResourceInfo`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// The type of the resource, for example `Slot`.
    pub kind: Cow<'static, str>,
    /// The resource name, for example `hospitals/seoul/slots/2027-01-04`.
    pub name: String,
}

/// The limit that a caller has reached (`google.rpc.QuotaFailure`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quota {
    /// Whose limit it is, for example `customer:kim`.
    pub subject: String,
    /// Which limit it is, and its number.
    pub description: String,
}

#[derive(Clone, PartialEq, Eq)]
struct Parts {
    reason: Reason,
    message: String,
    metadata: BTreeMap<Cow<'static, str>, String>,
    violations: Vec<Violation>,
    retry_after: Option<Duration>,
    resource: Option<Resource>,
    quota: Option<Quota>,
    cause: Option<String>,
}

/// Why a call was refused or failed. The parts are boxed, so that a `Result` with it stays small.
///
/// ```
/// use fault::{Code, Fault, Reason};
///
/// let full = Fault::new(Reason::SlotFull, "2027-03-02 is full").with("slot", "hospitals/a/slots/2027-03-02");
/// assert_eq!(full.code(), Code::FailedPrecondition);
/// assert_eq!(full.metadata()["slot"], "hospitals/a/slots/2027-03-02");
/// // The cause is only for the log.
/// assert_eq!(Fault::internal("row 7 cannot be read").cause(), Some("row 7 cannot be read"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Fault(Box<Parts>);

impl Fault {
    /// A fault with this reason. The message is for people: lower case, no full stop. Every value in it is also given
    /// to [`Fault::with`]. A retryable reason starts with a delay of one second; see [`Fault::retry_after`].
    #[must_use]
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        let retry_after = reason.retryable().then_some(Duration::from_secs(1));
        Self(Box::new(Parts {
            reason,
            message: message.into(),
            metadata: BTreeMap::new(),
            violations: Vec::new(),
            retry_after,
            resource: None,
            quota: None,
            cause: None,
        }))
    }

    /// A defect of the service. Clients read a fixed sentence; `cause` goes to the log.
    #[must_use]
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(Reason::Internal, "internal error").caused_by(cause)
    }

    /// Adds one value of the message as metadata. Keys are lowerCamelCase: constants, or the keys of a peer's refusal
    /// that is passed on.
    #[must_use]
    pub fn with(mut self, key: impl Into<Cow<'static, str>>, value: impl fmt::Display) -> Self {
        self.0.metadata.insert(key.into(), value.to_string());
        self
    }

    /// Sets how long the caller waits before it retries.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.0.retry_after = Some(delay);
        self
    }

    /// Names the resource that the fault is about.
    #[must_use]
    pub fn about(mut self, kind: impl Into<Cow<'static, str>>, name: impl fmt::Display) -> Self {
        self.0.resource = Some(Resource { kind: kind.into(), name: name.to_string() });
        self
    }

    /// Names the limit that the caller has reached, and whose it is.
    #[must_use]
    pub fn exceeding(mut self, subject: impl fmt::Display, description: impl Into<String>) -> Self {
        self.0.quota = Some(Quota { subject: subject.to_string(), description: description.into() });
        self
    }

    /// Keeps the causes for the log; a client never sees them.
    #[must_use]
    pub fn caused_by(mut self, cause: impl fmt::Display) -> Self {
        self.0.cause = Some(cause.to_string());
        self
    }

    /// Attaches the violations of a request, in the order of its fields.
    #[must_use]
    pub fn violating(mut self, violations: Vec<Violation>) -> Self {
        self.0.violations = violations;
        self
    }

    /// The reason, which decides the code and whether a retry helps.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.0.reason
    }

    /// The gRPC code that the reason maps to.
    #[must_use]
    pub fn code(&self) -> Code {
        self.0.reason.code()
    }

    /// The sentence that clients read.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Every value of the message, by lowerCamelCase key.
    #[must_use]
    pub fn metadata(&self) -> &BTreeMap<Cow<'static, str>, String> {
        &self.0.metadata
    }

    /// The violations of the request, in the order of its fields.
    #[must_use]
    pub fn violations(&self) -> &[Violation] {
        &self.0.violations
    }

    /// How long to wait before a retry; `None` if a retry does not help.
    #[must_use]
    pub fn retry_delay(&self) -> Option<Duration> {
        self.0.retry_after
    }

    /// The resource that the fault is about, if it names one.
    #[must_use]
    pub fn resource(&self) -> Option<&Resource> {
        self.0.resource.as_ref()
    }

    /// The limit that the caller has reached, if the fault names one.
    #[must_use]
    pub fn quota(&self) -> Option<&Quota> {
        self.0.quota.as_ref()
    }

    /// The reason as a sentence for people, with the values of this fault. `shown` writes a value as people read it,
    /// from its key and its text. `None` if a value of the sentence is missing, which only a fault without the metadata
    /// that the contract promises lacks.
    #[must_use]
    pub fn sentence(&self, language: Language, shown: impl Fn(&str, &str) -> String) -> Option<String> {
        let mut sentence = String::new();
        for part in self.0.reason.sentence(language).split_inclusive('}') {
            let Some((text, key)) = part.strip_suffix('}').and_then(|part| part.split_once('{')) else {
                sentence.push_str(part);
                continue;
            };
            sentence.push_str(text);
            sentence.push_str(&shown(key, self.0.metadata.get(key)?));
        }
        Some(sentence)
    }

    /// The cause, for the log only.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.0.cause.as_deref()
    }
}

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.reason.name(), self.0.message)?;
        if let Some(cause) = &self.0.cause {
            write!(f, " (cause: {cause})")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_found_by_its_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_name(reason.name()), Some(*reason));
        }
        assert_eq!(Reason::from_name("NO_SUCH_REASON"), None);
    }

    #[test]
    fn a_sentence_has_the_values_of_the_fault_or_is_not_said() {
        let shown = |key: &str, value: &str| format!("<{key}={value}>");
        let below = Fault::new(Reason::CapacityBelowBooked, "x").with("bookedCount", 3);
        assert_eq!(below.sentence(Language::English, shown), None);
        assert_eq!(
            below.with("requestedCapacity", 2).sentence(Language::English, shown).unwrap(),
            "<bookedCount=3> places are booked already, so the capacity cannot become <requestedCapacity=2>."
        );
        let full = Fault::new(Reason::SlotFull, "x").sentence(Language::Korean, shown);
        assert_eq!(full.as_deref(), Some(Reason::SlotFull.sentence(Language::Korean)));
    }

    #[test]
    fn business_refusals_stay_clear_of_what_a_mesh_counts_as_failure() {
        let retried = [Reason::HospitalUnavailable, Reason::ViewLagging, Reason::NotReady, Reason::StorageUnavailable];
        for reason in Reason::ALL {
            assert_eq!(reason.code() == Code::Unavailable, retried.contains(reason), "{}", reason.name());
            assert_eq!(reason.code() == Code::Internal, *reason == Reason::Internal, "{}", reason.name());
        }
    }
}
