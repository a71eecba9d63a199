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
    reservations: Arc<Mutex<Vec<CapacityReservation>>>,
    open: watch::Sender<bool>,
    /// What becomes of a call with several requests before any of them is decided.
    fails: fn(usize) -> Result<(), Status>,
    says: Says,
}

impl Peer {
    async fn arrives(&self, requests: &[ReserveCapacityRequest]) -> usize {
        let number = |one: &ReserveCapacityRequest| ClaimId::parse(&one.claim_id).unwrap().screening.0.as_u128();
        self.calls.lock().unwrap().push(requests.iter().map(number).collect());
        let calls = self.calls.lock().unwrap().len();
        self.open.subscribe().wait_for(|open| *open).await.unwrap();
        calls
    }

    fn decide(&self, request: ReserveCapacityRequest) -> Result<CapacityClaim, Status> {
        let ReserveCapacityRequest { slot, claim_id } = request;
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
        let reservations = request.into_inner().reservations;
        self.reservations.lock().unwrap().clone_from(&reservations);
        let requests: Vec<_> = reservations.into_iter().filter_map(|one| one.request).collect();
        let call = self.arrives(&requests).await;
        (self.fails)(call)?;
        let results = requests.into_iter().map(|request| {
            let result = match self.decide(request) {
                Ok(claim) => Outcome::Claim(claim),
                // One that is in doubt is decided when it is asked for alone.
                Err(status) => Outcome::Error(embed(&status)),
            };
            CapacityReservationResult { result: Some(result) }
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
        let peer =
            Peer { calls: Arc::default(), reservations: Arc::default(), open: watch::Sender::new(true), fails, says };
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
        async move { self.queues.reserve(&self.slot, claim, &TraceContext::generate(), Deadline::within(time)).await }
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
    world.peer.open.send_replace(false);
    let mut alone = [world.ask(1), world.ask(2)];
    world.begin(&mut alone).await;
    let mut rest: Vec<_> = (3..=7).map(|number| world.ask(number)).collect();
    poll_once(&mut rest).await;
    let other = SlotId::parse("hospitals/seoul/slots/2027-03-03").unwrap();
    let claim = ClaimId { screening: ScreeningId(Uuid::from_u128(8)), generation: 1 };
    let trace = TraceContext::generate();
    let mut elsewhere = world.queues.reserve(&other, claim, &trace, Deadline::within(Duration::from_secs(20))).boxed();
    assert!((&mut elsewhere).now_or_never().is_none());
    testkit::eventually("the call of the other slot", async || {
        if world.calls().len() == 3 { Ok(()) } else { Err("not there".into()) }
    })
    .await;
    world.peer.open.send_replace(true);
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
    world.peer.open.send_replace(false);
    let mut alone = [world.ask(1), world.ask(2)];
    world.begin(&mut alone).await;
    let mut rest: Vec<_> = (3..=200).map(|number| world.ask(number)).collect();
    poll_once(&mut rest).await;
    world.peer.open.send_replace(true);
    assert!(join_all(rest).await.iter().all(Result::is_ok));
    let mut sizes: Vec<_> = world.calls().iter().map(Vec::len).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [1, 1, 198 - MAX_RESERVATIONS, MAX_RESERVATIONS]);
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
    world.peer.open.send_replace(false);
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
    world.peer.open.send_replace(true);
    assert!(join_all(rest).await.iter().all(Result::is_ok));
    assert_eq!(world.calls()[2..], [vec![3, 5]]);
    let carried = world.peer.reservations.lock().unwrap().clone();
    assert!(carried.iter().all(|one| one.timeout.is_some_and(|time| (1..=20).contains(&time.seconds))));
    assert_ne!(carried[0].traceparent, carried[1].traceparent);
}
