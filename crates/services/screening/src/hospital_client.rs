//! Hospital, as Screening sees it: asking for places, giving them back, and what every answer or silence means.
//!
//! A request is repeated only while nothing came back, always for the same claim, so that a repetition takes no second place.
//! What is asked of one slot goes to one replica of Hospital, whose writer then works on it in one transaction.

mod terms;

use std::time::Duration;

use contract::hospital::v1 as message;
use contract::hospital::v1::capacity_service_client::CapacityServiceClient;
use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use domain::booking::{Ended, Reply};
use domain::capacity::{Offer, Venue};
use domain::civil::{decode_time, time_zone};
use domain::ids::{ClaimId, HospitalId, SlotId};
use domain::screening::Terms;
use fault::{Code, Fault, Reason};
use runtime::backoff::Backoff;
use runtime::client::{Line, Outgoing, Replicas, Silence, is_unreachable};
use runtime::deadline::Deadline;
use runtime::entropy::jittered;
use runtime::identity::TokenSource;
use runtime::status::refusal_of;
use runtime::trace::TraceContext;
use tokio::time::timeout_at;
use tonic::{Response, Status};

use terms::KnownHospitals;

/// Times the same request is sent to every replica while nothing comes back.
const MAX_ROUNDS: u32 = 3;
/// The pause before the second round; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// What came back for a ReserveCapacity.
#[derive(Debug)]
pub(crate) enum Reserved {
    /// The claim is ACTIVE, under these terms.
    Active(Terms),
    /// Hospital said no; what it said.
    Refused(Reply, Fault),
    /// Nothing came back; why, for the log.
    Unknown(String),
    /// The caller's time was over before anything could come back.
    Late,
}

impl Reserved {
    /// What the protocol makes of it.
    pub(crate) fn reply(&self) -> Reply {
        match self {
            Self::Active(_) => Reply::Active,
            Self::Refused(reply, _) => *reply,
            Self::Unknown(_) | Self::Late => Reply::Unknown,
        }
    }
}

/// What GetHospital and GetSlot say about a booking that is only judged.
#[derive(Debug)]
pub(crate) struct Prospect {
    /// The hospital, if there is one.
    pub(crate) venue: Option<Venue>,
    /// The slot, if there is one.
    pub(crate) offer: Option<Offer>,
    /// How the hospital is called; empty where there is none.
    pub(crate) hospital_display_name: String,
}

/// A cheap handle on Hospital.
#[derive(Debug)]
pub(crate) struct HospitalClient {
    replicas: Replicas,
    token: TokenSource,
    attempt: Duration,
    known: KnownHospitals,
}

/// A call that did not lead to an answer of the service.
enum Failure {
    Refused(Fault, Reply),
    /// Hospital is out of reach.
    Silent(String),
    /// The caller's time is over; of Hospital that says nothing.
    Late,
}

impl HospitalClient {
    /// `attempt` is the longest a single request is waited for.
    pub(crate) fn new(replicas: Replicas, token: TokenSource, attempt: Duration) -> Self {
        Self { replicas, token, attempt, known: KnownHospitals::default() }
    }

    /// What is known of a hospital from earlier answers; empty where nothing is.
    pub(crate) fn known_terms(&self, hospital: &HospitalId) -> Terms {
        self.known.get(hospital)
    }

    /// Asks for a place.
    pub(crate) async fn reserve(
        &self,
        slot: &SlotId,
        claim: ClaimId,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Reserved {
        let message = message::ReserveCapacityRequest { slot: slot.to_string(), claim_id: claim.to_string() };
        let answer = self
            .call_with_retries(slot, message, trace, deadline, |line, request| {
                let mut client = CapacityServiceClient::new(line);
                async move { client.reserve_capacity(request).await }
            })
            .await;
        match answer {
            Ok(claim) => match claim.terms.and_then(read_terms) {
                Some(terms) => {
                    self.known.put(&slot.hospital, &terms);
                    Reserved::Active(terms)
                }
                None => Reserved::Unknown("hospital gave a place without its terms".to_owned()),
            },
            Err(Failure::Refused(fault, reply)) => Reserved::Refused(reply, about(fault, slot)),
            Err(Failure::Silent(cause)) => Reserved::Unknown(cause),
            Err(Failure::Late) => Reserved::Late,
        }
    }

    /// Has a claim released, or barred where there is none yet; how it ended, once Hospital has acknowledged it.
    pub(crate) async fn release(
        &self,
        slot: &SlotId,
        claim: ClaimId,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Option<Ended> {
        let message = message::ReleaseCapacityRequest { slot: slot.to_string(), claim_id: claim.to_string() };
        let answer = self
            .call_with_retries(slot, message, trace, deadline, |line, request| {
                let mut client = CapacityServiceClient::new(line);
                async move { client.release_capacity(request).await }
            })
            .await;
        match answer {
            Ok(claim) => match claim.state() {
                message::capacity_claim::State::Released => Some(Ended::Released),
                message::capacity_claim::State::Revoked => Some(Ended::Revoked),
                message::capacity_claim::State::Active | message::capacity_claim::State::Unspecified => None,
            },
            // where there is no such slot there is nothing to bar
            Err(Failure::Refused(fault, _)) if fault.code() == Code::NotFound => Some(Ended::Released),
            Err(Failure::Refused(fault, _)) => {
                tracing::warn!(%claim, ?fault, "hospital refused a release");
                None
            }
            Err(Failure::Silent(_) | Failure::Late) => None,
        }
    }

    /// Reads what a booking of this slot would be judged by.
    pub(crate) async fn prospect(
        &self,
        slot: &SlotId,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Prospect, Fault> {
        let name = slot.hospital.to_string();
        let hospital =
            self.call_with_retries(slot, message::GetHospitalRequest { name }, trace, deadline, |line, request| {
                let mut client = HospitalServiceClient::new(line);
                async move { client.get_hospital(request).await }
            });
        let name = slot.to_string();
        let offered =
            self.call_with_retries(slot, message::GetSlotRequest { name }, trace, deadline, |line, request| {
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

    /// Sends a request until something comes back, a few times at most: first to the replica that the slot belongs to, then
    /// to the others at once, and after a pause to all of them again.
    async fn call_with_retries<M, A, F>(
        &self,
        slot: &SlotId,
        message: M,
        trace: &TraceContext,
        deadline: Deadline,
        call: impl Fn(Line, tonic::Request<M>) -> F,
    ) -> Result<A, Failure>
    where
        M: Clone,
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut route = self.replicas.route(&slot.to_string());
        let mut backoff = Backoff::new(FIRST_PAUSE, Duration::MAX);
        let mut round = 1;
        // what speaks of Hospital, once anything does
        let mut silent = Failure::Late;
        loop {
            if deadline.has_passed() {
                return Err(silent);
            }
            let attempt = route.next_attempt();
            let limit = deadline.min(Deadline::within(self.attempt));
            let request = Outgoing::default().request(message.clone(), &self.token, trace, limit);
            let request = route.about_slot(request);
            // the channel may still be waiting for a connection when the request's own timeout has not begun
            let cause = match timeout_at(limit.instant(), call(attempt.line(), request)).await {
                Ok(Ok(answer)) => {
                    attempt.answered();
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) if !is_unreachable(&status) => {
                    attempt.answered();
                    return Err(refusal(&status));
                }
                Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
                Err(_) => "no answer in time".to_owned(),
            };
            if attempt.silent(deadline) == Silence::Replica {
                silent = Failure::Silent(cause);
            }
            let pause_now = if route.has_untried() { Duration::ZERO } else { jittered(backoff.pause()) };
            let over = round == MAX_ROUNDS && !route.has_untried();
            if over || deadline.remaining() <= pause_now {
                if let Failure::Silent(cause) = &silent {
                    tracing::warn!(round, cause, "hospital is out of reach");
                }
                return Err(silent);
            }
            if !route.has_untried() {
                tokio::time::sleep(pause_now).await;
                round += 1;
            }
        }
    }
}

/// What a status that Hospital itself made means.
fn refusal(status: &Status) -> Failure {
    let Some(refusal) = refusal_of(status) else {
        return Failure::Silent(format!("{:?} without a reason: {}", status.code(), status.message()));
    };
    let state = refusal.metadata.get("state").map(String::as_str).unwrap_or_default();
    match Reply::of_refusal(refusal.reason, state) {
        Reply::Unknown | Reply::Active => {
            tracing::error!(reason = refusal.reason.name(), message = refusal.message, "hospital cannot serve us");
            Failure::Silent(refusal.reason.name().to_owned())
        }
        reply @ (Reply::Refused(_) | Reply::Busy(_) | Reply::Terminated(_)) => {
            Failure::Refused(refusal.into_fault(), reply)
        }
    }
}

/// The answer of a read, or that there is nothing to read.
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

/// Reads the terms of a place; none that cannot be kept to.
fn read_terms(terms: message::BookingTerms) -> Option<Terms> {
    let message::BookingTerms { hospital_display_name, time_zone: zone, cancellation_close_time } = terms;
    time_zone(&zone)?;
    let cancellation_close_time = Some(cancellation_close_time.as_ref().and_then(decode_time)?);
    Some(Terms { hospital_display_name, time_zone: zone, cancellation_close_time })
}

/// Names the thing a refusal of a place is about; statuses say it in words that do not come back.
fn about(refusal: Fault, slot: &SlotId) -> Fault {
    match refusal.reason() {
        Reason::HospitalNotFound | Reason::HospitalDeleted => refusal.about("Hospital", &slot.hospital),
        Reason::SlotNotFound | Reason::SlotClosed | Reason::SlotFull => refusal.about("Slot", slot),
        _ => refusal,
    }
}

/// The refusal of a call whose outcome is not known.
pub(crate) fn unavailable(slot: &SlotId, cause: impl std::fmt::Display) -> Fault {
    let message = "hospital does not answer; send the same request_id again, or set accept_pending";
    Fault::new(Reason::HospitalUnavailable, message).with("slot", slot).caused_by(cause)
}

/// The refusal of a call whose own time ran out while Hospital was asked. Its outcome is not known either.
pub(crate) fn late(slot: &SlotId) -> Fault {
    let message = "the deadline passed before hospital could answer; send the same request_id again, with more time";
    Fault::new(Reason::DeadlineExceeded, message).with("slot", slot)
}
