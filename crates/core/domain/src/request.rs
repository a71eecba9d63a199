//! `request_id`, the idempotency key that makes a retry safe.
//!
//! A record of (caller, method, id) is written in the transaction of the effect, with a fingerprint of the content and
//! the resource that the call made. A replay answers that resource in its current state. Other content under the same
//! id is refused.

use fault::{Fault, Reason, Violations};
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::access::Caller;

/// The shortest time for which a record answers replays.
pub const RETENTION: std::time::Duration = std::time::Duration::from_secs(7 * 24 * 3_600);

/// The scope of one request id.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestKey {
    /// [`Caller`] as text, for example `customer:kim`.
    pub caller: String,
    /// The method's bare name, for example `CreateScreening`.
    pub method: &'static str,
    /// The id that the caller chose, or a fresh one if it chose none.
    pub id: Uuid,
}

/// SHA-256 over the canonical bytes of a request without its request_id.
pub type Fingerprint = [u8; 32];

/// A request as the idempotency rules see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The key of its request record.
    pub key: RequestKey,
    /// The digest of its content.
    pub fingerprint: Fingerprint,
    /// The digest under which a version before kept the same content, if that differs.
    pub earlier: Option<Fingerprint>,
    /// Whether the caller chose the id, so that a retry can be recognised.
    pub chosen: bool,
}

impl Request {
    /// Makes the identity of a call. `id` is the result of [`decode_id`]. `fresh` is used if the caller chose no id, so
    /// that a batch can still be run again. The request_id of `message` must be cleared.
    pub fn new(caller: &Caller, method: &'static str, id: Option<Uuid>, fresh: Uuid, message: &impl Message) -> Self {
        Self {
            key: RequestKey { caller: caller.to_string(), method, id: id.unwrap_or(fresh) },
            fingerprint: Sha256::digest(message.encode_to_vec()).into(),
            earlier: None,
            chosen: id.is_some(),
        }
    }

    /// The same request, which also continues a record that a version before made of it as this message.
    #[must_use]
    pub fn also_recorded_as(self, message: &impl Message) -> Self {
        Self { earlier: Some(Sha256::digest(message.encode_to_vec()).into()), ..self }
    }

    /// The identity of work that a service does without a call. It has no content that could differ, and only the
    /// writer repeats it.
    pub fn of_own_work(service: &Caller, method: &'static str, id: Uuid) -> Self {
        Self {
            key: RequestKey { caller: service.to_string(), method, id },
            fingerprint: Sha256::digest([]).into(),
            earlier: None,
            chosen: false,
        }
    }

    /// Checks that an earlier record with this fingerprint is of the same request.
    ///
    /// # Errors
    /// REQUEST_ID_REUSED if the fingerprint differs.
    pub fn matches(&self, recorded: &[u8]) -> Result<(), Fault> {
        self.continues(recorded, false)
    }

    /// Like [`Request::matches`], but also accepts a record that was rebuilt from an event. Such a record has no
    /// fingerprint, because an event reports what a call changed and not all of its content. `same` says whether this
    /// request asks for that change.
    ///
    /// # Errors
    /// REQUEST_ID_REUSED if the fingerprint differs, or if it is missing and `same` is false.
    pub fn continues(&self, recorded: &[u8], same: bool) -> Result<(), Fault> {
        let known = recorded == self.fingerprint || self.earlier.is_some_and(|earlier| recorded == earlier);
        if known || (recorded.is_empty() && same) {
            Ok(())
        } else {
            let message = "this request_id was used before with other content; choose a new one";
            Err(Fault::new(Reason::RequestIdReused, message).with("requestId", self.key.id))
        }
    }
}

/// Reads an optional request_id: any RFC 9562 UUID, compared without case. Adds a violation if it is malformed.
pub fn decode_id(violations: &mut Violations, field: &str, text: &str) -> Option<Uuid> {
    if text.is_empty() {
        return None;
    }
    let parsed = if text.len() == 36 { Uuid::try_parse(text).ok() } else { None };
    if parsed.is_none() {
        violations.add(
            field,
            Reason::RequestIdMalformed,
            "must be a UUID such as 7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30",
        );
    }
    parsed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_without_a_fingerprint_stands_for_what_it_led_to() {
        let message = |name: &str| contract::screening::v1::GetScreeningRequest { name: name.to_owned() };
        let request =
            |name| Request::new(&Caller::Anonymous, "CancelScreening", None, Uuid::from_u128(1), &message(name));
        let (asked, other) = (request("a"), request("b"));
        for same in [true, false] {
            assert_eq!(asked.continues(&asked.fingerprint, same), Ok(()));
            assert!(asked.continues(&other.fingerprint, same).is_err());
        }
        assert_eq!(asked.continues(&[], true), Ok(()));
        assert!(asked.continues(&[], false).is_err() && asked.matches(&[]).is_err());
    }
}
