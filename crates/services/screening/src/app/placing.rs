//! What making and moving a booking have in common: one run per request_id, the time that Hospital has, and the commit
//! with a granted place.

use std::future::Future;
use std::time::Duration;

use domain::request::Request;
use fault::{Fault, Reason};
use runtime::deadline::Deadline;
use runtime::entropy::jittered;
use runtime::tasks::Kind;
use tokio::time::{Instant, timeout_at};

use super::in_flight::{Entered, Outcome, in_progress};
use super::{App, COMMIT_TIMEOUT};
use crate::batch::{Booked, Command};

/// The most ids or claims that one call tries. A call takes another one only when a fence was written for it meanwhile.
pub(super) const MAX_ATTEMPTS: u32 = 32;
/// Time that is left of the caller's deadline for the answer to arrive.
const RESPONSE_RESERVE: Duration = Duration::from_millis(20);
/// The pause before a booking with a granted place is submitted again, when the writer's queue was full.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);

impl App {
    /// Does work that takes a place, in a task of its own: once a place is taken the booking has to be written, even if
    /// the caller gives up. A call that repeats one under way waits for its outcome instead, and begins anew if that is
    /// none for it: the first call's deadline has passed and not its own, or it `asks_more`.
    pub(super) async fn once(
        &self,
        request: &Request,
        deadline: Deadline,
        asks_more: impl Fn(&Fault) -> bool,
        work: impl Future<Output = Outcome> + Send + 'static,
    ) -> Outcome {
        let limit = deadline.earlier_by(RESPONSE_RESERVE);
        loop {
            let waiting = match self.in_flight.enter(request)? {
                Entered::First(lead, waiting) => {
                    self.tasks.spawn(Kind::Job, "booking", async move { lead.finish(work.await) });
                    return waiting.outcome().await;
                }
                Entered::Again(waiting) => waiting,
            };
            let in_time = timeout_at(limit.instant(), waiting.outcome()).await;
            match in_time.unwrap_or_else(|_| Err(in_progress(&request.key))) {
                Err(fault)
                    if (fault.reason() == Reason::DeadlineExceeded || asks_more(&fault)) && !limit.has_passed() => {}
                outcome => return outcome,
            }
        }
    }

    /// The deadline for Hospital. It leaves a tenth of the caller's time, 20 ms to 250 ms, for the commit and the
    /// answer, and is at most `hospital_timeout` away.
    pub(super) fn hospital_deadline(&self, deadline: Deadline) -> Deadline {
        let reserve = (deadline.remaining() / 10).clamp(RESPONSE_RESERVE, Duration::from_millis(250));
        deadline.earlier_by(reserve).min(Deadline::within(self.options.hospital_timeout))
    }

    /// Writes a booking. If a place or a ticket is granted, a full queue of the writer is retried instead of refused,
    /// so that none is lost.
    pub(super) async fn commit(&self, command: impl Fn() -> Command, is_granted: bool) -> Result<Booked, Fault> {
        let limit = Instant::now() + COMMIT_TIMEOUT;
        loop {
            match self.writer.booked(command(), limit).await {
                Err(fault) if fault.reason() == Reason::Overloaded && is_granted && Instant::now() < limit => {
                    tokio::time::sleep(jittered(QUEUE_PAUSE)).await;
                }
                // the writer's deadline has passed, not the caller's
                Err(fault) if fault.reason() == Reason::DeadlineExceeded => {
                    let message = "the booking could not be written in time; send the same request_id again";
                    return Err(Fault::new(Reason::StorageUnavailable, message));
                }
                answered => return answered,
            }
        }
    }
}
