//! `validate_only`: judges a booking without asking for a place and without writing anything.

use domain::booking::{Reply, Step, step};
use domain::capacity::judge_booking;
use domain::ids::SlotId;
use domain::screening::{Booking, Command, Decision, Screening, Terms, apply, decide};
use domain::window::zone_name;
use fault::{Fault, Reason};
use store::{micros, timestamp};

use super::App;
use super::create::{Intent, Occupancy};
use crate::hospital_client::Prospect;

impl App {
    pub(super) async fn validate(&self, intent: &Intent) -> Result<Screening, Fault> {
        let mut attempt = 0;
        let id = loop {
            let id = self.attempt(intent, attempt);
            match self.occupancy(intent, id).await? {
                Occupancy::Free => break id,
                Occupancy::Fenced => attempt += 1,
                Occupancy::Booked(row) => return Ok(*row),
            }
        };
        let slot = &intent.call.slot;
        let (terms, parked) =
            match self.hospital.prospect(slot, &intent.trace, self.hospital_deadline(intent.deadline)).await {
                Ok(prospect) => (self.judge_place(slot, prospect)?, false),
                Err(fault) if matches!(fault.reason(), Reason::HospitalUnavailable | Reason::DeadlineExceeded) => {
                    match step(Reply::Unknown, intent.call.accept_pending) {
                        Step::Park => (self.hospital.known_terms(&slot.hospital), true),
                        Step::GiveUp | Step::Commit | Step::NextAttempt | Step::PassOn => return Err(fault),
                    }
                }
                Err(fault) => return Err(fault),
            };
        let booking = Booking {
            id,
            customer: intent.call.customer.clone(),
            customer_display_name: intent.call.customer_display_name.clone(),
            slot: slot.clone(),
        };
        let command = if parked {
            Command::Park { booking, terms, conflict: None }
        } else {
            Command::Confirm { booking, terms, conflict: None }
        };
        let now = timestamp(micros(self.clock.now()));
        match decide(None, &command, now)? {
            Decision::Change(event) => Ok(apply(None, &event, now)),
            Decision::Refuse(..) | Decision::Keep | Decision::Fenced | Decision::Ignore(_) => {
                Err(Fault::internal("a booking without a row was decided as if it had one"))
            }
        }
    }
    /// Judges a place as Hospital would. Returns the terms that it would give.
    pub(super) fn judge_place(&self, slot: &SlotId, prospect: Prospect) -> Result<Terms, Fault> {
        judge_booking(slot, prospect.venue.as_ref(), prospect.offer, self.clock.now())?;
        let venue = prospect.venue.ok_or_else(|| Fault::internal("a hospital that is not there was accepted"))?;
        Ok(Terms {
            hospital_display_name: prospect.hospital_display_name,
            time_zone: zone_name(&venue.time_zone).to_owned(),
            cancellation_close_time: Some(venue.policy.cancellation_close(slot.date, &venue.time_zone)),
        })
    }
}
