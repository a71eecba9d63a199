//! Makes a booking, step by step in the order of the protocol. `domain::booking` decides what follows from each answer.

use std::sync::Arc;

use domain::access::Caller;
use domain::booking::{Accepts, Step, attempt_id, step};
use domain::capacity::slot_full;
use domain::event::Cause;
use domain::ids::ScreeningId;
use domain::screening::{Booking, Conflict, CustomerBookings, Screening, State, Terms};
use fault::{Fault, Reason};
use runtime::deadline::Deadline;
use runtime::entropy::uuid_v7;
use runtime::trace::TraceContext;

use super::App;
use super::placing::MAX_ATTEMPTS;
use crate::batch::{Book, Booked, Command, Holds};
use crate::decode::Create;
use crate::hospital_client::{Reserved, is_full, late, unavailable};
use crate::tables::booking_lookup::BookingQuery;

/// A decoded CreateScreening call with its context. A task that outlives the call may own it.
#[derive(Debug, Clone)]
pub(super) struct Intent {
    pub(super) call: Create,
    pub(super) cause: Cause,
    pub(super) trace: TraceContext,
    pub(super) deadline: Deadline,
}

impl Intent {
    /// What the caller accepts instead of a place.
    pub(super) fn accepts(&self) -> Accepts {
        Accepts { pending: self.call.accept_pending, waitlisted: self.call.join_waitlist }
    }

    /// The booking that is asked for, under this id.
    pub(super) fn booking(&self, id: ScreeningId) -> Booking {
        let Create { customer, customer_display_name, slot, join_waitlist, .. } = self.call.clone();
        Booking { id, customer, customer_display_name, slot, joins_waitlist: join_waitlist }
    }
}

/// What occupies the id that a booking is to get.
#[derive(Debug)]
pub(super) enum Occupancy {
    /// Nothing: the id is free. Has the bookings that count against the limit of the hospital, if it is known to have
    /// one.
    Free(CustomerBookings),
    /// A fence: the id cannot be used any more.
    Fenced,
    /// The booking itself, as it is now. It answers the call even after a week, when the request record is deleted.
    Booked(Box<Screening>),
}

impl App {
    pub(crate) async fn create(
        self: &Arc<Self>,
        caller: &Caller,
        call: Create,
        trace: TraceContext,
        deadline: Deadline,
    ) -> Result<Screening, Fault> {
        caller.require_act_for(&call.customer, &call.slot.hospital)?;
        let cause = Cause::of_call(caller, Some(&call.request), trace.traceparent());
        let intent = Intent { cause, call, trace, deadline };
        if intent.call.validate_only {
            return self.validate(&intent).await;
        }
        // the first call did not accept a PENDING or WAITLISTED booking, this one does
        let accepts = intent.accepts();
        let asks_more = move |fault: &Fault| match fault.reason() {
            Reason::HospitalUnavailable => accepts.pending,
            Reason::SlotFull => accepts.waitlisted,
            _ => false,
        };
        let (request, app) = (intent.call.request.clone(), Arc::clone(self));
        self.once(&request, deadline, asks_more, async move { app.book(&intent).await }).await
    }

    async fn book(&self, intent: &Intent) -> Result<Screening, Fault> {
        for attempt in 0..MAX_ATTEMPTS {
            let id = self.attempt(intent, attempt);
            match self.occupancy(intent, id).await? {
                Occupancy::Fenced => {}
                Occupancy::Booked(row) => return self.settled(*row, intent).await,
                Occupancy::Free(held) => {
                    self.judge_limit(intent, id, &held).await?;
                    if let Some(screening) = self.try_book(intent, id).await? {
                        return Ok(screening);
                    }
                }
            }
        }
        Err(unavailable(&intent.call.slot, "every id of this request was fenced"))
    }

    /// The id under which attempt `attempt` asks for its claim.
    pub(super) fn attempt(&self, intent: &Intent, attempt: u32) -> ScreeningId {
        let Create { request, customer, slot, .. } = &intent.call;
        if request.chosen { attempt_id(&request.key, customer, slot, attempt) } else { ScreeningId(uuid_v7()) }
    }

    /// Answers a repeated call. A PENDING booking is settled first, if Hospital answers.
    async fn settled(&self, row: Screening, intent: &Intent) -> Result<Screening, Fault> {
        match row.state {
            State::Pending => {
                // who repeats the call may accept by now to wait
                let row = Screening { joins_waitlist: row.joins_waitlist || intent.call.join_waitlist, ..row };
                Ok(self.settle(&row, &intent.trace, self.hospital_deadline(intent.deadline)).await?.row)
            }
            State::Confirmed
            | State::Cancelled
            | State::ForceCancelled
            | State::Rejected
            | State::Completed
            | State::NoShow
            | State::Waitlisted
            | State::Expired => Ok(row),
        }
    }

    /// Finds out whether the id is free, and whether an earlier call with this request_id made the booking already.
    ///
    /// # Errors
    /// REQUEST_ID_REUSED; CUSTOMER_DATE_CONFLICT, also if the customer waits in the queue that the booking would join.
    pub(super) async fn occupancy(&self, intent: &Intent, id: ScreeningId) -> Result<Occupancy, Fault> {
        let Create { request, customer, slot, validate_only, .. } = &intent.call;
        let key = request.chosen.then(|| request.key.clone());
        let queue = intent.call.join_waitlist.then(|| slot.clone());
        let is_limited = *validate_only || self.hospital.known_terms(&slot.hospital).customer_limit.is_some();
        let limited = is_limited.then(|| slot.hospital.clone());
        let query = BookingQuery { key, id, customer_date: (customer.clone(), slot.date), queue, limited };
        let existing = self.booking_lookup.ask(query).await?;
        if let Some((record, row)) = existing.answered {
            let same = |row: &Screening| row.was_made_for(customer, slot);
            request.continues(&record.fingerprint, row.as_ref().is_some_and(same))?;
            let row = row.ok_or_else(|| Fault::internal("a request record names no screening"))?;
            return Ok(Occupancy::Booked(Box::new(row)));
        }
        match (existing.own, existing.other) {
            (Some(row), _) if row.is_fence() => Ok(Occupancy::Fenced),
            (Some(row), _) => Ok(Occupancy::Booked(Box::new(row))),
            (None, Some(other)) => Err(Conflict::Date(other).refusal(slot)),
            (None, None) => Ok(Occupancy::Free(existing.held)),
        }
    }

    /// Asks for a place under one id and writes the booking. `None` if the id was fenced.
    async fn try_book(&self, intent: &Intent, id: ScreeningId) -> Result<Option<Screening>, Fault> {
        let booking = intent.booking(id);
        let (slot, claim, accepts) = (&booking.slot, booking.claim(), intent.accepts());
        let deadline = self.hospital_deadline(intent.deadline);
        let reserved = self.hospital.reserve(slot, claim, accepts.waitlisted, &intent.trace, deadline).await;
        match (step(reserved.reply(), accepts), reserved) {
            (Step::Commit, Reserved::Active(terms)) => self.write_booking(intent, booking, terms, Holds::Place).await,
            (Step::Queue, Reserved::Waiting(terms, queued)) => {
                self.write_booking(intent, booking, terms, Holds::Ticket(queued)).await
            }
            (Step::Park, _) => {
                let terms = self.hospital.known_terms(&slot.hospital);
                let parked = self.write_booking(intent, booking, terms, Holds::Nothing).await;
                self.parked.notify_one();
                parked
            }
            (Step::Full, _) => {
                self.refusals.count(slot);
                Err(slot_full(slot, 0, true))
            }
            (Step::PassOn, Reserved::Refused(_, refusal)) => {
                if is_full(refusal.reason()) {
                    self.refusals.count(slot);
                }
                Err(refusal)
            }
            (Step::NextAttempt, _) => Ok(None),
            (Step::GiveUp, Reserved::Unknown(cause)) => Err(unavailable(slot, cause)),
            (Step::GiveUp, Reserved::Late) => Err(late(slot)),
            (Step::Commit | Step::Queue | Step::PassOn | Step::GiveUp, reserved) => {
                Err(Fault::internal(format!("the protocol does not fit what hospital said: {reserved:?}")))
            }
        }
    }

    /// Writes the booking. `None` if its id was fenced.
    async fn write_booking(
        &self,
        intent: &Intent,
        booking: Booking,
        terms: Terms,
        holds: Holds,
    ) -> Result<Option<Screening>, Fault> {
        let request = Some(&intent.call.request).filter(|request| request.chosen).cloned();
        let book = Book { request, cause: intent.cause.clone(), booking, terms, holds };
        match self.commit(|| Command::Book(book.clone()), holds != Holds::Nothing).await? {
            Booked::Row(row) => Ok(Some(*row)),
            Booked::Refused(refusal) | Booked::Left(refusal) => Err(refusal),
            Booked::Fenced => Ok(None),
        }
    }
}
