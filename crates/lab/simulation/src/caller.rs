//! The callers: customers and an admin, and how both send requests.

mod admin;
mod moves;

use std::sync::Arc;
use std::time::Duration;

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use contract::screening::v1::screening::State;
use contract::screening::v1::screening_service_client::ScreeningServiceClient;
use fault::Reason;
use runtime::client::{Line, Outgoing, Replicas, is_unreachable};
use runtime::deadline::Deadline;
use runtime::identity::{Claims, Hospitals, Role, TokenSource};
use runtime::status::reason_of;
use runtime::trace::TraceContext;
use tokio::time::{sleep, timeout_at};
use tonic::{Code, Request, Response, Status};

use crate::chance::Chance;
use crate::history::{Asked, CallHistory, Cancelled};
use crate::net::replicas;
use crate::plan::SCREENINGS;
use crate::site::Site;
use crate::stage::Stage;

/// The deadline of an attempt.
const CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// How many times a customer sends a request.
const CUSTOMER_TRIES: u32 = 4;

/// A caller with a token.
pub(crate) struct Caller {
    pub(crate) name: String,
    pub(crate) site: Arc<Site>,
    pub(crate) history: Arc<CallHistory>,
    pub(crate) stage: Arc<Stage>,
    pub(crate) chance: Chance,
    tokens: TokenSource,
    /// The bookings that were answered, with their answers.
    answered: Vec<(screening::CreateScreeningRequest, screening::Screening)>,
    /// The moves that were answered and have events of their own.
    moved: Vec<screening::RescheduleScreeningRequest>,
    /// The cancellations that were answered.
    cancelled: Vec<screening::CancelScreeningRequest>,
}

/// What the caller knows about a request after all attempts.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// The request was answered.
    Is(T),
    /// The request was refused, and no attempt had an effect.
    Refused(Reason),
    /// At least one attempt may have had its effect.
    Unknown,
}

impl Caller {
    pub(crate) fn new(
        name: &str,
        role: Role,
        site: &Arc<Site>,
        history: &Arc<CallHistory>,
        stage: &Arc<Stage>,
        chance: Chance,
    ) -> Self {
        let hospitals = (role == Role::Admin).then(|| Hospitals::One("*".into()));
        let claims = Claims::new(role, name, hospitals, Duration::from_secs(24 * 60 * 60));
        let token = site.signer.sign(&claims).unwrap_or_default();
        Self {
            name: name.to_owned(),
            site: Arc::clone(site),
            history: Arc::clone(history),
            stage: Arc::clone(stage),
            chance,
            tokens: TokenSource::fixed(&token),
            answered: Vec::new(),
            moved: Vec::new(),
            cancelled: Vec::new(),
        }
    }

    /// Sends a request until it is answered, at most `tries` times.
    pub(crate) async fn ask<M: Clone, A, F>(
        &mut self,
        replicas: &Replicas,
        what: &str,
        message: M,
        tries: u32,
        call: impl Fn(Line, Request<M>) -> F,
    ) -> Answer<A>
    where
        F: Future<Output = Result<Response<A>, Status>>,
    {
        let mut route = replicas.route(&self.name);
        let mut silent = false;
        for _ in 0..tries {
            let attempt = route.next_attempt();
            let deadline = Deadline::within(CALL_TIMEOUT);
            let request =
                Outgoing::default().request(message.clone(), &self.tokens, &TraceContext::generate(), deadline);
            let answer = timeout_at(deadline.instant(), call(attempt.line(), request)).await;
            let status = match answer {
                Ok(Ok(answer)) => {
                    attempt.answered();
                    self.history.called(false);
                    return Answer::Is(answer.into_inner());
                }
                Ok(Err(status)) => status,
                Err(_) => Status::deadline_exceeded("given up"),
            };
            let reason = reason_of(&status);
            self.note(what, &status, reason);
            let again = is_unreachable(&status) || matches!(status.code(), Code::Aborted | Code::ResourceExhausted);
            if again {
                attempt.failed()
            } else {
                attempt.answered()
            }
            match reason {
                Some(reason) if !again => {
                    self.history.called(silent);
                    return if silent { Answer::Unknown } else { Answer::Refused(reason) };
                }
                _ => silent |= reason.is_none_or(|reason| !matches!(reason, Reason::Overloaded | Reason::RateLimited)),
            }
            let pause = self.chance.between(Duration::from_millis(20), Duration::from_millis(400));
            sleep(pause).await;
        }
        self.history.called(true);
        Answer::Unknown
    }

    /// Traces a refusal. One that only an error in the simulation explains breaks the run, and so does a status that no
    /// service may return.
    fn note(&self, what: &str, status: &Status, reason: Option<Reason>) {
        self.site.trace.note(&self.name, what, format_args!("{:?} {reason:?}", status.code()));
        let defect = matches!(status.code(), Code::InvalidArgument | Code::PermissionDenied | Code::Unauthenticated)
            || matches!(status.code(), Code::Internal | Code::DataLoss) && reason.is_some();
        if defect {
            self.history.broken(format!("{what} was answered {status:?}"));
        }
    }

    /// Runs a customer, who books, waits for places, moves and cancels.
    pub(crate) async fn customer(mut self) -> turmoil::Result {
        let slots = self.stage.opened().await;
        let screenings = replicas(&SCREENINGS);
        let mut own: Vec<String> = Vec::new();
        for _ in 0..self.site.plan.operations {
            let pause = self.chance.between(Duration::ZERO, Duration::from_millis(300));
            sleep(pause).await;
            if !own.is_empty() && self.chance.one_in(3) {
                let name = own.remove(self.one_of(&own));
                self.cancel(&screenings, name).await;
            } else if !own.is_empty() && self.chance.one_in(self.site.plan.moving) {
                let (name, slot) = (own[self.one_of(&own)].clone(), self.chance.pick(&slots));
                self.reschedule(&screenings, &name, slot).await;
            } else {
                let slot = self.chance.pick(&slots);
                match self.book(&screenings, slot).await {
                    Some((name, State::Pending)) if self.chance.one_in(self.site.plan.rash) => {
                        self.cancel(&screenings, name).await;
                    }
                    Some((_, State::Waitlisted)) if self.chance.one_in(self.site.plan.patient) => {}
                    booked => own.extend(booked.map(|(name, _)| name)),
                }
            }
        }
        if self.site.plan.goes_back() {
            self.repeat(&screenings).await;
        }
        self.stage.leave();
        Ok(())
    }

    /// The index of one of its bookings. Mostly the newest one, because bookings that are not settled yet are the ones
    /// that break.
    fn one_of(&mut self, own: &[String]) -> usize {
        let back = if self.chance.one_in(3) { self.chance.below(own.len() as u64) } else { 0 };
        own.len() - 1 - usize::try_from(back).unwrap_or_default()
    }

    /// Repeats everything that was answered. Whatever was lost and recovered since, a booking is the same one, and
    /// neither a move nor a cancellation is refused or done again.
    async fn repeat(&mut self, screenings: &Replicas) {
        for (message, booked) in std::mem::take(&mut self.answered) {
            let what = format!("repeats {}", booked.name);
            let call =
                |channel, request| async move { ScreeningServiceClient::new(channel).create_screening(request).await };
            let again = self.ask(screenings, &what, message, CUSTOMER_TRIES, call).await;
            self.site.trace.note(&self.name, &what, summary(&again));
            self.same(&what, Answer::Is(booked), again);
        }
        self.repeat_moves(screenings).await;
        for message in std::mem::take(&mut self.cancelled) {
            let what = format!("cancels {} again", message.name);
            let call =
                |channel, request| async move { ScreeningServiceClient::new(channel).cancel_screening(request).await };
            let again = self.ask(screenings, &what, message, CUSTOMER_TRIES, call).await;
            self.site.trace.note(&self.name, &what, summary(&again));
            if let Answer::Refused(reason) = again {
                self.history.broken(format!("{what}, which was done, and is told {reason:?}"));
            }
        }
    }

    async fn book(&mut self, screenings: &Replicas, slot: String) -> Option<(String, State)> {
        let customer = format!("customers/{}", self.name);
        let message = screening::CreateScreeningRequest {
            screening: Some(screening::Screening {
                customer: customer.clone(),
                slot: slot.clone(),
                ..screening::Screening::default()
            }),
            request_id: runtime::entropy::uuid_v4().to_string(),
            accept_pending: self.chance.one_in(self.site.plan.pending),
            join_waitlist: self.chance.one_in(self.site.plan.joining),
            ..screening::CreateScreeningRequest::default()
        };
        let what = format!("books {slot}");
        let call =
            |channel, request| async move { ScreeningServiceClient::new(channel).create_screening(request).await };
        let mut answer = self.ask(screenings, &what, message.clone(), CUSTOMER_TRIES, call).await;
        if self.chance.one_in(4) {
            // Sends the same request again, as a client does that lost the answer.
            let again = self.ask(screenings, &what, message.clone(), CUSTOMER_TRIES, call).await;
            answer = self.same(&what, answer, again);
        }
        self.site.trace.note(&self.name, &what, summary(&answer));
        match answer {
            Answer::Is(booked) => {
                let (name, state) = (booked.name.clone(), booked.state());
                self.history.asked(&customer, Asked::Booked { name: name.clone(), state });
                self.history.placed(&name, &slot);
                self.answered.push((message, booked));
                Some((name, state))
            }
            Answer::Unknown => {
                self.history.asked(&customer, Asked::Unknown);
                None
            }
            Answer::Refused(_) => None,
        }
    }

    /// What two answers to one request tell together. Answers that contradict each other are recorded as broken.
    fn same(
        &self,
        what: &str,
        first: Answer<screening::Screening>,
        again: Answer<screening::Screening>,
    ) -> Answer<screening::Screening> {
        match (first, again) {
            (Answer::Is(first), Answer::Is(again)) => {
                if first.name != again.name {
                    self.history.broken(format!("{what} was answered {} and then {}", first.name, again.name));
                }
                Answer::Is(first)
            }
            (Answer::Is(booked), Answer::Refused(reason)) => {
                self.history.broken(format!("{what} was answered {} and then {reason:?}", booked.name));
                Answer::Is(booked)
            }
            (Answer::Is(booked), _) | (_, Answer::Is(booked)) => Answer::Is(booked),
            (Answer::Refused(reason), Answer::Refused(_)) => Answer::Refused(reason),
            (Answer::Unknown, _) | (_, Answer::Unknown) => Answer::Unknown,
        }
    }

    async fn cancel(&mut self, screenings: &Replicas, name: String) {
        let request_id = runtime::entropy::uuid_v4().to_string();
        let message = screening::CancelScreeningRequest { name: name.clone(), request_id, ..Default::default() };
        let what = format!("cancels {name}");
        self.history.cancelled(&name, Cancelled::Maybe);
        let answer = self
            .ask(screenings, &what, message.clone(), CUSTOMER_TRIES, |channel, request| async move {
                ScreeningServiceClient::new(channel).cancel_screening(request).await
            })
            .await;
        self.site.trace.note(&self.name, &what, summary(&answer));
        if matches!(answer, Answer::Is(_)) {
            self.history.cancelled(&name, Cancelled::Acknowledged);
            self.cancelled.push(message);
        }
    }
}

/// An answer as the trace shows it.
fn summary<T: std::fmt::Debug + Named>(answer: &Answer<T>) -> String {
    match answer {
        Answer::Is(it) => it.label(),
        Answer::Refused(reason) => reason.name().to_owned(),
        Answer::Unknown => "UNKNOWN".to_owned(),
    }
}

/// How the trace shows a resource.
trait Named {
    fn label(&self) -> String;
}

impl Named for screening::Screening {
    fn label(&self) -> String {
        format!("{} is {:?} v{} on {}", self.name, self.state(), self.version, self.slot)
    }
}

impl Named for hospital::Hospital {
    fn label(&self) -> String {
        format!("{} is {:?}", self.name, self.state())
    }
}

impl Named for hospital::Slot {
    fn label(&self) -> String {
        let Self { name, booked_count, capacity, waitlisted_count, .. } = self;
        format!("{name} is {:?}, {booked_count} of {capacity}, {waitlisted_count} wait", self.state())
    }
}
