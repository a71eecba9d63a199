//! Moves a booking: a place on the new slot first, then the row. `domain::screening` decides what the row allows, and
//! `domain::booking` what follows from each answer of Hospital.

use std::sync::Arc;
use std::time::Duration;

use domain::access::{Caller, Scope};
use domain::booking::{Accepts, Step, step};
use domain::capacity::slot_full;
use domain::event::Cause;
use domain::ids::ClaimId;
use domain::screening::{
    self, Conflict, CustomerBookings, Decision, Screening, Terms, apply, decide, judge_reschedule,
};
use fault::{Fault, Reason};
use runtime::deadline::Deadline;
use runtime::entropy::jittered;
use runtime::trace::TraceContext;
use store::{micros, timestamp};
use tokio::time::Instant;

use super::placing::MAX_ATTEMPTS;
use super::{App, COMMIT_TIMEOUT};
use crate::batch::{Booked, Command, Move, Settle};
use crate::decode::Reschedule;
use crate::hospital_client::{Reserved, late, unavailable};
use crate::tables::booking_lookup::BookingQuery;

/// How long another move of the same booking may take to commit before its claim is fenced.
const OTHER_MOVE_PAUSE: Duration = Duration::from_millis(50);

/// A decoded RescheduleScreening call with its context. A task that outlives the call may own it.
#[derive(Debug)]
struct Intent {
    call: Reschedule,
    scope: Scope,
    cause: Cause,
    trace: TraceContext,
    deadline: Deadline,
}

/// What is known of a booking before a place is asked for.
enum Standing {
    /// An earlier call with this request_id moved it.
    Moved(Screening),
    /// It can move, or is on the slot already. Has the bookings that count against the limit of the hospital there, if
    /// it is known to have one.
    Movable(Screening, CustomerBookings),
}

/// The outcome of asking for a place.
enum Place {
    Granted(Terms),
    /// The claim has ended.
    Ended,
    /// The claim is on another slot: another move asked for it.
    Elsewhere,
}

impl App {
    pub(crate) async fn reschedule(
        self: &Arc<Self>,
        caller: &Caller,
        call: Reschedule,
        trace: TraceContext,
        deadline: Deadline,
    ) -> Result<Screening, Fault> {
        if let Caller::Admin { .. } = caller {
            caller.require_admin_of(&call.asked.slot.hospital)?;
        }
        let cause = Cause::of_call(caller, Some(&call.request), trace.traceparent());
        let intent = Intent { scope: caller.scope()?, call, cause, trace, deadline };
        if intent.call.validate_only {
            return self.validate_move(&intent).await;
        }
        let (request, app) = (intent.call.request.clone(), Arc::clone(self));
        self.once(&request, deadline, |_| false, async move { app.carry_out(&intent).await }).await
    }

    async fn carry_out(&self, intent: &Intent) -> Result<Screening, Fault> {
        let mut met = None;
        for _ in 0..MAX_ATTEMPTS {
            let (row, held) = match self.standing(intent).await? {
                Standing::Moved(row) => return Ok(row),
                Standing::Movable(row, held) => (row, held),
            };
            if row.slot == intent.call.asked.slot {
                // the commit judges it again and records the request
                if let Some(row) = self.commit_move(intent, row.claim(), row.terms).await? {
                    return Ok(row);
                }
                continue;
            }
            self.judge_new_limit(intent, &row, &held).await?;
            let claim = row.next_claim();
            match self.place(intent, claim).await? {
                Place::Granted(terms) => {
                    if let Some(row) = self.commit_move(intent, claim, terms).await? {
                        return Ok(row);
                    }
                }
                Place::Elsewhere if met != Some(claim) => {
                    met = Some(claim);
                    tokio::time::sleep(jittered(OTHER_MOVE_PAUSE)).await;
                }
                Place::Elsewhere | Place::Ended => self.fence_claim(intent, claim).await?,
            }
        }
        Err(unavailable(&intent.call.asked.slot, "every claim of this move was fenced"))
    }

    /// Reads the booking and judges whether it can move.
    async fn standing(&self, intent: &Intent) -> Result<Standing, Fault> {
        let Reschedule { id, asked, request, .. } = &intent.call;
        let row = self.get(&intent.scope, *id).await?;
        let customer =
            row.customer.clone().ok_or_else(|| Fault::internal("a booking that is shown has no customer"))?;
        let key = request.chosen.then(|| request.key.clone());
        let hospital = &asked.slot.hospital;
        let is_limited = intent.call.validate_only || self.hospital.known_terms(hospital).customer_limit.is_some();
        let limited = (is_limited && row.slot.hospital != *hospital).then(|| hospital.clone());
        let query = BookingQuery { key, id: *id, customer_date: (customer, asked.slot.date), queue: None, limited };
        let existing = self.booking_lookup.ask(query).await?;
        if let Some((record, moved)) = existing.answered {
            request.continues(&record.fingerprint, moved.as_ref().is_some_and(|moved| moved.id == *id))?;
            let moved = moved.ok_or_else(|| Fault::internal("a request record names no screening"))?;
            return Ok(Standing::Moved(moved));
        }
        let row = existing.own.unwrap_or(row);
        judge_reschedule(&row, asked, existing.other.map(Conflict::Date), self.clock.now())?;
        Ok(Standing::Movable(row, existing.held))
    }

    /// Refuses a move at once that would be refused for the limit of the hospital that it moves to. Its limit that is
    /// known may be an old one, so Hospital is asked for it.
    async fn judge_new_limit(&self, intent: &Intent, row: &Screening, held: &CustomerBookings) -> Result<(), Fault> {
        let slot = &intent.call.asked.slot;
        if held.conflict(row.id, &self.hospital.known_terms(&slot.hospital), self.clock.now()).is_none() {
            return Ok(());
        }
        let deadline = self.hospital_deadline(intent.deadline);
        let Ok(prospect) = self.hospital.prospect(slot, &intent.trace, deadline).await else { return Ok(()) };
        let Ok(terms) = self.judge_place(slot, &prospect) else { return Ok(()) };
        held.conflict(row.id, &terms, self.clock.now()).map_or(Ok(()), |conflict| Err(conflict.refusal(slot)))
    }

    async fn place(&self, intent: &Intent, claim: ClaimId) -> Result<Place, Fault> {
        let slot = &intent.call.asked.slot;
        let deadline = self.hospital_deadline(intent.deadline);
        let reserved = self.hospital.reserve(slot, claim, false, &intent.trace, deadline).await;
        match (step(reserved.reply(), Accepts::default()), reserved) {
            (Step::Commit, Reserved::Active(terms)) => Ok(Place::Granted(terms)),
            (Step::NextAttempt, _) => Ok(Place::Ended),
            (Step::PassOn, Reserved::Refused(_, refusal)) if refusal.reason() == Reason::FieldInvalid => {
                Ok(Place::Elsewhere)
            }
            (Step::PassOn, Reserved::Refused(_, refusal)) => {
                if refusal.reason() == Reason::SlotFull {
                    self.refusals.count(slot);
                }
                Err(refusal)
            }
            // no move asks for a ticket; if its claim has one all the same, the reconciler gives it back
            (Step::Full, _) => Err(slot_full(slot, 0, false)),
            (Step::GiveUp, Reserved::Unknown(cause)) => Err(unavailable(slot, cause)),
            (Step::GiveUp, Reserved::Late) => Err(late(slot)),
            (Step::Commit | Step::Queue | Step::PassOn | Step::GiveUp | Step::Park, reserved) => {
                Err(Fault::internal(format!("the protocol does not fit what hospital said: {reserved:?}")))
            }
        }
    }

    /// Writes the move. `None` if the claim was fenced meanwhile.
    async fn commit_move(&self, intent: &Intent, claim: ClaimId, terms: Terms) -> Result<Option<Screening>, Fault> {
        let Reschedule { id, asked, request, .. } = &intent.call;
        let moving = Move {
            request: request.clone(),
            scope: intent.scope.clone(),
            id: *id,
            asked: asked.clone(),
            generation: claim.generation,
            terms,
            cause: intent.cause.clone(),
        };
        match self.commit(|| Command::Reschedule(moving.clone()), true).await? {
            Booked::Row(row) => Ok(Some(*row)),
            Booked::Refused(refusal) => Err(refusal),
            Booked::Left(refusal) => {
                self.give_back(intent, claim).await;
                Err(refusal)
            }
            Booked::Fenced => {
                self.give_back(intent, claim).await;
                Ok(None)
            }
        }
    }

    /// Has Hospital release a claim that is fenced, so that the next attempt does not find its own place taken. If that
    /// fails, the reconciler does it.
    async fn give_back(&self, intent: &Intent, claim: ClaimId) {
        let deadline = self.hospital_deadline(intent.deadline);
        self.hospital.release(&intent.call.asked.slot, claim, &intent.trace, deadline).await;
    }

    /// Writes that no move can use this claim any more. If it holds a place, its event has the reconciler release it.
    async fn fence_claim(&self, intent: &Intent, claim: ClaimId) -> Result<(), Fault> {
        let command = screening::Command::Fence { claim, slot: intent.call.asked.slot.clone() };
        let settle = Settle { id: claim.screening, command, cause: intent.cause.clone() };
        self.writer.settle(settle, Instant::now() + COMMIT_TIMEOUT).await.map(drop)
    }

    /// Judges a move without asking for a place and without writing anything.
    async fn validate_move(&self, intent: &Intent) -> Result<Screening, Fault> {
        let (row, held) = match self.standing(intent).await? {
            Standing::Moved(row) => return Ok(row),
            Standing::Movable(row, held) => (row, held),
        };
        let asked = &intent.call.asked;
        if row.slot == asked.slot {
            return Ok(row);
        }
        let deadline = self.hospital_deadline(intent.deadline);
        let prospect = self.hospital.prospect(&asked.slot, &intent.trace, deadline).await?;
        let (terms, generation) = (self.judge_place(&asked.slot, &prospect)?, row.next_claim().generation);
        let conflict = held.conflict(row.id, &terms, self.clock.now());
        let command = screening::Command::Reschedule { asked: asked.clone(), generation, terms, conflict };
        let now = timestamp(micros(self.clock.now()));
        match decide(Some(&row), &command, now)? {
            Decision::Change(event) => Ok(apply(Some(&row), &event, now)),
            Decision::Refuse(_, refusal) => Err(refusal),
            Decision::Keep | Decision::Fenced | Decision::Ignore(_) => {
                Err(Fault::internal("a move with the next claim was decided as if it had another"))
            }
        }
    }
}
