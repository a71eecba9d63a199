//! The calls of customers, with their outcomes.

use std::sync::atomic::Ordering;

use contract::screening::v1::screening::State;
use contract::screening::v1::{CancelScreeningRequest, CreateScreeningRequest, RescheduleScreeningRequest, Screening};
use testkit::{Booking, Outcome, Party, Tokens};
use tonic::Status;

use crate::observed::Observed;
use crate::pool::{Pool, RetryPolicy};

/// The services that customers call, and their tokens.
#[derive(Debug, Clone)]
pub(crate) struct Desk {
    /// The replicas of Screening.
    pub(crate) screening: Pool,
    /// Signs the customers' tokens.
    pub(crate) tokens: Tokens,
}

impl Desk {
    /// Sends the booking and records its outcome in it.
    pub(crate) async fn book(
        &self,
        observed: &Observed,
        token: &str,
        booking: &mut Booking,
        retry_policy: RetryPolicy,
    ) {
        let request = CreateScreeningRequest {
            screening: Some(Screening {
                customer: format!("customers/{}", booking.customer),
                slot: booking.slot.clone(),
                ..Screening::default()
            }),
            request_id: booking.request_id.clone(),
            join_waitlist: observed.history.is_joining(&booking.request_id),
            ..CreateScreeningRequest::default()
        };
        let ended = self.screening.call(token, retry_policy, |party| book(party, request.clone())).await;
        booking.outcome = match observed.note(ended) {
            Outcome::Done(screening) if screening.state() == State::Confirmed => {
                observed.effects[0].fetch_add(1, Ordering::Relaxed);
                observed.takes(&booking.slot);
                Outcome::Done(screening.name)
            }
            Outcome::Done(screening) if screening.state() == State::Waitlisted => {
                observed.effects[3].fetch_add(1, Ordering::Relaxed);
                Outcome::Done(screening.name)
            }
            // The call was unknown, and the booking was fenced before it was repeated.
            Outcome::Done(screening) => Outcome::Refused(screening.state().as_str_name().to_owned()),
            Outcome::Refused(reason) => Outcome::Refused(reason),
            Outcome::Unknown => Outcome::Unknown,
        };
    }

    /// Makes the move of the booking that has no answer yet, and records the outcome in it.
    pub(crate) async fn reschedule(
        &self,
        observed: &Observed,
        token: &str,
        booking: &mut Booking,
        retry_policy: RetryPolicy,
    ) {
        let from = booking.slots()[0].to_owned();
        let Outcome::Done(name) = &booking.outcome else { return };
        let open = booking.moves.iter_mut().find(|moving| moving.outcome == Outcome::Unknown);
        let Some(moving) = open else { return };
        let request = RescheduleScreeningRequest {
            name: name.clone(),
            slot: moving.slot.clone(),
            request_id: moving.request_id.clone(),
            ..RescheduleScreeningRequest::default()
        };
        let ended = self.screening.call(token, retry_policy, |party| reschedule(party, request.clone())).await;
        moving.outcome = match observed.note(ended) {
            Outcome::Done(screening) => {
                observed.effects[2].fetch_add(1, Ordering::Relaxed);
                observed.takes(&screening.slot);
                Outcome::Done(())
            }
            Outcome::Refused(reason) => {
                // nobody else can have taken the place that the booking kept
                observed.takes(&from);
                Outcome::Refused(reason)
            }
            Outcome::Unknown => Outcome::Unknown,
        };
    }

    /// Cancels the booking, or leaves its queue, if it has a name, and records the outcome in it.
    pub(crate) async fn cancel(
        &self,
        observed: &Observed,
        token: &str,
        booking: &mut Booking,
        retry_policy: RetryPolicy,
    ) {
        let Outcome::Done(name) = &booking.outcome else { return };
        let Some(cancelling) = &mut booking.cancelling else { return };
        let request = CancelScreeningRequest {
            name: name.clone(),
            reason: "changed plans".to_owned(),
            etag: String::new(),
            request_id: cancelling.request_id.clone(),
        };
        let ended = self.screening.call(token, retry_policy, |party| cancel(party, request.clone())).await;
        cancelling.outcome = match observed.note(ended) {
            Outcome::Done(_) => {
                observed.effects[1].fetch_add(1, Ordering::Relaxed);
                Outcome::Done(())
            }
            Outcome::Refused(reason) => Outcome::Refused(reason),
            Outcome::Unknown => Outcome::Unknown,
        };
    }
}

async fn book(party: Party, request: CreateScreeningRequest) -> Result<Screening, Status> {
    party.screening().create_screening(request).await.map(tonic::Response::into_inner)
}

async fn reschedule(party: Party, request: RescheduleScreeningRequest) -> Result<Screening, Status> {
    party.screening().reschedule_screening(request).await.map(tonic::Response::into_inner)
}

async fn cancel(party: Party, request: CancelScreeningRequest) -> Result<Screening, Status> {
    party.screening().cancel_screening(request).await.map(tonic::Response::into_inner)
}
