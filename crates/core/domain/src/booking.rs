//! The booking protocol between Screening and Hospital: claim first, fence later.
//!
//! Screening asks for a place under an id that it chose beforehand. The answer, or the lack of one, decides the next
//! step; a missing answer is never guessed. This module names the steps, [`crate::screening`] decides what each one
//! does to the row, and the service carries them out.

use fault::{Code, Reason};
use sha2::{Digest, Sha256};

use crate::ids::{CustomerId, ScreeningId, SlotId};
use crate::request::RequestKey;

/// Bytes that the time takes at the start of a UUID of version 7 (RFC 9562, section 5.7).
const TIME: usize = 6;

/// The id of attempt number `attempt`, from 0, at what a request asks for. A retry of the request computes the same id
/// and so asks for the same claim. When an attempt was fenced, its id is used up and the next attempt uses the next id.
///
/// The id depends on the customer and the slot but not on `accept_pending`. So a caller who retries with
/// `accept_pending` continues with the claim that the first call may have taken.
///
/// If the request_id begins with its time (UUID version 7), the attempt's id begins with the same time: bookings made
/// together then lie together in every index by screening, in five databases. The other 74 bits come from the digest
/// and keep ids of one millisecond apart.
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
    /// Released after it was reserved, or before (a tombstone).
    Released,
    /// Taken away by Hospital.
    Revoked,
}

/// The outcome of a ReserveCapacity call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reply {
    /// The claim is ACTIVE.
    Active,
    /// The claim waits in the queue of its slot.
    Waiting,
    /// The claim has ended and never becomes active.
    Terminated(Ended),
    /// Hospital gives no place, for this reason. The claim does not exist.
    Refused(Reason),
    /// Hospital is overloaded or busy; nothing happened.
    Busy(Reason),
    /// No answer: the claim may be ACTIVE or may become so.
    Unknown,
}

impl Reply {
    /// Classifies a refusal by Hospital; `claim_state` is the claim's state in the metadata of CLAIM_TERMINATED.
    #[must_use]
    pub fn of_refusal(reason: Reason, claim_state: &str) -> Self {
        match reason.code() {
            // Refusals that follow from the state of the hospital, the slot or the claim.
            Code::FailedPrecondition if reason == Reason::ClaimTerminated => {
                Self::Terminated(if claim_state == "REVOKED" { Ended::Revoked } else { Ended::Released })
            }
            Code::FailedPrecondition
            | Code::NotFound
            | Code::AlreadyExists
            | Code::InvalidArgument
            | Code::OutOfRange => Self::Refused(reason),
            Code::ResourceExhausted | Code::Aborted => Self::Busy(reason),
            // It is unknown whether Hospital did anything before it failed, or whether it would accept another token of
            // ours.
            Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Internal
            | Code::Unauthenticated
            | Code::PermissionDenied => Self::Unknown,
        }
    }
}

/// The next step for a booking that has no row, or for one that is to move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Write the row as CONFIRMED, or on its new slot.
    Commit,
    /// Write the row as WAITLISTED.
    Queue,
    /// Tell the caller, who does not want to wait, that the slot is full; write nothing. The claim joined the queue for
    /// another call of the same request. Unless that one books it, the claim is released.
    Full,
    /// Begin again under the next attempt's id, or with the next claim.
    NextAttempt,
    /// Answer the caller with Hospital's refusal; write nothing.
    PassOn,
    /// Write the row as PENDING, because the caller accepts that.
    Park,
    /// Tell the caller that the outcome is not known; write nothing.
    GiveUp,
}

/// What the caller of a booking accepts instead of a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Accepts {
    /// A PENDING booking while Hospital is out of reach.
    pub pending: bool,
    /// A WAITLISTED booking where no place is left.
    pub waitlisted: bool,
}

/// The step after a reply, for a booking that has no row or is to move. One that is to move accepts nothing instead of
/// a place.
#[must_use]
pub fn step(reply: Reply, accepts: Accepts) -> Step {
    match reply {
        Reply::Active => Step::Commit,
        Reply::Waiting if accepts.waitlisted => Step::Queue,
        Reply::Waiting => Step::Full,
        Reply::Terminated(Ended::Released | Ended::Revoked) => Step::NextAttempt,
        Reply::Refused(_) | Reply::Busy(_) => Step::PassOn,
        Reply::Unknown if accepts.pending => Step::Park,
        Reply::Unknown => Step::GiveUp,
    }
}

/// The next step for a PENDING booking that was not given up. A booking that was given up has its claim released,
/// whatever its state, and is then rejected: see [`after_release`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum PendingStep {
    /// Write the row as CONFIRMED, unless it changed meanwhile.
    Confirm,
    /// Write the row as WAITLISTED, unless it changed meanwhile.
    Queue,
    /// Mark the row as given up for this reason; it will be rejected.
    GiveUp(Reason),
    /// Wait for the event that reports the revocation and the admin's message.
    AwaitRevocation,
    /// Leave the row and ask Hospital again later.
    Later,
}

/// The step after a reply, for a PENDING booking that was not given up. `joins_waitlist` says whether it may wait for a
/// place.
#[must_use]
pub fn pending_step(reply: Reply, joins_waitlist: bool) -> PendingStep {
    match reply {
        Reply::Active => PendingStep::Confirm,
        Reply::Waiting if joins_waitlist => PendingStep::Queue,
        Reply::Waiting => PendingStep::GiveUp(Reason::SlotFull),
        Reply::Refused(reason) => PendingStep::GiveUp(reason),
        // Only a booking that was given up is released while it is PENDING, and such a booking asks for no place any
        // more. So the row was given up while this answer was on its way.
        Reply::Terminated(Ended::Released) => PendingStep::GiveUp(Reason::HospitalUnavailable),
        Reply::Terminated(Ended::Revoked) => PendingStep::AwaitRevocation,
        Reply::Busy(_) | Reply::Unknown => PendingStep::Later,
    }
}

/// The next step for a WAITLISTED booking.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WaitingStep {
    /// Write the row as CONFIRMED, unless it changed meanwhile.
    Confirm,
    /// Write the row as EXPIRED, unless it changed meanwhile.
    Expire,
    /// Wait for the event that reports the revocation and the admin's message.
    AwaitRevocation,
    /// Leave the row. It changes by an event, or when it is asked about again.
    Later,
}

/// The step after a reply, for a WAITLISTED booking. `is_over` says that the time in which it could get a place is
/// over. Only Hospital knows whether it got one at the last moment, so without an answer it does not expire.
#[must_use]
pub fn waiting_step(reply: Reply, is_over: bool) -> WaitingStep {
    match reply {
        Reply::Active => WaitingStep::Confirm,
        Reply::Terminated(Ended::Revoked) => WaitingStep::AwaitRevocation,
        // Only what ended the booking releases its claim. A row that waits all the same was put back from a backup.
        Reply::Waiting | Reply::Refused(_) | Reply::Terminated(Ended::Released) if is_over => WaitingStep::Expire,
        Reply::Waiting | Reply::Refused(_) | Reply::Terminated(Ended::Released) | Reply::Busy(_) | Reply::Unknown => {
            WaitingStep::Later
        }
    }
}

/// Whether a booking that was given up can be written REJECTED once Hospital has acknowledged the release of its claim.
/// If the claim was taken after all and then revoked, the event that reports the revocation decides what becomes of the
/// booking.
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
        assert_eq!(step(Reply::Unknown, Accepts::default()), Step::GiveUp);
        assert_eq!(step(Reply::Unknown, Accepts { pending: true, waitlisted: false }), Step::Park);
        assert_eq!(pending_step(Reply::Unknown, true), PendingStep::Later);
        assert_eq!(pending_step(Reply::Busy(Reason::Overloaded), true), PendingStep::Later);
        assert_eq!(waiting_step(Reply::Unknown, true), WaitingStep::Later);
        assert_eq!(waiting_step(Reply::Busy(Reason::Overloaded), true), WaitingStep::Later);
    }

    #[test]
    fn only_who_wants_to_wait_waits() {
        let joins = Accepts { pending: false, waitlisted: true };
        assert_eq!(step(Reply::Waiting, joins), Step::Queue);
        assert_eq!(step(Reply::Waiting, Accepts { pending: true, waitlisted: false }), Step::Full);
        assert_eq!(pending_step(Reply::Waiting, true), PendingStep::Queue);
        assert_eq!(pending_step(Reply::Waiting, false), PendingStep::GiveUp(Reason::SlotFull));
        assert_eq!(waiting_step(Reply::Waiting, false), WaitingStep::Later);
        assert_eq!(waiting_step(Reply::Waiting, true), WaitingStep::Expire);
        assert_eq!(waiting_step(Reply::Active, true), WaitingStep::Confirm);
    }

    #[test]
    fn a_queue_that_takes_nobody_refuses_like_a_full_slot() {
        for reason in [Reason::WaitlistFull, Reason::WaitlistClosed] {
            let reply = Reply::of_refusal(reason, "");
            assert_eq!(step(reply, Accepts { pending: true, waitlisted: true }), Step::PassOn);
            assert_eq!(pending_step(reply, true), PendingStep::GiveUp(reason));
        }
    }

    #[test]
    fn a_wait_ends_when_it_is_over_or_by_its_event() {
        let lost = [Reply::Refused(Reason::SlotFull), Reply::Terminated(Ended::Released)];
        assert_eq!(lost.map(|reply| waiting_step(reply, true)), [WaitingStep::Expire; 2]);
        assert_eq!(lost.map(|reply| waiting_step(reply, false)), [WaitingStep::Later; 2]);
        for is_over in [true, false] {
            assert_eq!(waiting_step(Reply::Active, is_over), WaitingStep::Confirm);
            let revoked = Reply::Terminated(Ended::Revoked);
            assert_eq!(waiting_step(revoked, is_over), WaitingStep::AwaitRevocation, "its event has the message");
        }
    }

    #[test]
    fn customers_never_see_how_a_claim_ended() {
        for state in ["RELEASED", "REVOKED"] {
            let reply = Reply::of_refusal(Reason::ClaimTerminated, state);
            assert_eq!(step(reply, Accepts { pending: true, waitlisted: true }), Step::NextAttempt);
            assert_ne!(pending_step(reply, true), PendingStep::GiveUp(Reason::ClaimTerminated));
        }
    }

    #[test]
    fn only_a_refusal_of_the_claim_itself_ends_a_pending_booking() {
        let ends = |reason| matches!(pending_step(Reply::of_refusal(reason, ""), true), PendingStep::GiveUp(_));
        for reason in [Reason::SlotFull, Reason::SlotClosed, Reason::HospitalDeleted, Reason::HospitalNotFound] {
            assert!(ends(reason), "{}", reason.name());
        }
        for reason in [Reason::Overloaded, Reason::NotReady, Reason::Internal, Reason::RoleRequired] {
            assert!(!ends(reason), "{}", reason.name());
        }
    }
}
