//! Settles one PENDING booking as far as Hospital answers. The resolver and repeated calls use it.

use domain::booking::{PendingStep, after_release, pending_step};
use domain::event::Cause;
use domain::screening::{Booking, Command, FIRST_GENERATION, Screening, State, Terms};
use fault::{Fault, Reason};
use runtime::deadline::Deadline;
use runtime::trace::TraceContext;
use tokio::time::Instant;

use super::{App, COMMIT_TIMEOUT};
use crate::NAME;
use crate::batch::Settle;
use crate::hospital_client::Reserved;

/// The result of settling a PENDING booking.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) row: Screening,
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
        let reserved = self.hospital.reserve(&row.slot, row.claim(), trace, deadline).await;
        let reply = reserved.reply();
        match (pending_step(reply), reserved) {
            (PendingStep::Confirm, Reserved::Active(terms)) => {
                let command = confirm(row, terms)?;
                Ok(Settled { row: self.write(row, command, trace).await?, reached: true })
            }
            (PendingStep::GiveUp(reason), _) => {
                if reason == Reason::SlotFull {
                    self.refusals.count(&row.slot);
                }
                let given_up = self.write(row, Command::GiveUp { reason }, trace).await?;
                if given_up.given_up.is_some() && given_up.state == State::Pending {
                    self.reject(&given_up, trace, deadline).await
                } else {
                    Ok(Settled { row: given_up, reached: true })
                }
            }
            (PendingStep::Later, Reserved::Unknown(_) | Reserved::Late) => {
                Ok(Settled { row: row.clone(), reached: false })
            }
            (PendingStep::Later | PendingStep::AwaitRevocation, _) => Ok(Settled { row: row.clone(), reached: true }),
            (PendingStep::Confirm, reserved) => {
                Err(Fault::internal(format!("the protocol does not fit what hospital said: {reserved:?}")))
            }
        }
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

/// The command that confirms a PENDING booking.
fn confirm(row: &Screening, terms: Terms) -> Result<Command, Fault> {
    let customer = row.customer.clone().ok_or_else(|| Fault::internal("a pending booking has no customer"))?;
    if row.generation != FIRST_GENERATION {
        return Err(Fault::internal("a pending booking asks for another claim than its first"));
    }
    let booking = Booking {
        id: row.id,
        customer,
        customer_display_name: row.customer_display_name.clone(),
        slot: row.slot.clone(),
    };
    Ok(Command::Confirm { booking, terms, conflict: None })
}
