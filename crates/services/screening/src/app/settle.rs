//! Settles one PENDING or WAITLISTED booking as far as Hospital answers.

use domain::booking::{PendingStep, Reply, WaitingStep, after_release, pending_step, waiting_step};
use domain::event::Cause;
use domain::screening::{Booking, Command, FIRST_GENERATION, Screening, State};
use fault::Fault;
use runtime::deadline::Deadline;
use runtime::trace::TraceContext;
use tokio::time::Instant;

use super::{App, COMMIT_TIMEOUT};
use crate::NAME;
use crate::batch::Settle;
use crate::hospital_client::{Reserved, is_full};

/// The result of settling a booking.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) row: Screening,
    /// Whether Hospital answered. Of a WAITLISTED booking also whether it said what became of the claim.
    pub(crate) reached: bool,
}

impl App {
    /// Asks Hospital about a PENDING booking and writes the result.
    pub(crate) async fn settle(
        &self,
        row: &Screening,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Settled, Fault> {
        if row.given_up.is_some() {
            return self.reject(row, trace, deadline).await;
        }
        let joins = row.joins_waitlist;
        let reserved = self.hospital.reserve(&row.slot, row.claim(), joins, trace, deadline).await;
        let reply = reserved.reply();
        match (pending_step(reply, joins), reserved) {
            (PendingStep::Confirm, Reserved::Active(terms)) => {
                let command = Command::Confirm { booking: booking(row)?, terms, conflict: None };
                let confirmed = self.write(row, command, trace).await?;
                self.reject_if_given_up(confirmed, trace, deadline).await
            }
            (PendingStep::Queue, Reserved::Waiting(terms, queued)) => {
                let command = Command::Queue { booking: booking(row)?, terms, queued, conflict: None };
                let queued = self.write(row, command, trace).await?;
                self.reject_if_given_up(queued, trace, deadline).await
            }
            (PendingStep::GiveUp(reason), _) => {
                if is_full(reason) {
                    self.refusals.count(&row.slot);
                }
                let given_up = self.write(row, Command::GiveUp { reason }, trace).await?;
                self.reject_if_given_up(given_up, trace, deadline).await
            }
            (PendingStep::Later, Reserved::Unknown(_) | Reserved::Late) => {
                Ok(Settled { row: row.clone(), reached: false })
            }
            (PendingStep::Later | PendingStep::AwaitRevocation, _) => Ok(Settled { row: row.clone(), reached: true }),
            (PendingStep::Confirm | PendingStep::Queue, reserved) => Err(misfit(&reserved)),
        }
    }

    /// Asks Hospital what became of the claim of a WAITLISTED booking, and writes the result. If Hospital has lost the
    /// claim, it joins the queue again. The transaction that writes decides whether the customer may have the place.
    pub(super) async fn settle_waiting(
        &self,
        row: &Screening,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Settled, Fault> {
        // read before Hospital is asked, so that no promotion comes after the answer
        let is_over = row.queued.is_none_or(|queued| self.clock.now() >= queued.closes_at);
        let reserved = self.hospital.reserve(&row.slot, row.claim(), true, trace, deadline).await;
        let reply = reserved.reply();
        let command = match (waiting_step(reply, is_over), reserved) {
            (WaitingStep::Confirm, Reserved::Active(terms)) => {
                Some(Command::Confirm { booking: booking(row)?, terms, conflict: None })
            }
            (WaitingStep::Confirm, reserved) => return Err(misfit(&reserved)),
            // until its time is over, the row keeps waiting whatever Hospital says
            (WaitingStep::Expire, _) if is_over => Some(Command::Expire),
            (WaitingStep::Expire | WaitingStep::AwaitRevocation | WaitingStep::Later, _) => None,
        };
        let row = match command {
            Some(command) => self.write(row, command, trace).await?,
            None => row.clone(),
        };
        Ok(Settled { row, reached: !matches!(reply, Reply::Unknown | Reply::Busy(_)) })
    }

    async fn reject_if_given_up(
        &self,
        row: Screening,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Result<Settled, Fault> {
        if row.given_up.is_some() && row.state == State::Pending {
            return self.reject(&row, trace, deadline).await;
        }
        Ok(Settled { row, reached: true })
    }

    /// Releases the claim of a booking that was given up, then rejects the booking.
    async fn reject(&self, row: &Screening, trace: &TraceContext, deadline: Deadline) -> Result<Settled, Fault> {
        match self.hospital.release(&row.slot, row.claim(), trace, deadline).await {
            None => Ok(Settled { row: row.clone(), reached: false }),
            Some(ended) if after_release(ended) => {
                Ok(Settled { row: self.write(row, Command::Reject, trace).await?, reached: true })
            }
            Some(_) => Ok(Settled { row: row.clone(), reached: true }),
        }
    }

    async fn write(&self, row: &Screening, command: Command, trace: &TraceContext) -> Result<Screening, Fault> {
        let cause = Cause::own(NAME, trace.traceparent());
        let settle = Settle { id: row.id, command, cause };
        self.writer.settle(settle, Instant::now() + COMMIT_TIMEOUT).await
    }
}

/// The booking of a row that has no place yet.
fn booking(row: &Screening) -> Result<Booking, Fault> {
    let customer = row.customer.clone().ok_or_else(|| Fault::internal("a booking without a place has no customer"))?;
    if row.generation != FIRST_GENERATION {
        return Err(Fault::internal("a booking without a place asks for another claim than its first"));
    }
    Ok(row.booking(customer))
}

fn misfit(reserved: &Reserved) -> Fault {
    Fault::internal(format!("the protocol does not fit what hospital said: {reserved:?}"))
}
