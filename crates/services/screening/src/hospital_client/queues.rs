//! Sends the requests for places of one slot together.
//!
//! A slot has at most [`MAX_TURNS`] calls under way. A request that comes meanwhile waits until one of them has ended,
//! and goes with all others that wait then. So a request waits for nobody where there is room, and a busy slot needs
//! few calls. A request that Hospital leaves undecided is asked for again alone, besides them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use contract::capacity::v1::capacity_service_client::CapacityServiceClient;
use contract::capacity::v1::reserve_capacity_result::Result as Outcome;
use contract::capacity::v1::{
    BatchReserveCapacityRequest, BatchReserveCapacityResponse, CapacityClaim, ReserveCapacityCall,
    ReserveCapacityResult,
};
use domain::booking::Reply;
use domain::capacity::MAX_BATCHED_CALLS;
use domain::ids::{ClaimId, SlotId};
use runtime::client::is_unreachable;
use runtime::deadline::Deadline;
use runtime::status::{extract, reason_of};
use runtime::tasks::{Kind, Tasks};
use runtime::trace::TraceContext;
use tokio::sync::oneshot;
use tokio::time::timeout_at;
use tonic::{Code, Response, Status};

use super::calls::{Calls, Failure, refusal};
use super::{is_hurried, request};

/// Calls of one slot that may be under way: while Hospital commits one, the next is already there.
const MAX_TURNS: usize = 2;

/// What a request for a place gets.
type Answer = Result<CapacityClaim, Failure>;

/// A request that waits for its call.
#[derive(Debug)]
struct Waiting {
    claim: ClaimId,
    /// Whether a ticket is accepted where no place is left.
    allow_waitlist: bool,
    trace: TraceContext,
    deadline: Deadline,
    answer: oneshot::Sender<Answer>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    turns: usize,
}

/// The requests for places, by slot. Clones are cheap.
#[derive(Debug, Clone)]
pub(super) struct Queues {
    calls: Calls,
    tasks: Tasks,
    slots: Arc<Mutex<HashMap<SlotId, Queue>>>,
}

/// One of the calls that a slot may have under way. It makes one after the other as long as requests wait.
#[derive(Debug)]
struct Turn {
    queues: Queues,
    slot: SlotId,
    is_over: bool,
}

impl Queues {
    pub(super) fn new(calls: Calls, tasks: Tasks) -> Self {
        Self { calls, tasks, slots: Arc::default() }
    }

    /// Asks for a place for a claim, or for a ticket if that is allowed. A request that was sent is not taken back if
    /// the wait is dropped.
    pub(super) async fn reserve(
        &self,
        slot: &SlotId,
        (claim, allow_waitlist): (ClaimId, bool),
        trace: &TraceContext,
        deadline: Deadline,
    ) -> Answer {
        let hurried = is_hurried(deadline);
        let (answer, answered) = oneshot::channel();
        if let Some(turn) = self.add(slot, Waiting { claim, allow_waitlist, trace: *trace, deadline, answer }) {
            self.tasks.spawn_shared(Kind::Job, "places", turn.send_all());
        }
        match timeout_at(deadline.instant(), answered).await {
            Ok(Ok(answer @ (Ok(_) | Err(Failure::Refused(..) | Failure::Silent(_))))) => answer,
            _ if hurried && deadline.has_passed() => Err(Failure::Late),
            Ok(Err(_)) => Err(Failure::Silent("the call was given up".to_owned())),
            Ok(Ok(Err(Failure::Late))) | Err(_) => Err(Failure::Silent("no answer in time".to_owned())),
        }
    }

    fn slots(&self) -> MutexGuard<'_, HashMap<SlotId, Queue>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a request. Returns a turn if the slot may have one more.
    fn add(&self, slot: &SlotId, waiting: Waiting) -> Option<Turn> {
        let mut slots = self.slots();
        let queue = slots.entry(slot.clone()).or_default();
        queue.waiting.push(waiting);
        if queue.turns == MAX_TURNS {
            return None;
        }
        queue.turns += 1;
        Some(Turn { queues: self.clone(), slot: slot.clone(), is_over: false })
    }

    async fn send_alone(&self, slot: &SlotId, waiting: Waiting) {
        if !waiting.is_wanted() {
            return;
        }
        let Waiting { claim, allow_waitlist, trace, deadline, answer } = waiting;
        let message = || request(slot, claim, allow_waitlist);
        let asked = self.calls.with_retries(slot, message, &trace, deadline, |line, request| {
            let mut client = CapacityServiceClient::new(line);
            async move { client.reserve_capacity(request).await }
        });
        let _ = answer.send(asked.await);
    }

    async fn send_together(&self, slot: &SlotId, waiting: Vec<Waiting>) {
        let Some(deadline) = waiting.iter().map(|one| one.deadline).max() else { return };
        let message = || BatchReserveCapacityRequest { calls: waiting.iter().map(|one| one.as_part(slot)).collect() };
        let asked = self.calls.with_retries(slot, message, &waiting[0].trace, deadline, |line, request| {
            let mut client = CapacityServiceClient::new(line);
            async move { results(client.batch_reserve_capacity(request).await) }
        });
        let results = match asked.await {
            Ok(results) => results,
            // One of them may be the cause, which then is refused alone.
            Err(Failure::Refused(_, Reply::Refused(_))) => Vec::new(),
            Err(failure) => {
                waiting.into_iter().for_each(|one| drop(one.answer.send(Err(failure.clone()))));
                return;
            }
        };
        let mut results = results.into_iter();
        for one in waiting {
            match results.next().and_then(|result| decision(result, one.claim)) {
                Some(answer) => drop(one.answer.send(answer)),
                None => {
                    // Asked for like one whose answer was lost. The others do not wait for it.
                    let (queues, slot) = (self.clone(), slot.clone());
                    self.tasks.spawn_shared(Kind::Job, "place", async move { queues.send_alone(&slot, one).await });
                }
            }
        }
    }
}

impl Waiting {
    /// Whether somebody still waits for it. Nobody else is to get a place.
    fn is_wanted(&self) -> bool {
        !self.answer.is_closed()
    }

    fn as_part(&self, slot: &SlotId) -> ReserveCapacityCall {
        ReserveCapacityCall {
            request: Some(request(slot, self.claim, self.allow_waitlist)),
            timeout: self.deadline.remaining().try_into().ok(),
            traceparent: self.trace.traceparent(),
        }
    }
}

impl Turn {
    /// Sends what waits for places of the slot, until nothing waits any more.
    async fn send_all(mut self) {
        while let Some(mut waiting) = self.next() {
            waiting.retain(Waiting::is_wanted);
            if waiting.len() > 1 {
                self.queues.send_together(&self.slot, waiting).await;
            } else if let Some(one) = waiting.pop() {
                self.queues.send_alone(&self.slot, one).await;
            }
        }
    }

    /// What the next call sends. `None` once nothing waits, which ends the turn.
    fn next(&mut self) -> Option<Vec<Waiting>> {
        let mut slots = self.queues.slots();
        let queue = slots.get_mut(&self.slot)?;
        if queue.waiting.is_empty() {
            self.is_over = true;
            leave(&mut slots, &self.slot);
            return None;
        }
        let most = queue.waiting.len().min(MAX_BATCHED_CALLS);
        Some(queue.waiting.drain(..most).collect())
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if !self.is_over {
            leave(&mut self.queues.slots(), &self.slot);
        }
    }
}

/// One turn of a slot less. Without any, nobody is left to send what waits; it hears of that at once, because its
/// channel goes with the queue.
fn leave(slots: &mut HashMap<SlotId, Queue>, slot: &SlotId) {
    if let Some(queue) = slots.get_mut(slot) {
        queue.turns -= 1;
        if queue.turns == 0 {
            slots.remove(slot);
        }
    }
}

/// The results of a call. None from a Hospital of a version before, which has no such method, and from a proxy that
/// does not allow it yet. A call that decided nothing is one without an answer.
fn results(
    answer: Result<Response<BatchReserveCapacityResponse>, Status>,
) -> Result<Response<Vec<ReserveCapacityResult>>, Status> {
    match answer {
        Ok(answer) => {
            let results = answer.into_inner().results;
            let last = results.len().saturating_sub(1);
            match results.iter().map_while(undecided).nth(last) {
                Some(status) => Err(status),
                None => Ok(Response::new(results)),
            }
        }
        Err(status) if is_unknown(&status) => Ok(Response::new(Vec::new())),
        Err(status) => Err(status),
    }
}

/// Whether somebody on the way has never heard of the method.
fn is_unknown(status: &Status) -> bool {
    matches!(status.code(), Code::Unimplemented | Code::PermissionDenied) && reason_of(status).is_none()
}

/// Why a result decides nothing; `None` if it does.
fn undecided(result: &ReserveCapacityResult) -> Option<Status> {
    match &result.result {
        Some(Outcome::Error(status)) => Some(extract(status)).filter(is_unreachable),
        Some(Outcome::Claim(_)) => None,
        None => Some(Status::unknown("a result without content")),
    }
}

/// What Hospital decided about the request for a claim. `None` if it decided nothing.
fn decision(result: ReserveCapacityResult, of: ClaimId) -> Option<Answer> {
    match result.result? {
        Outcome::Claim(claim) => (claim.claim_id == of.to_string()).then_some(Ok(claim)),
        Outcome::Error(status) => {
            let status = extract(&status);
            (!is_unreachable(&status)).then(|| Err(refusal(&status)))
        }
    }
}

#[cfg(test)]
mod tests;
