//! `validate_only`: judges a booking without asking for a place and without writing anything.

use domain::booking::{Reply, Step, step};
use domain::capacity::{judge_booking, judge_joining};
use domain::ids::{ScreeningId, SlotId};
use domain::screening::{Command, CustomerBookings, Decision, Queued, Screening, Terms, apply, decide};
use domain::window::zone_name;
use fault::{Fault, Reason};
use store::{micros, timestamp};

use super::App;
use super::create::{Intent, Occupancy};
use crate::hospital_client::Prospect;

impl App {
    pub(super) async fn validate(&self, intent: &Intent) -> Result<Screening, Fault> {
        let mut attempt = 0;
        let (id, held) = loop {
            let id = self.attempt(intent, attempt);
            match self.occupancy(intent, id).await? {
                Occupancy::Free(held) => break (id, held),
                Occupancy::Fenced => attempt += 1,
                Occupancy::Booked(row) => return Ok(*row),
            }
        };
        let command = self.judged(intent, id, &held).await?;
        let now = timestamp(micros(self.clock.now()));
        match decide(None, &command, now)? {
            Decision::Change(event) => Ok(apply(None, &event, now)),
            Decision::Refuse(_, refusal) => Err(refusal),
            Decision::Keep | Decision::Fenced | Decision::Ignore(_) => {
                Err(Fault::internal("a booking without a row was decided as if it had one"))
            }
        }
    }

    /// Refuses a booking at once that Hospital's answer would have refused for the limit of the hospital: a place that
    /// is given back at once is missing meanwhile. The limit that is known may be an old one, so Hospital is asked for
    /// it. A refusal for another reason is left to whoever asks for the place.
    pub(super) async fn judge_limit(
        &self,
        intent: &Intent,
        id: ScreeningId,
        held: &CustomerBookings,
    ) -> Result<(), Fault> {
        let known = self.hospital.known_terms(&intent.call.slot.hospital);
        if held.conflict(id, &known, self.clock.now()).is_none() {
            return Ok(());
        }
        match self.judged(intent, id, held).await {
            Ok(Command::Confirm { booking, conflict, .. } | Command::Queue { booking, conflict, .. }) => {
                conflict.map_or(Ok(()), |conflict| Err(conflict.refusal(&booking.slot)))
            }
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// What would be written if Hospital were asked for a place now.
    async fn judged(&self, intent: &Intent, id: ScreeningId, held: &CustomerBookings) -> Result<Command, Fault> {
        let (slot, booking) = (&intent.call.slot, intent.booking(id));
        let prospect = self.hospital.prospect(slot, &intent.trace, self.hospital_deadline(intent.deadline)).await;
        let conflict = |terms: &Terms| held.conflict(id, terms, self.clock.now());
        match prospect {
            Ok(prospect) => match (self.judge_place(slot, &prospect), intent.call.join_waitlist) {
                (Err(full), true) if full.reason() == Reason::SlotFull => {
                    let (terms, queued) = self.judge_ticket(slot, &prospect)?;
                    let conflict = conflict(&terms);
                    Ok(Command::Queue { booking, terms, queued, conflict })
                }
                (judged, _) => {
                    let terms = judged?;
                    let conflict = conflict(&terms);
                    Ok(Command::Confirm { booking, terms, conflict })
                }
            },
            Err(fault) if matches!(fault.reason(), Reason::HospitalUnavailable | Reason::DeadlineExceeded) => {
                if step(Reply::Unknown, intent.accepts()) != Step::Park {
                    return Err(fault);
                }
                Ok(Command::Park { booking, terms: self.hospital.known_terms(&slot.hospital), conflict: None })
            }
            Err(fault) => Err(fault),
        }
    }

    /// Judges a place as Hospital would. Returns the terms that it would give.
    pub(super) fn judge_place(&self, slot: &SlotId, prospect: &Prospect) -> Result<Terms, Fault> {
        judge_booking(slot, prospect.venue.as_ref(), prospect.offer, self.clock.now())?;
        terms(slot, prospect)
    }

    /// Judges a ticket of a full slot as Hospital would. Returns the terms and the position that it would give.
    fn judge_ticket(&self, slot: &SlotId, prospect: &Prospect) -> Result<(Terms, Queued), Fault> {
        let (Some(venue), Some(offer)) = (&prospect.venue, prospect.offer) else {
            return Err(Fault::internal("a slot that is not there is full"));
        };
        let closes_at = judge_joining(slot, venue, offer, self.clock.now())?;
        Ok((terms(slot, prospect)?, Queued { position: offer.waiting + 1, closes_at }))
    }
}

fn terms(slot: &SlotId, prospect: &Prospect) -> Result<Terms, Fault> {
    let venue = prospect.venue.as_ref();
    let venue = venue.ok_or_else(|| Fault::internal("a hospital that is not there was accepted"))?;
    Ok(Terms {
        hospital_display_name: prospect.hospital_display_name.clone(),
        time_zone: zone_name(&venue.time_zone).to_owned(),
        cancellation_close_time: Some(venue.policy.cancellation_close(slot.date, &venue.time_zone)),
        reschedule_limit: Some(venue.policy.reschedule_limit),
        customer_limit: venue.policy.customer_limit,
    })
}
