//! Sends the requests for places of one slot together.
//!
//! A slot has at most [`MAX_CALLS`] calls under way. A request that comes meanwhile waits until one of them has ended,
//! and goes with all others that wait then. So a request waits for nobody where there is room, and a busy slot needs
//! few calls, each of which is one transaction of Hospital.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::capacity::v1::capacity_reservation_result::Result as Outcome;
use contract::capacity::v1::capacity_service_client::CapacityServiceClient;
use contract::capacity::v1::{
    BatchReserveCapacityRequest, BatchReserveCapacityResponse, CapacityClaim, CapacityReservation,
    CapacityReservationResult,
};
use domain::capacity::MAX_RESERVATIONS;
use domain::ids::{ClaimId, SlotId};
use runtime::client::is_unreachable;
use runtime::deadline::{Deadline, FAIR};
use runtime::status::{extract, reason_of};
use runtime::tasks::{Kind, Tasks};
use runtime::trace::TraceContext;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};
use tonic::{Code, Response, Status};

use super::calls::{Calls, Failure, refusal};
use super::request;

/// Calls of one slot that may be under way: while Hospital commits one, the next is already there.
const MAX_CALLS: usize = 2;

/// What a request for a place gets.
type Answer = Result<CapacityClaim, Failure>;

/// A request that waits for its call.
#[derive(Debug)]
struct Waiting {
    claim: ClaimId,
    trace: TraceContext,
    deadline: Deadline,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    calls: usize,
}

/// The requests for places, by slot. Clones are cheap.
#[derive(Debug, Clone)]
pub(super) struct Queues {
    calls: Calls,
    tasks: Tasks,
    slots: Arc<Mutex<HashMap<SlotId, Queue>>>,
}

/// One of a slot's calls, until it is dropped.
struct Turn<'a> {
    queues: &'a Queues,
    slot: &'a SlotId,
    is_over: bool,
}

impl Queues {
    pub(super) fn new(calls: Calls, tasks: Tasks) -> Self {
        Self { calls, tasks, slots: Arc::default() }
    }

    /// Asks for a place. The request stays with its call if the wait is dropped.
    pub(super) async fn reserve(
        &self,
        slot: &SlotId,
        claim: ClaimId,
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Answer {
        let begun = Instant::now();
        let (answer, answered) = oneshot::channel();
        if self.add(slot, Waiting { claim, trace: *trace, deadline, answer }) {
            let (queues, slot) = (self.clone(), slot.clone());
            self.tasks.spawn(Kind::Job, "reservations", async move { queues.send_all(&slot).await });
        }
        match timeout_at(deadline.instant(), answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(Failure::Silent("the call was given up".to_owned())),
            Err(_) if begun.elapsed() < FAIR => Err(Failure::Late),
            Err(_) => Err(Failure::Silent("no answer in time".to_owned())),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<SlotId, Queue>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request. Returns whether a call has to begin.
    fn add(&self, slot: &SlotId, waiting: Waiting) -> bool {
        let mut slots = self.slots();
        let queue = slots.entry(slot.clone()).or_default();
        queue.waiting.push(waiting);
        let begins = queue.calls < MAX_CALLS;
        queue.calls += usize::from(begins);
        begins
    }

    /// Sends what waits for places of this slot, until nothing waits any more.
    async fn send_all(&self, slot: &SlotId) {
        let mut turn = Turn { queues: self, slot, is_over: false };
        while let Some(mut waiting) = turn.next() {
            // Whoever stopped waiting is not to get a place.
            waiting.retain(|one| !one.answer.is_closed() && !one.deadline.has_passed());
            if waiting.len() > 1 {
                self.send_together(slot, waiting).await;
            } else if let Some(one) = waiting.pop() {
                self.send_alone(slot, one).await;
            }
        }
    }

    async fn send_alone(&self, slot: &SlotId, waiting: Waiting) {
        let Waiting { claim, trace, deadline, answer } = waiting;
        let message = || request(slot, claim);
        let asked = self.calls.with_retries(slot, message, &trace, deadline, |line, request| {
            let mut client = CapacityServiceClient::new(line);
            async move { client.reserve_capacity(request).await }
        });
        let _ = answer.send(asked.await);
    }

    async fn send_together(&self, slot: &SlotId, waiting: Vec<Waiting>) {
        let Some(deadline) = waiting.iter().map(|one| one.deadline).max() else { return };
        let message =
            || BatchReserveCapacityRequest { reservations: waiting.iter().map(|one| reservation(slot, one)).collect() };
        let asked = self.calls.with_retries(slot, message, &waiting[0].trace, deadline, |line, request| {
            let mut client = CapacityServiceClient::new(line);
            async move { known(client.batch_reserve_capacity(request).await) }
        });
        let results = match asked.await {
            Ok(Some(response)) => response.results,
            Ok(None) => Vec::new(),
            Err(failure) => {
                waiting.into_iter().for_each(|one| drop(one.answer.send(Err(failure.clone()))));
                return;
            }
        };
        let mut results = results.into_iter();
        for one in waiting {
            match results.next().and_then(decided) {
                Some(answer) => drop(one.answer.send(answer)),
                None => {
                    // It is undecided, so it is asked for like one whose answer was lost. Others do not wait for it.
                    let (queues, slot) = (self.clone(), slot.clone());
                    self.tasks.spawn(Kind::Job, "reservation", async move { queues.send_alone(&slot, one).await });
                }
            }
        }
    }
}

impl Turn<'_> {
    /// What the next call sends. `None` once nothing waits, which ends the turn.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut slots = self.queues.slots();
        let queue = slots.get_mut(self.slot)?;
        if queue.waiting.is_empty() {
            self.is_over = true;
            leave(&mut slots, self.slot);
            return None;
        }
        let most = queue.waiting.len().min(MAX_RESERVATIONS);
        Some(queue.waiting.drain(..most).collect())
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            leave(&mut self.queues.slots(), self.slot);
        }
    }
}

/// One call of a slot less. The requests of a call that panicked are gone with it; others that wait go with the next.
fn leave(slots: &mut HashMap<SlotId, Queue>, slot: &SlotId) {
    if let Some(queue) = slots.get_mut(slot) {
        queue.calls -= 1;
        if queue.calls == 0 && queue.waiting.is_empty() {
            slots.remove(slot);
        }
    }
}

fn reservation(slot: &SlotId, waiting: &Waiting) -> CapacityReservation {
    CapacityReservation {
        request: Some(request(slot, waiting.claim)),
        timeout: waiting.deadline.remaining().try_into().ok(),
        traceparent: waiting.trace.child().traceparent(),
    }
}

/// `None` from a Hospital of a version before, which has no such method, or from a proxy that does not allow it yet.
fn known(
    answer: Result<Response<BatchReserveCapacityResponse>, Status>,
) -> Result<Response<Option<BatchReserveCapacityResponse>>, Status> {
    match answer {
        Ok(answer) => Ok(answer.map(Some)),
        Err(status)
            if matches!(status.code(), Code::Unimplemented | Code::PermissionDenied)
                && reason_of(&status).is_none() =>
        {
            Ok(Response::new(None))
        }
        Err(status) => Err(status),
    }
}

/// What Hospital decided about one request of several. `None` if it decided nothing.
fn decided(result: CapacityReservationResult) -> Option<Answer> {
    match result.result? {
        Outcome::Claim(claim) => Some(Ok(claim)),
        Outcome::Error(status) => {
            let status = extract(&status);
            (!is_unreachable(&status)).then(|| Err(refusal(&status)))
        }
    }
}

#[cfg(test)]
mod tests;
