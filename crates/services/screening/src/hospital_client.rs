//! The client of Hospital: asks for places, gives them back, and interprets answers and missing answers.
//!
//! A request is repeated only while it is undecided, and always for the same claim, so that it takes no second place.
//! Requests about one slot go to one replica of Hospital, whose writer can then serve them in one transaction, and
//! those for places that wait together go in one call. A Hospital of the same process is called by its methods.

mod calls;
mod queues;
mod terms;

use std::time::Duration;

use contract::capacity::v1 as message;
use contract::capacity::v1::capacity_service_client::CapacityServiceClient;
use contract::capacity::v1::capacity_service_server::CapacityService;
use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use contract::hospital::v1::{GetHospitalRequest, GetSlotRequest};
use domain::booking::{Ended, Reply};
use domain::capacity::{Offer, Venue};
use domain::civil::{decode_time, time_zone};
use domain::ids::{ClaimId, HospitalId, SlotId};
use domain::screening::{Queued, Terms};
use fault::{Fault, Reason};
use runtime::client::{Replicas, is_unreachable};
use runtime::deadline::{Deadline, FAIR};
use runtime::identity::TokenSource;
use runtime::server::InProcess;
use runtime::tasks::Tasks;
use runtime::trace::TraceContext;
use tonic::Status;

use calls::{Calls, Failure, refusal};
use queues::Queues;
use terms::KnownHospitals;

/// The result of a ReserveCapacity.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// The claim is ACTIVE, under these terms.
    Active(Terms),
    /// The claim waits in the queue of its slot, under these terms.
    Waiting(Terms, Queued),
    /// Hospital refused: what that means for the protocol, and the refusal itself.
    Refused(Reply, Fault),
    /// No answer arrived. The text says why, for the log.
    Unknown(String),
    /// The caller's deadline passed first.
    Late,
}

impl Reserved {
    /// What the result means for the protocol.
    pub(crate) fn reply(&self) -> Reply {
        match self {
            Self::Active(_) => Reply::Active,
            Self::Waiting(..) => Reply::Waiting,
            Self::Refused(reply, _) => *reply,
            Self::Unknown(_) | Self::Late => Reply::Unknown,
        }
    }
}

/// How Hospital is asked for places.
#[derive(Debug)]
enum Places {
    /// By its method in this process.
    Here(InProcess<dyn CapacityService>),
    Remote(Queues),
}

/// What GetHospital and GetSlot answer about a booking that is only judged.
#[derive(Debug)]
pub(crate) struct Prospect {
    /// `None` if the hospital does not exist.
    pub(crate) venue: Option<Venue>,
    /// `None` if the slot does not exist.
    pub(crate) offer: Option<Offer>,
    /// The hospital's name; empty if it does not exist.
    pub(crate) hospital_display_name: String,
}

/// The client of Hospital.
#[derive(Debug)]
pub(crate) struct HospitalClient {
    calls: Calls,
    places: Places,
    known: KnownHospitals,
}

impl HospitalClient {
    /// `here` is ReserveCapacity of a Hospital of this process. `attempt` is how long one request may take before it is
    /// sent again.
    pub(crate) fn new(
        replicas: Replicas,
        here: Option<InProcess<dyn CapacityService>>,
        token: TokenSource,
        attempt: Duration,
        tasks: &Tasks,
    ) -> Self {
        let calls = Calls { replicas, token, attempt };
        let places = match here {
            Some(here) => Places::Here(here),
            None => Places::Remote(Queues::new(calls.clone(), tasks.clone())),
        };
        Self { calls, places, known: KnownHospitals::default() }
    }

    /// The hospital's name and time zone from an earlier answer; empty if there was none.
    pub(crate) fn known_terms(&self, hospital: &HospitalId) -> Terms {
        self.known.get(hospital)
    }

    /// Asks for a place, or for a ticket of the slot's queue if `allow_waitlist` is set and no place is left. If
    /// Hospital has the claim already, the answer is what it is now.
    pub(crate) async fn reserve(
        &self,
        slot: &SlotId,
        claim: ClaimId,
        allow_waitlist: bool,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Reserved {
        let answer = match &self.places {
            Places::Here(places) => {
                let message = request(slot, claim, allow_waitlist);
                let hurried = is_hurried(deadline);
                let asked = places.call(message, trace, deadline, |places, request| places.reserve_capacity(request));
                asked.await.map_err(|status| no_answer_here(&status, hurried && deadline.has_passed()))
            }
            Places::Remote(queues) => queues.reserve(slot, (claim, allow_waitlist), trace, deadline).await,
        };
        match answer {
            Ok(claim) => {
                let reserved = read_claim(claim);
                if let Reserved::Active(terms) | Reserved::Waiting(terms, _) = &reserved {
                    self.known.put(&slot.hospital, terms);
                }
                reserved
            }
            Err(Failure::Refused(fault, reply)) => Reserved::Refused(reply, about(fault, slot)),
            Err(Failure::Silent(cause)) => Reserved::Unknown(cause),
            Err(Failure::Late) => Reserved::Late,
        }
    }

    /// Releases a claim, or writes a tombstone if Hospital has no such claim. Returns how the claim ended; `None` if
    /// Hospital did not acknowledge it.
    pub(crate) async fn release(
        &self,
        slot: &SlotId,
        claim: ClaimId,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Option<Ended> {
        let asked = || message::ReleaseCapacityRequest { slot: slot.to_string(), claim_id: claim.to_string() };
        let answer = self
            .calls
            .with_retries(slot, asked, trace, deadline, |line, request| {
                let mut client = CapacityServiceClient::new(line);
                async move { client.release_capacity(request).await }
            })
            .await;
        match answer {
            Ok(claim) => match claim.state() {
                message::capacity_claim::State::Released => Some(Ended::Released),
                message::capacity_claim::State::Revoked => Some(Ended::Revoked),
                message::capacity_claim::State::Active
                | message::capacity_claim::State::Waiting
                | message::capacity_claim::State::Unspecified => None,
            },
            Err(Failure::Refused(fault, _)) => {
                tracing::warn!(%claim, ?fault, "hospital refused a release");
                None
            }
            Err(Failure::Silent(_) | Failure::Late) => None,
        }
    }

    /// Reads the hospital and the slot that decide about a booking.
    pub(crate) async fn prospect(
        &self,
        slot: &SlotId,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Prospect, Fault> {
        let asked = || GetHospitalRequest { name: slot.hospital.to_string() };
        let hospital = self.calls.with_retries(slot, asked, trace, deadline, |line, request| {
            let mut client = HospitalServiceClient::new(line);
            async move { client.get_hospital(request).await }
        });
        let asked = || GetSlotRequest { name: slot.to_string() };
        let offered = self.calls.with_retries(slot, asked, trace, deadline, |line, request| {
            let mut client = HospitalServiceClient::new(line);
            async move { client.get_slot(request).await }
        });
        let (hospital, offered) = tokio::join!(hospital, offered);
        let hospital = found(slot, hospital, Reason::HospitalNotFound)?;
        let offered = found(slot, offered, Reason::SlotNotFound)?;
        let venue = match &hospital {
            None => None,
            Some(hospital) => {
                let venue = Venue::from_message(hospital);
                Some(venue.ok_or_else(|| unavailable(slot, "hospital answered with a policy that is not one"))?)
            }
        };
        let hospital_display_name = hospital.map(|hospital| hospital.display_name).unwrap_or_default();
        Ok(Prospect { venue, offer: offered.as_ref().map(Offer::from), hospital_display_name })
    }
}

/// Interprets the status of a Hospital of this process. It is not asked again, because no answer was lost on the way.
/// `is_late` says that the caller gave it no fair time.
fn no_answer_here(status: &Status, is_late: bool) -> Failure {
    if !is_unreachable(status) {
        return refusal(status);
    }
    if is_late {
        return Failure::Late;
    }
    Failure::Silent(format!("{:?}: {}", status.code(), status.message()))
}

/// The answer of a read, or `None` if the resource does not exist.
fn found<A>(slot: &SlotId, answer: Result<A, Failure>, missing: Reason) -> Result<Option<A>, Fault> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(Failure::Refused(fault, _)) if fault.reason() == missing || fault.reason() == Reason::HospitalNotFound => {
            Ok(None)
        }
        Err(Failure::Refused(fault, _)) => Err(fault),
        Err(Failure::Silent(cause)) => Err(unavailable(slot, cause)),
        Err(Failure::Late) => Err(late(slot)),
    }
}

/// Whether a refusal says that every place of the slot is taken, with a queue for it or without.
pub(crate) fn is_full(reason: Reason) -> bool {
    matches!(reason, Reason::SlotFull | Reason::WaitlistFull | Reason::WaitlistClosed)
}

/// Whether a caller leaves too little time to tell by a missing answer that Hospital is out of reach.
fn is_hurried(deadline: Deadline) -> bool {
    deadline.remaining() < FAIR
}

fn request(slot: &SlotId, claim: ClaimId, allow_waitlist: bool) -> message::ReserveCapacityRequest {
    message::ReserveCapacityRequest { slot: slot.to_string(), claim_id: claim.to_string(), allow_waitlist }
}

/// What a claim that Hospital answered with has. One in a state of a later version has nothing that this version knows.
fn read_claim(claim: message::CapacityClaim) -> Reserved {
    let state = claim.state();
    let Some(terms) = claim.terms.and_then(read_terms) else {
        return Reserved::Unknown("hospital answered a claim without its terms".to_owned());
    };
    match (state, claim.promotion_close_time.as_ref().and_then(decode_time)) {
        (message::capacity_claim::State::Active, _) => Reserved::Active(terms),
        (message::capacity_claim::State::Waiting, Some(closes_at)) => {
            Reserved::Waiting(terms, Queued { position: claim.waitlist_position, closes_at })
        }
        (
            message::capacity_claim::State::Waiting
            | message::capacity_claim::State::Released
            | message::capacity_claim::State::Revoked
            | message::capacity_claim::State::Unspecified,
            _,
        ) => Reserved::Unknown(format!("hospital answered a claim in state {}", claim.state)),
    }
}

/// Decodes booking terms. `None` if their time zone or their time is invalid.
fn read_terms(terms: message::BookingTerms) -> Option<Terms> {
    let message::BookingTerms {
        hospital_display_name,
        time_zone: zone,
        cancellation_close_time,
        reschedule_limit,
        customer_limit,
    } = terms;
    time_zone(&zone)?;
    let cancellation_close_time = Some(cancellation_close_time.as_ref().and_then(decode_time)?);
    Some(Terms { hospital_display_name, time_zone: zone, cancellation_close_time, reschedule_limit, customer_limit })
}

/// Adds the resource that a refusal is about, because the refusal's own text is not passed on.
fn about(refusal: Fault, slot: &SlotId) -> Fault {
    match refusal.reason() {
        Reason::HospitalNotFound | Reason::HospitalDeleted => refusal.about("Hospital", &slot.hospital),
        Reason::SlotNotFound | Reason::SlotClosed | Reason::SlotFull => refusal.about("Slot", slot),
        _ => refusal,
    }
}

/// The answer to a call whose outcome is unknown because Hospital does not answer.
pub(crate) fn unavailable(slot: &SlotId, cause: impl std::fmt::Display) -> Fault {
    let message = "hospital does not answer; send the same request_id again; a new booking may set accept_pending";
    Fault::new(Reason::HospitalUnavailable, message).with("slot", slot).caused_by(cause)
}

/// The answer to a call whose deadline passed while Hospital was asked. Its outcome is unknown too.
pub(crate) fn late(slot: &SlotId) -> Fault {
    let message = "the deadline passed before hospital could answer; send the same request_id again, with more time";
    Fault::new(Reason::DeadlineExceeded, message).with("slot", slot)
}

#[cfg(test)]
mod tests {
    use message::capacity_claim::State;

    use super::*;

    fn claim(state: i32) -> message::CapacityClaim {
        let midnight = Some(prost_types::Timestamp { seconds: 1_800_000_000, nanos: 0 });
        let terms = message::BookingTerms {
            hospital_display_name: "Seoul".into(),
            time_zone: "Asia/Seoul".into(),
            cancellation_close_time: midnight,
            ..message::BookingTerms::default()
        };
        message::CapacityClaim {
            state,
            terms: Some(terms),
            waitlist_position: 4,
            promotion_close_time: midnight,
            ..message::CapacityClaim::default()
        }
    }

    #[test]
    fn only_an_active_claim_is_a_place() {
        assert!(matches!(read_claim(claim(State::Active.into())), Reserved::Active(_)));
        let waiting = read_claim(claim(State::Waiting.into()));
        assert!(matches!(waiting, Reserved::Waiting(_, Queued { position: 4, .. })), "{waiting:?}");
        for other in [State::Unspecified.into(), State::Released.into(), State::Revoked.into(), 77] {
            assert_eq!(read_claim(claim(other)).reply(), Reply::Unknown, "{other}");
        }
        // one that waits for ever, and one whose terms nobody knows
        let endless = message::CapacityClaim { promotion_close_time: None, ..claim(State::Waiting.into()) };
        assert_eq!(read_claim(endless).reply(), Reply::Unknown);
        let bare = message::CapacityClaim { terms: None, ..claim(State::Active.into()) };
        assert_eq!(read_claim(bare).reply(), Reply::Unknown);
    }
}
