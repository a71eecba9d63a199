//! Against a Hospital that gives every place, unless a test has it do otherwise.

use std::future::poll_fn;
use std::task::Poll;
use std::time::Duration;

use contract::capacity::v1::capacity_service_server::{CapacityService, CapacityServiceServer};
use contract::capacity::v1::{
    GetCapacityClaimRequest, ListCapacityClaimsRequest, ListCapacityClaimsResponse, ReleaseCapacityRequest,
    ReserveCapacityRequest,
};
use domain::booking::Reply;
use domain::ids::ScreeningId;
use fault::{Fault, Reason};
use futures::future::{BoxFuture, FutureExt as _, join_all};
use runtime::client::{ClientOptions, Replicas};
use runtime::deadline::FAIR;
use runtime::identity::TokenSource;
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::status::{embed, status};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, async_trait};
use uuid::Uuid;

use super::*;

/// What Hospital says to a request for a place. The number is that of its claim.
type Says = fn(u128) -> Result<(), Fault>;

#[derive(Debug, Clone)]
struct Peer {
    /// The numbers of the claims of each call.
    calls: Arc<Mutex<Vec<Vec<u128>>>>,
    /// What the last batch was, and how long it may take.
    batch: Arc<Mutex<(Vec<ReserveCapacityCall>, Duration)>>,
    /// How many calls are answered; the others wait.
    answered: watch::Sender<usize>,
    /// What becomes of a call with several requests before any of them is decided.
    fails: fn(usize) -> Result<(), Status>,
    says: Says,
}

impl Peer {
    async fn arrives(&self, requests: &[ReserveCapacityRequest]) -> usize {
        let number = |one: &ReserveCapacityRequest| ClaimId::parse(&one.claim_id).unwrap().screening.0.as_u128();
        let call = {
            let mut calls = self.calls.lock().unwrap();
            calls.push(requests.iter().map(number).collect());
            calls.len()
        };
        self.answered.subscribe().wait_for(|answered| *answered >= call).await.unwrap();
        call
    }

    fn decide(&self, request: ReserveCapacityRequest) -> Result<CapacityClaim, Status> {
        let ReserveCapacityRequest { slot, claim_id, allow_waitlist: _ } = request;
        let number = ClaimId::parse(&claim_id).unwrap().screening.0.as_u128();
        (self.says)(number).map_err(status)?;
        Ok(CapacityClaim { claim_id, slot, ..CapacityClaim::default() })
    }
}

#[async_trait]
impl CapacityService for Peer {
    async fn reserve_capacity(
        &self,
        request: Request<ReserveCapacityRequest>,
    ) -> Result<Response<CapacityClaim>, Status> {
        let request = request.into_inner();
        self.arrives(std::slice::from_ref(&request)).await;
        self.decide(request).map(Response::new)
    }

    async fn batch_reserve_capacity(
        &self,
        request: Request<BatchReserveCapacityRequest>,
    ) -> Result<Response<BatchReserveCapacityResponse>, Status> {
        let time = request.metadata().get("grpc-timeout").and_then(|time| Deadline::parse_timeout(time.to_str().ok()?));
        let calls = request.into_inner().calls;
        *self.batch.lock().unwrap() = (calls.clone(), time.unwrap());
        let requests: Vec<_> = calls.into_iter().filter_map(|one| one.request).collect();
        let call = self.arrives(&requests).await;
        (self.fails)(call)?;
        let results = requests.into_iter().map(|request| {
            let result = match self.decide(request) {
                Ok(claim) => Outcome::Claim(claim),
                Err(status) => Outcome::Error(embed(&status)),
            };
            ReserveCapacityResult { result: Some(result) }
        });
        Ok(Response::new(BatchReserveCapacityResponse { results: results.collect() }))
    }

    async fn release_capacity(&self, _: Request<ReleaseCapacityRequest>) -> Result<Response<CapacityClaim>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn get_capacity_claim(&self, _: Request<GetCapacityClaimRequest>) -> Result<Response<CapacityClaim>, Status> {
        Err(Status::unimplemented("not asked for"))
    }

    async fn list_capacity_claims(
        &self,
        _: Request<ListCapacityClaimsRequest>,
    ) -> Result<Response<ListCapacityClaimsResponse>, Status> {
        Err(Status::unimplemented("not asked for"))
    }
}

struct World {
    peer: Peer,
    queues: Queues,
    slot: SlotId,
    _trigger: DrainTrigger,
}

impl World {
    async fn start(fails: fn(usize) -> Result<(), Status>, says: Says) -> Self {
        let peer = Peer {
            calls: Arc::default(),
            batch: Arc::default(),
            answered: watch::Sender::new(usize::MAX),
            fails,
            says,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let serving = tonic::transport::Server::builder()
            .add_service(CapacityServiceServer::new(peer.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        #[allow(clippy::disallowed_methods, reason = "a peer of the client under test, which has no owner there")]
        tokio::spawn(serving);
        let (trigger, drain) = drain_pair();
        let calls = Calls {
            replicas: Replicas::connect(&[address], ClientOptions::default()),
            token: TokenSource::fixed("t"),
            attempt: Duration::from_secs(10),
        };
        let slot = SlotId::parse("hospitals/seoul/slots/2027-03-02").unwrap();
        Self { peer, queues: Queues::new(calls, Tasks::new(drain)), slot, _trigger: trigger }
    }

    fn ask(&self, number: u128) -> BoxFuture<'_, Answer> {
        self.ask_within(number, Duration::from_secs(20))
    }

    fn ask_within(&self, number: u128, time: Duration) -> BoxFuture<'_, Answer> {
        let claim = ClaimId { screening: ScreeningId(Uuid::from_u128(number)), generation: 1 };
        async move {
            self.queues.reserve(&self.slot, (claim, false), &TraceContext::generate(), Deadline::within(time)).await
        }
        .boxed()
    }

    fn calls(&self) -> Vec<Vec<u128>> {
        self.peer.calls.lock().unwrap().clone()
    }

    /// Begins requests one after the other, and waits until each has its call.
    async fn begin(&self, asked: &mut [BoxFuture<'_, Answer>]) {
        for (i, one) in asked.iter_mut().enumerate() {
            assert!(one.now_or_never().is_none());
            testkit::eventually(
                "a call",
                async || {
                    if self.calls().len() > i { Ok(()) } else { Err("not there".into()) }
                },
            )
            .await;
        }
    }
}

fn gives(_: u128) -> Result<(), Fault> {
    Ok(())
}

fn arrives(_: usize) -> Result<(), Status> {
    Ok(())
}

/// Polls each once, in order.
async fn poll_once(asked: &mut [BoxFuture<'_, Answer>]) {
    poll_fn(|context| {
        for one in asked.iter_mut() {
            assert!(one.poll_unpin(context).is_pending());
        }
        Poll::Ready(())
    })
    .await;
}

#[tokio::test]
async fn a_busy_slot_has_two_calls_under_way_and_the_rest_goes_together() {
    let world = World::start(arrives, gives).await;
    world.peer.answered.send_replace(0);
    let mut alone = [world.ask(1), world.ask(2)];
    world.begin(&mut alone).await;
    let mut rest: Vec<_> = (3..=7).map(|number| world.ask(number)).collect();
    poll_once(&mut rest).await;
    let other = SlotId::parse("hospitals/seoul/slots/2027-03-03").unwrap();
    let claim = ClaimId { screening: ScreeningId(Uuid::from_u128(8)), generation: 1 };
    let trace = TraceContext::generate();
    let mut elsewhere =
        world.queues.reserve(&other, (claim, false), &trace, Deadline::within(Duration::from_secs(20))).boxed();
    assert!((&mut elsewhere).now_or_never().is_none());
    testkit::eventually("the call of the other slot", async || {
        if world.calls().len() == 3 { Ok(()) } else { Err("not there".into()) }
    })
    .await;
    world.peer.answered.send_replace(usize::MAX);
    for (number, answer) in (3..).zip(join_all(rest).await) {
        let claim = answer.unwrap().claim_id;
        assert_eq!(ClaimId::parse(&claim).unwrap().screening.0.as_u128(), number, "an answer of another's request");
    }
    assert!(join_all(alone).await.iter().all(Result::is_ok));
    elsewhere.await.unwrap();
    assert_eq!(world.calls(), [vec![1], vec![2], vec![8], (3..=7).collect()]);
    testkit::eventually("no queue", async || {
        if world.queues.slots().is_empty() { Ok(()) } else { Err("a slot is remembered".into()) }
    })
    .await;
}

#[tokio::test]
async fn a_call_has_no_more_requests_than_hospital_takes() {
    let world = World::start(arrives, gives).await;
    world.peer.answered.send_replace(0);
    let mut alone = [world.ask(1), world.ask(2)];
    world.begin(&mut alone).await;
    let mut rest: Vec<_> = (3..=200).map(|number| world.ask(number)).collect();
    poll_once(&mut rest).await;
    world.peer.answered.send_replace(usize::MAX);
    assert!(join_all(rest).await.iter().all(Result::is_ok));
    let mut sizes: Vec<_> = world.calls().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 198 - MAX_BATCHED_CALLS, MAX_BATCHED_CALLS]);
}

#[tokio::test]
async fn a_refusal_of_one_is_not_that_of_its_neighbours() {
    let full = |number| if number == 2 { Err(Fault::new(Reason::SlotFull, "full")) } else { Ok(()) };
    let world = World::start(arrives, full).await;
    let answers = join_all((1..=3).map(|number| world.ask(number))).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    let Err(Failure::Refused(refusal, reply)) = &answers[1] else { panic!("{:?}", answers[1]) };
    assert_eq!((refusal.reason(), *reply), (Reason::SlotFull, Reply::Refused(Reason::SlotFull)));
    assert_eq!(world.calls(), [vec![1, 2, 3]]);
}

#[tokio::test]
async fn one_that_was_not_decided_is_asked_for_again_alone() {
    let broken = |number| {
        if number == 2 { Err(Fault::new(Reason::StorageUnavailable, "the disk is full")) } else { Ok(()) }
    };
    let world = World::start(arrives, broken).await;
    let answers = join_all((1..=3).map(|number| world.ask(number))).await;
    assert!(answers[0].is_ok() && answers[2].is_ok());
    assert!(matches!(&answers[1], Err(Failure::Silent(_))), "{:?}", answers[1]);
    assert_eq!(world.calls()[..2], [vec![1, 2, 3], vec![2]]);
}

#[tokio::test]
async fn a_call_whose_answer_was_lost_is_repeated_for_the_same_claims() {
    let lost = |call| if call == 1 { Err(Status::unavailable("the connection broke")) } else { Ok(()) };
    let world = World::start(lost, gives).await;
    let answers = join_all((1..=3).map(|number| world.ask(number))).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    assert_eq!(world.calls(), [vec![1, 2, 3], vec![1, 2, 3]]);
}

#[tokio::test]
async fn a_hospital_of_the_version_before_is_asked_request_by_request() {
    for unknown in [Status::unimplemented(""), Status::permission_denied("RBAC: access denied")] {
        let fails: fn(usize) -> Result<(), Status> = match unknown.code() {
            Code::Unimplemented => |_| Err(Status::unimplemented("")),
            _ => |_| Err(Status::permission_denied("RBAC: access denied")),
        };
        let world = World::start(fails, gives).await;
        let answers = join_all((1..=3).map(|number| world.ask(number))).await;
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        let mut calls = world.calls();
        calls[1..].sort();
        assert_eq!(calls, [vec![1, 2, 3], vec![1], vec![2], vec![3]]);
    }
}

#[tokio::test]
async fn no_place_is_asked_for_whom_nobody_waits_any_more() {
    let world = World::start(arrives, gives).await;
    world.peer.answered.send_replace(0);
    let mut alone = [world.ask(1), world.ask(2)];
    world.begin(&mut alone).await;
    let mut rest = vec![world.ask(3), world.ask_within(4, Duration::ZERO), world.ask(5)];
    poll_once(&mut rest[..1]).await;
    let late = rest.remove(1).await;
    assert!(matches!(late, Err(Failure::Late)), "{late:?}");
    poll_once(&mut rest[1..]).await;
    let mut gone = world.ask(6);
    poll_once(std::slice::from_mut(&mut gone)).await;
    drop(gone);
    world.peer.answered.send_replace(usize::MAX);
    assert!(join_all(rest).await.iter().all(Result::is_ok));
    assert_eq!(world.calls()[2..], [vec![3, 5]]);
}

#[tokio::test]
async fn each_request_of_a_call_keeps_its_time_and_trace() {
    let world = World::start(arrives, gives).await;
    let (short, long) = (Duration::from_secs(3), Duration::from_secs(9));
    let answers = join_all([world.ask_within(1, short), world.ask_within(2, long)]).await;
    assert!(answers.iter().all(Result::is_ok), "{answers:?}");
    let (calls, time) = world.peer.batch.lock().unwrap().clone();
    let times: Vec<_> = calls.iter().map(|one| one.timeout.unwrap().seconds).collect();
    assert!((1..3).contains(&times[0]) && (4..9).contains(&times[1]), "{times:?}");
    assert!(time > short && time <= long, "the call has the time of the most patient: {time:?}");
    assert_ne!(calls[0].traceparent, calls[1].traceparent);
}

#[tokio::test]
async fn a_missing_answer_is_held_against_hospital_only_after_a_fair_wait() {
    let world = World::start(arrives, gives).await;
    world.peer.answered.send_replace(0);
    let mut alone = [world.ask(1), world.ask(2)];
    world.begin(&mut alone).await;
    let (hurried, patient) = (world.ask_within(3, Duration::from_millis(50)), world.ask_within(4, 2 * FAIR));
    let (hurried, patient) = tokio::join!(hurried, patient);
    assert!(matches!(hurried, Err(Failure::Late)), "{hurried:?}");
    assert!(matches!(patient, Err(Failure::Silent(_))), "{patient:?}");
}

#[tokio::test]
async fn a_slot_has_no_third_call_while_one_goes_on() {
    let world = World::start(arrives, gives).await;
    world.peer.answered.send_replace(0);
    let mut asked = [world.ask(1), world.ask(2)];
    world.begin(&mut asked).await;
    let [first, mut second] = asked;
    world.peer.answered.send_replace(1);
    first.await.unwrap();
    testkit::eventually("the end of the first turn", async || {
        let turns = world.queues.slots().get(&world.slot).map(|queue| queue.turns);
        if turns == Some(1) { Ok(()) } else { Err(format!("{turns:?}")) }
    })
    .await;
    let mut third = world.ask(3);
    poll_once(std::slice::from_mut(&mut third)).await;
    testkit::eventually(
        "the third call",
        async || {
            if world.calls().len() == 3 { Ok(()) } else { Err("not there".into()) }
        },
    )
    .await;
    let mut fourth = world.ask(4);
    poll_once(std::slice::from_mut(&mut fourth)).await;
    assert_eq!(world.queues.slots()[&world.slot].waiting.len(), 1, "both turns are taken");
    assert!((&mut second).now_or_never().is_none());
    world.peer.answered.send_replace(usize::MAX);
    assert!(join_all([second, third, fourth]).await.iter().all(Result::is_ok));
}

#[tokio::test]
async fn a_turn_that_is_cut_off_leaves_nobody_waiting() {
    let world = World::start(arrives, gives).await;
    let waiting = |number| {
        let (answer, answered) = oneshot::channel();
        let claim = ClaimId { screening: ScreeningId(Uuid::from_u128(number)), generation: 1 };
        let deadline = Deadline::within(Duration::from_secs(20));
        (Waiting { claim, allow_waitlist: false, trace: TraceContext::generate(), deadline, answer }, answered)
    };
    let ((first, _first), (second, _second), (third, answered)) = (waiting(1), waiting(2), waiting(3));
    let mut turns = [world.queues.add(&world.slot, first).unwrap(), world.queues.add(&world.slot, second).unwrap()];
    assert_eq!(turns[0].next().unwrap().len(), 2);
    assert!(world.queues.add(&world.slot, third).is_none());
    let [first, second] = turns;
    drop(first);
    assert_eq!(world.queues.slots()[&world.slot].waiting.len(), 1, "the other turn takes it");
    drop(second);
    assert!(answered.await.is_err(), "it hears that nobody sends it");
    world.ask(4).await.unwrap();
}

#[tokio::test]
async fn what_is_said_of_a_whole_call_is_said_of_each_in_it() {
    let busy = |_| Err(status(Fault::new(Reason::Overloaded, "back off")));
    let world = World::start(busy, gives).await;
    for answer in join_all((1..=3).map(|number| world.ask(number))).await {
        assert!(matches!(answer, Err(Failure::Refused(_, Reply::Busy(Reason::Overloaded)))), "{answer:?}");
    }
    assert_eq!(world.calls().len(), 1);
    // A token that Hospital does not accept is no sign of a version before.
    let world = World::start(|_| Err(status(Fault::new(Reason::RoleRequired, "screening only"))), gives).await;
    for answer in join_all((1..=3).map(|number| world.ask(number))).await {
        assert!(matches!(answer, Err(Failure::Silent(_))), "{answer:?}");
    }
    assert_eq!(world.calls().len(), 1);
    // Where one of them may be the cause, each is asked for alone.
    let world = World::start(|_| Err(status(Fault::new(Reason::FieldInvalid, "one is malformed"))), gives).await;
    assert!(join_all((1..=3).map(|number| world.ask(number))).await.iter().all(Result::is_ok));
    assert_eq!(world.calls().len(), 4);
}

#[tokio::test]
async fn a_call_that_decided_nothing_is_repeated_as_a_whole() {
    let broken = |_| Err(Fault::new(Reason::StorageUnavailable, "the disk is full"));
    let world = World::start(arrives, broken).await;
    for answer in join_all((1..=3).map(|number| world.ask_within(number, Duration::from_secs(5)))).await {
        assert!(matches!(answer, Err(Failure::Silent(_))), "{answer:?}");
    }
    let calls = world.calls();
    assert!(calls.len() > 1 && calls.iter().all(|call| *call == [1, 2, 3]), "{calls:?}");
}
