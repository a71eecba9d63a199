//! One call to Hospital: its attempts, and what a status means.

use std::time::Duration;

use domain::booking::Reply;
use domain::ids::SlotId;
use fault::Fault;
use runtime::backoff::Backoff;
use runtime::client::{Line, Outgoing, Replicas, Silence, is_unreachable};
use runtime::deadline::Deadline;
use runtime::entropy::jittered;
use runtime::identity::TokenSource;
use runtime::status::refusal_of;
use runtime::trace::TraceContext;
use tokio::time::timeout_at;
use tonic::{Response, Status};

/// How many times a request is sent to all replicas, at most, while no answer arrives.
const MAX_ROUNDS: u32 = 3;
/// The pause before the second round. It doubles with every round.
const FIRST_PAUSE: Duration = Duration::from_millis(25);

/// Why a call has no successful answer.
#[derive(Debug, Clone)]
pub(super) enum Failure {
    Refused(Fault, Reply),
    /// Hospital is out of reach, for this reason.
    Silent(String),
    /// The caller's deadline passed. Whether Hospital can be reached is not known.
    Late,
}

/// Calls to the replicas of Hospital. Clones are cheap.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    pub(super) replicas: Replicas,
    pub(super) token: TokenSource,
    /// How long one attempt may take.
    pub(super) attempt: Duration,
}

impl Calls {
    /// Sends a request until an answer arrives, in at most [`MAX_ROUNDS`] rounds. The first attempt goes to the slot's
    /// replica and the next ones to the others without a pause. Each further round comes after a pause.
    ///
    /// `message` makes the request for each attempt.
    pub(super) async fn with_retries<M, A, F>(
        &self,
        slot: &SlotId,
        message: impl Fn() -> M,
        trace: &TraceContext,
        deadline: Deadline,
        call: impl Fn(Line, tonic::Request<M>) -> F,
    ) -> Result<A, Failure>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut route = self.replicas.route(&slot.to_string());
        let mut backoff = Backoff::new(FIRST_PAUSE, Duration::MAX);
        let mut round = 1;
        // stays `Late` as long as only the caller's deadline is to blame
        let mut silent = Failure::Late;
        loop {
            if deadline.has_passed() {
                return Err(silent);
            }
            let attempt = route.next_attempt();
            let limit = deadline.min(Deadline::within(self.attempt));
            let request = Outgoing::default().request(message(), &self.token, trace, limit);
            let request = route.about_slot(request);
            // the timeout of the request itself starts only once the channel is connected
            let cause = match timeout_at(limit.instant(), call(attempt.line(), request)).await {
                Ok(Ok(answer)) => {
                    attempt.answered();
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) if !is_unreachable(&status) => {
                    attempt.answered();
                    return Err(refusal(&status));
                }
                Ok(Err(status)) => format!("{:?}: {}", status.code(), status.message()),
                Err(_) => "no answer in time".to_owned(),
            };
            if attempt.silent(deadline) == Silence::Replica {
                silent = Failure::Silent(cause);
            }
            let pause_now = if route.has_untried() { Duration::ZERO } else { jittered(backoff.pause()) };
            let over = round == MAX_ROUNDS && !route.has_untried();
            if over || deadline.remaining() <= pause_now {
                if let Failure::Silent(cause) = &silent {
                    tracing::warn!(round, cause, "hospital is out of reach");
                }
                return Err(silent);
            }
            if !route.has_untried() {
                tokio::time::sleep(pause_now).await;
                round += 1;
            }
        }
    }
}

/// Interprets a status that Hospital itself made.
pub(super) fn refusal(status: &Status) -> Failure {
    let Some(refusal) = refusal_of(status) else {
        return Failure::Silent(format!("{:?} without a reason: {}", status.code(), status.message()));
    };
    let state = refusal.metadata.get("state").map(String::as_str).unwrap_or_default();
    match Reply::of_refusal(refusal.reason, state) {
        Reply::Unknown | Reply::Active | Reply::Waiting => {
            tracing::error!(reason = refusal.reason.name(), message = refusal.message, "hospital cannot serve us");
            Failure::Silent(refusal.reason.name().to_owned())
        }
        reply @ (Reply::Refused(_) | Reply::Busy(_) | Reply::Terminated(_)) => {
            Failure::Refused(refusal.into_fault(), reply)
        }
    }
}
