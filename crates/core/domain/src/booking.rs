//! The booking protocol between Screening and Hospital: claim first, fence later.
//!
//! A place is asked for under an id chosen beforehand, and what Hospital answers, or fails to answer, decides the next step.
//! An answer that did not come is never guessed. This module knows the steps; [`crate::screening`] judges what each does to
//! the row, and the service takes them.

use fault::{Code, Reason};
use sha2::{Digest, Sha256};

use crate::ids::{CustomerId, ScreeningId, SlotId};
use crate::request::RequestKey;

/// Bytes of the time at the beginning of a UUID of version 7 (RFC 9562, section 5.7).
const TIME: usize = 6;

/// The id of the n-th attempt (from 0) at what a request asks for. A retry of the request finds the same id and so asks
/// for the same claim; when an attempt was fenced, its id is used up and the next one takes over.
///
/// What is booked for whom is part of it and how to treat an unreachable Hospital is not, so that a caller who comes back
/// with `accept_pending` goes on with the claim its first call may have taken.
///
/// A request_id that begins with its time (UUID version 7) hands it on: bookings made together then lie together in every
/// index by screening, in five databases. What tells ids of one millisecond apart is still 74 bits of the digest.
#[must_use]
pub fn attempt_id(request: &RequestKey, customer: &CustomerId, slot: &SlotId, attempt: u32) -> ScreeningId {
    let mut hash = Sha256::new();
    for part in [request.caller.as_str(), request.method, customer.segment(), &slot.to_string()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(request.id.as_bytes());
    hash.update(attempt.to_be_bytes());
    let digest: [u8; 32] = hash.finalize().into();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    if request.id.get_version_num() == 7 {
        bytes[..TIME].copy_from_slice(&request.id.as_bytes()[..TIME]);
    }
    ScreeningId(uuid::Builder::from_custom_bytes(bytes).into_uuid())
}

/// How a claim ended before anybody could book it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ended {
    /// Released, or released before it was reserved.
    Released,
    /// Taken away.
    Revoked,
}

/// What came back for a ReserveCapacity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The claim is ACTIVE.
    Active,
    /// The claim has ended and never becomes active.
    Terminated(Ended),
    /// No place, for this reason. The claim does not exist.
    Refused(Reason),
    /// Hospital has more to do than it can; nothing happened.
    Busy(Reason),
    /// No answer: the claim may be ACTIVE or may become so.
    Unknown,
}

impl Reply {
    /// What a refusal of Hospital means; `claim_state` is what CLAIM_TERMINATED says of the claim.
    #[must_use]
    pub fn of_refusal(reason: Reason, claim_state: &str) -> Self {
        match reason.code() {
            // Refusals of the claim, by the state of the hospital, the slot or the claim itself.
            Code::FailedPrecondition if reason == Reason::ClaimTerminated => {
                Self::Terminated(if claim_state == "REVOKED" { Ended::Revoked } else { Ended::Released })
            }
            Code::FailedPrecondition
            | Code::NotFound
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::OutOfRange => Self::Refused(reason),
            Code::ResourceExhausted | Code::Aborted => Self::Busy(reason),
            // Whether Hospital did anything before it failed, or would for another token of ours, is not known.
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unauthenticated
            | Code::PermissionDenied => Self::Unknown,
        }
    }
}

/// What to do for a booking that has no row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Write it CONFIRMED.
    Commit,
    /// Begin again under the next attempt's id.
    NextAttempt,
    /// Tell the caller what Hospital said; write nothing.
    PassOn,
    /// Write it PENDING, as the caller allowed.
    Park,
    /// Tell the caller that the outcome is not known; write nothing.
    GiveUp,
}

/// The step after a reply, for a booking that has no row.
#[must_use]
pub fn step(reply: Reply, accept_pending: bool) -> Step {
    match reply {
        Reply::Active => Step::Commit,
        Reply::Terminated(Ended::Released | Ended::Revoked) => Step::NextAttempt,
        Reply::Refused(_) | Reply::Busy(_) => Step::PassOn,
        Reply::Unknown if accept_pending => Step::Park,
        Reply::Unknown => Step::GiveUp,
    }
}

/// What to do for a PENDING booking that was not given up. One that was has its claim released, whatever the state that
/// is in, and is then rejected: see [`after_release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PendingStep {
    /// Write it CONFIRMED, unless it changed meanwhile.
    Confirm,
    /// Write that it will be rejected for this reason.
    GiveUp(Reason),
    /// Leave it to the event that reports the revocation and what the admin said.
    AwaitRevocation,
    /// Ask again later.
    Later,
}

/// The step after a reply, for a PENDING booking that was not given up.
#[must_use]
pub fn pending_step(reply: Reply) -> PendingStep {
    match reply {
        Reply::Active => PendingStep::Confirm,
        Reply::Refused(reason) => PendingStep::GiveUp(reason),
        // Only a booking that was given up is released while it is PENDING, and that one asks for no place any more: the
        // row that this answer is about has been given up meanwhile.
        Reply::Terminated(Ended::Released) => PendingStep::GiveUp(Reason::HospitalUnavailable),
        Reply::Terminated(Ended::Revoked) => PendingStep::AwaitRevocation,
        Reply::Busy(_) | Reply::Unknown => PendingStep::Later,
    }
}

/// Whether a given up booking can be written REJECTED when Hospital has acknowledged the release of its claim. Where the
/// claim had been taken after all and then revoked, the event that reports it says what becomes of the booking.
#[must_use]
pub fn after_release(ended: Ended) -> bool {
    match ended {
        Ended::Released => true,
        Ended::Revoked => false,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key(caller: &str, id: u128) -> RequestKey {
        RequestKey { caller: caller.into(), method: "CreateScreening", id: Uuid::from_u128(id) }
    }

    #[test]
    fn a_retry_finds_its_id_and_nothing_else_does() {
        let kim = CustomerId::from_segment("kim").unwrap();
        let lee = CustomerId::from_segment("lee").unwrap();
        let slot = SlotId::parse("hospitals/seoul/slots/2027-01-04").unwrap();
        let other = SlotId::parse("hospitals/seoul/slots/2027-01-05").unwrap();
        let id = attempt_id(&key("customer:kim", 1), &kim, &slot, 0);
        assert_eq!(attempt_id(&key("customer:kim", 1), &kim, &slot, 0), id);
        let others = [
            attempt_id(&key("customer:kim", 1), &kim, &slot, 1),
            attempt_id(&key("customer:kim", 2), &kim, &slot, 0),
            attempt_id(&key("admin:kim", 1), &kim, &slot, 0),
            attempt_id(&key("customer:kim", 1), &lee, &slot, 0),
            attempt_id(&key("customer:kim", 1), &kim, &other, 0),
        ];
        assert!(!others.contains(&id));
        assert_eq!(id.0.get_version_num(), 8);
        assert_eq!(id.0.get_variant(), uuid::Variant::RFC4122);
    }

    #[test]
    fn the_time_of_a_request_id_orders_bookings_and_identifies_none() {
        let kim = CustomerId::from_segment("kim").unwrap();
        let slot = SlotId::parse("hospitals/seoul/slots/2027-01-04").unwrap();
        let at = |millis: u64, rest: u8| {
            let request = uuid::Builder::from_unix_timestamp_millis(millis, &[rest; 10]).into_uuid();
            attempt_id(&key("customer:kim", request.as_u128()), &kim, &slot, 0)
        };
        assert!(at(1_000, 255) < at(1_001, 0));
        assert_ne!(at(1_000, 1), at(1_000, 2));
        assert_eq!(at(1_000, 1).0.get_version_num(), 8);
    }

    #[test]
    fn nothing_is_guessed() {
        assert_eq!(step(Reply::Unknown, false), Step::GiveUp);
        assert_eq!(step(Reply::Unknown, true), Step::Park);
        assert_eq!(pending_step(Reply::Unknown), PendingStep::Later);
        assert_eq!(pending_step(Reply::Busy(Reason::Overloaded)), PendingStep::Later);
    }

    #[test]
    fn customers_never_see_how_a_claim_ended() {
        for state in ["RELEASED", "REVOKED"] {
            let reply = Reply::of_refusal(Reason::ClaimTerminated, state);
            assert_eq!(step(reply, true), Step::NextAttempt);
            assert_ne!(pending_step(reply), PendingStep::GiveUp(Reason::ClaimTerminated));
        }
    }

    #[test]
    fn only_a_refusal_of_the_claim_itself_ends_a_pending_booking() {
        let ends = |reason| matches!(pending_step(Reply::of_refusal(reason, "")), PendingStep::GiveUp(_));
        for reason in [Reason::SlotFull, Reason::SlotClosed, Reason::HospitalDeleted, Reason::HospitalNotFound] {
            assert!(ends(reason), "{}", reason.name());
        }
        for reason in [Reason::Overloaded, Reason::NotReady, Reason::Internal, Reason::RoleRequired] {
            assert!(!ends(reason), "{}", reason.name());
        }
    }
}
