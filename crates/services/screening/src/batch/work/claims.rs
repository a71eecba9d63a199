//! What becomes of claims: events of Hospital, claims that no booking holds, and those of bookings that wait.

use domain::event::Cause;
use domain::ids::{ClaimId, ScreeningId, SlotId};
use domain::screening::{self, Decision, FIRST_GENERATION, Screening, State};
use runtime::entropy::uuid_v7;
use store::inbox::Ignored;
use uuid::Uuid;

use super::Work;
use crate::NAME;
use crate::batch::{ClaimEvent, ClaimFact, Unsettled};
use crate::tables::watch::Orphan;

impl Work {
    pub(super) fn apply_claim_event(&mut self, event: &ClaimEvent) {
        match &event.fact {
            ClaimFact::Made { claim, slot } => self.watch_unless_settled(*claim, slot, event),
            ClaimFact::Promoted { claim, slot } => {
                let waiting = self.row(claim.screening).filter(|row| row.state == State::Waitlisted);
                match waiting.filter(|row| row.claim() == *claim).cloned() {
                    Some(row) => self.promote(&row, event),
                    None => self.watch_unless_settled(*claim, slot, event),
                }
            }
            ClaimFact::Revoked { claim, slot, reason, message } => {
                let (claim, slot, cause, message) = (*claim, slot.clone(), reason.clone(), message.clone());
                self.apply_to(claim.screening, &screening::Command::Revoke { claim, slot, cause, message }, event);
            }
            ClaimFact::Other => {}
        }
    }

    /// Books a WAITLISTED booking whose claim got a place, under the terms under which it joined the queue. If the
    /// customer has booked elsewhere on that date meanwhile, it ends.
    fn promote(&mut self, row: &Screening, event: &ClaimEvent) {
        let Some(customer) = row.customer.clone() else { return };
        let booking = row.booking(customer);
        let (terms, conflict) = (row.terms.clone(), self.date_conflict(&booking, false));
        self.apply_to(row.id, &screening::Command::Confirm { booking, terms, conflict }, event);
    }

    fn apply_to(&mut self, id: ScreeningId, command: &screening::Command, event: &ClaimEvent) {
        match (self.rules)(self.row(id), command, self.now) {
            Ok(Decision::Change(change)) => {
                self.transition(id, &change, &event.cause);
            }
            Ok(Decision::Ignore(why)) => self.ignore(event, id, why),
            Ok(Decision::Keep | Decision::Refuse(..) | Decision::Fenced) | Err(_) => {
                self.ignore(event, id, "the event does not apply");
            }
        }
    }

    fn ignore(&mut self, event: &ClaimEvent, id: ScreeningId, why: &'static str) {
        metrics::counter!("checkup_events_ignored_total", "service" => NAME).increment(1);
        self.effects.ignored.push(Ignored {
            event_id: event.event_id,
            aggregate: id.to_string(),
            reason: why.to_owned(),
            time: self.now,
        });
    }

    /// Whether the booking of this claim is written, or will never ask for it.
    fn is_settled(&self, claim: &ClaimId) -> bool {
        let id = claim.screening;
        match self.row(id) {
            Some(row) => claim.generation == FIRST_GENERATION || row.claim() == *claim,
            None => self.booked.contains(&id),
        }
    }

    fn watch_unless_settled(&mut self, claim: ClaimId, slot: &SlotId, event: &ClaimEvent) {
        if !self.is_settled(&claim) {
            self.watch(claim, slot, event.event_id, &event.cause);
        }
    }

    fn watch(&mut self, claim: ClaimId, slot: &SlotId, event_id: Uuid, cause: &Cause) {
        self.effects.unwatched.remove(&claim);
        let (slot, traceparent) = (slot.clone(), cause.traceparent.clone());
        self.effects.watched.push(Orphan { claim, slot, seen: self.now, event_id, traceparent });
    }

    /// Keeps what is known of queues up to date with a row. `was` is its state before.
    pub(super) fn follow_queue(&mut self, row: &Screening, was: Option<State>, cause: &Cause) {
        match (was, row.state) {
            (Some(State::Waitlisted), State::Confirmed) => {
                metrics::counter!("checkup_screenings_promoted_total").increment(1);
            }
            (Some(State::Waitlisted), State::Expired) => {
                let reason = row.state_reason.clone();
                metrics::counter!("checkup_screenings_expired_total", "reason" => reason).increment(1);
            }
            // The event of its promotion may have come while it was PENDING, and did nothing then.
            (Some(State::Pending), State::Waitlisted) => self.watch(row.claim(), &row.slot, uuid_v7(), cause),
            _ => {}
        }
        let Some(customer) = &row.customer else { return };
        if row.state == State::Waitlisted {
            self.others.waiting.insert((customer.clone(), row.slot.clone()), row.id);
        } else if was == Some(State::Waitlisted) {
            self.others.waiting.remove(&(customer.clone(), row.slot.clone()));
        }
    }

    /// Fences a claim that still has no booking: by a row, whose event has the claim released, or in the row of the
    /// booking that did not move. Adds what Hospital is to be asked about to `unsettled`; that stays watched until
    /// then.
    pub(super) fn fence(&mut self, orphan: &Orphan, unsettled: &mut Unsettled) {
        let id = orphan.claim.screening;
        let command = screening::Command::Fence { claim: orphan.claim, slot: orphan.slot.clone() };
        if let Ok(Decision::Change(event)) = (self.rules)(self.row(id), &command, self.now) {
            let cause = Cause::of_event(NAME, orphan.event_id, orphan.traceparent.clone());
            metrics::counter!("checkup_claims_fenced_total").increment(1);
            tracing::info!(claim = %orphan.claim, slot = %orphan.slot, "a place that nobody booked is given back");
            self.transition(id, &event, &cause);
        }
        match self.row(id) {
            Some(row) if row.claim() != orphan.claim => unsettled.left.push(orphan.clone()),
            Some(row) if row.state == State::Waitlisted => unsettled.waiting.push(row.clone()),
            _ => {
                self.effects.unwatched.insert(orphan.claim);
            }
        }
    }
}
