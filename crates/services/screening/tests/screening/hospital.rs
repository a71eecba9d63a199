//! A Hospital in memory. It applies the real rules of claims, and loses requests and answers when a test asks for it.

mod reading;
mod waiting;

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use contract::capacity::v1::capacity_service_server::{CapacityService, CapacityServiceServer};
use contract::capacity::v1::reserve_capacity_result::Result as Outcome;
use contract::capacity::v1::{
    BatchReserveCapacityRequest, BatchReserveCapacityResponse, BookingTerms, CapacityClaim, GetCapacityClaimRequest,
    ListCapacityClaimsRequest, ListCapacityClaimsResponse, ReleaseCapacityRequest, ReserveCapacityRequest,
    ReserveCapacityResult,
};
use contract::event::v1::EventEnvelope;
use contract::hospital::v1::hospital_service_server::HospitalServiceServer;
use domain::capacity::{self, Claim, ClaimState, Fact, RevokeReason, Slot, SlotState};
use domain::civil::{encode_time, time_zone};
use domain::event::{Cause, envelope};
use domain::hospital::{self, Draft, Held, Hospital};
use domain::ids::{ClaimId, HospitalId, SlotId};
use domain::window::BookingPolicy;
use fault::Fault;
use jiff::Timestamp;
use runtime::client::SLOT;
use runtime::clock::Clock;
use runtime::entropy::{uuid_v4, uuid_v7};
use runtime::status::{embed, status};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, async_trait};

/// A gate that opens once and lets everybody through.
#[derive(Debug, Clone)]
pub(crate) struct Gate(Arc<watch::Sender<bool>>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(watch::Sender::new(false)))
    }

    pub(crate) fn open(&self) {
        self.0.send_replace(true);
    }

    async fn passed(&self) {
        self.0.subscribe().wait_for(|open| *open).await.expect("the gate is still there");
    }
}

/// What happens to one call that asks for places.
#[derive(Debug, Clone)]
pub(crate) enum Fate {
    /// The request is lost.
    LoseRequest,
    /// The request takes effect, and its answer is lost.
    LoseAnswer,
    /// The request arrives when the gate opens.
    ArriveAfter(Gate),
    /// The request takes effect, and its answer arrives when the gate opens.
    AnswerAfter(Gate),
    /// The request is refused with this fault, whatever the rules say.
    Refuse(Fault),
}

#[derive(Debug, Default)]
struct State {
    hospitals: HashMap<HospitalId, Hospital>,
    slots: HashMap<SlotId, Slot>,
    claims: HashMap<ClaimId, Claim>,
    events: Vec<EventEnvelope>,
    /// Whether it is of the version before, which has no queues.
    is_old: bool,
    fates: VecDeque<Fate>,
    reserves: Vec<ClaimId>,
    releases: Vec<ClaimId>,
}

/// The fake Hospital. Clones share its state.
#[derive(Debug, Clone)]
pub(crate) struct FakeHospital {
    clock: Clock,
    state: Arc<Mutex<State>>,
}

impl FakeHospital {
    /// Starts to serve on a free port.
    pub(crate) async fn start(clock: Clock) -> (Self, SocketAddr) {
        let hospital = Self { clock, state: Arc::default() };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let serving = tonic::transport::Server::builder()
            .add_service(CapacityServiceServer::new(hospital.clone()))
            .add_service(HospitalServiceServer::new(hospital.clone()))
            .serve_with_incoming(TcpListenerStream::new(listener));
        #[allow(clippy::disallowed_methods, reason = "a peer of the process under test, which has no owner there")]
        tokio::spawn(serving);
        (hospital, addr)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Opens a slot, and creates its hospital if it does not exist.
    pub(crate) fn open(&self, slot: &SlotId, capacity: i32) {
        self.open_under(slot, capacity, BookingPolicy::default());
    }

    /// Like [`Self::open`], with a booking policy for a new hospital.
    pub(crate) fn open_under(&self, slot: &SlotId, capacity: i32, policy: BookingPolicy) {
        let now = self.now();
        let mut state = self.state();
        state.hospitals.entry(slot.hospital.clone()).or_insert_with(|| {
            let time_zone = time_zone("Asia/Seoul").unwrap();
            let draft = Draft { display_name: format!("Clinic {}", slot.hospital.segment()), time_zone, policy };
            hospital::register(&slot.hospital, uuid_v7(), &draft, None, now).unwrap().0
        });
        let slot = Slot {
            id: slot.clone(),
            capacity,
            booked: 0,
            waiting: 0,
            state: SlotState::Open,
            version: 1,
            admin_version: 1,
            create_time: now,
            update_time: now,
        };
        state.slots.insert(slot.id.clone(), slot);
    }

    /// Gives a hospital another booking policy.
    pub(crate) fn set_policy(&self, hospital: &str, policy: BookingPolicy) {
        let id = HospitalId::from_segment(hospital).unwrap();
        self.state().hospitals.get_mut(&id).unwrap().policy = policy;
    }

    pub(crate) fn set_capacity(&self, slot: &SlotId, capacity: i32) {
        self.state().slots.get_mut(slot).unwrap().capacity = capacity;
    }

    /// Closes a slot for new bookings.
    pub(crate) fn close(&self, slot: &SlotId) {
        self.state().slots.get_mut(slot).unwrap().state = SlotState::Closed;
    }

    /// Deletes a hospital and revokes its claims.
    pub(crate) fn delete(&self, id: &HospitalId, reason: &str) {
        let now = self.now();
        let mut state = self.state();
        let deleted = hospital::delete(&state.hospitals[id], Held { active: 1, waiting: 0 }, true, reason, "", now)
            .unwrap()
            .unwrap()
            .0;
        state.hospitals.insert(id.clone(), deleted);
        let claims: Vec<_> = state.claims.values().filter(|claim| claim.slot.hospital == *id).cloned().collect();
        for claim in claims {
            let step = capacity::revoke(&claim, &state.slots[&claim.slot], RevokeReason::HospitalDeleted, reason, now);
            state.keep(step, now);
        }
    }

    /// Decides what happens to the next calls for places. Later ones are answered normally.
    pub(crate) fn next(&self, fates: impl IntoIterator<Item = Fate>) {
        self.state().fates.extend(fates);
    }

    /// Forgets the fates that are left, so that the next requests are answered normally.
    pub(crate) fn forget_fates(&self) {
        self.state().fates.clear();
    }

    /// The claims of all requests for places that were sent, repetitions and lost ones included.
    pub(crate) fn reserves(&self) -> Vec<ClaimId> {
        self.state().reserves.clone()
    }

    /// The claims that Screening itself asked to release, repetitions included.
    pub(crate) fn releases(&self) -> Vec<ClaimId> {
        self.state().releases.clone()
    }

    /// Gives a place to a claim, as if another replica of Screening had asked for it.
    pub(crate) fn take(&self, slot: &SlotId, claim: ClaimId) {
        self.reserve_now(slot, claim, false).unwrap();
    }

    /// The state of a claim; `None` if it never arrived.
    pub(crate) fn claim(&self, id: ClaimId) -> Option<ClaimState> {
        self.state().claims.get(&id).map(|claim| claim.state)
    }

    /// Every claim that holds a place.
    pub(crate) fn active(&self) -> Vec<ClaimId> {
        let state = self.state();
        state.claims.values().filter(|claim| claim.state == ClaimState::Active).map(|claim| claim.id).collect()
    }

    /// Every event so far.
    pub(crate) fn events(&self) -> Vec<EventEnvelope> {
        self.state().events.clone()
    }

    /// Releases the claim of a booking that ended, as the event about its end does.
    pub(crate) fn hear_of_the_end(&self, slot: &SlotId, claim: ClaimId) {
        self.release_now(slot, claim).unwrap();
    }

    fn reserve_now(&self, slot: &SlotId, id: ClaimId, allow_waitlist: bool) -> Result<CapacityClaim, Fault> {
        let now = self.now();
        let mut state = self.state();
        let hospital = state.hospitals.get(&slot.hospital);
        let (claim, allows) = (state.claims.get(&id), allow_waitlist && !state.is_old);
        let step = capacity::reserve(slot, id, claim, hospital, state.slots.get(slot), allows, now)?;
        let terms = hospital.map(|hospital| hospital.terms(slot.date));
        state.keep(step, now);
        let mut answer = state.answer(id);
        answer.terms = terms.map(|terms| BookingTerms {
            hospital_display_name: terms.hospital_display_name,
            time_zone: terms.time_zone,
            cancellation_close_time: terms.cancellation_close_time.map(encode_time),
            reschedule_limit: terms.reschedule_limit,
            customer_limit: terms.customer_limit,
        });
        Ok(answer)
    }

    fn reserve_all(&self, asked: &[Asked]) -> Vec<Result<CapacityClaim, Fault>> {
        asked.iter().map(|(slot, claim, waits)| self.reserve_now(slot, *claim, *waits)).collect()
    }

    /// Answers one call. Its fate is that of all requests in it.
    async fn answer_all(&self, asked: Vec<Asked>) -> Result<Vec<Result<CapacityClaim, Fault>>, Status> {
        let fate = {
            let mut state = self.state();
            state.reserves.extend(asked.iter().map(|(_, claim, _)| *claim));
            state.fates.pop_front()
        };
        match fate {
            None => Ok(self.reserve_all(&asked)),
            Some(Fate::LoseRequest) => Err(lost()),
            Some(Fate::LoseAnswer) => {
                assert!(self.reserve_all(&asked).iter().all(Result::is_ok));
                Err(lost())
            }
            Some(Fate::ArriveAfter(gate)) => {
                // the request arrives even if nobody waits for its answer any more
                let hospital = self.clone();
                #[allow(clippy::disallowed_methods, reason = "what is on its way belongs to nobody")]
                let arrival = tokio::spawn(async move {
                    gate.passed().await;
                    hospital.reserve_all(&asked)
                });
                Ok(arrival.await.unwrap())
            }
            Some(Fate::AnswerAfter(gate)) => {
                let answers = self.reserve_all(&asked);
                gate.passed().await;
                Ok(answers)
            }
            Some(Fate::Refuse(fault)) => Ok(asked.iter().map(|_| Err(fault.clone())).collect()),
        }
    }

    fn release_now(&self, slot: &SlotId, id: ClaimId) -> Result<CapacityClaim, Fault> {
        let now = self.now();
        let mut state = self.state();
        let queue = state.queue(slot);
        let released = capacity::release(slot, id, state.claims.get(&id), state.slots.get(slot), &queue, now)?;
        state.keep(released.0, now);
        released.1.into_iter().for_each(|step| state.keep(step, now));
        Ok(state.answer(id))
    }
}

impl State {
    fn keep(&mut self, step: capacity::Step, now: Timestamp) {
        let capacity::Step { claim, slot, fact } = step;
        if let Some(slot) = slot {
            self.slots.insert(slot.id.clone(), slot);
        }
        self.claims.insert(claim.id, claim);
        if let Some(Fact { aggregate, version, payload }) = fact {
            let cause = Cause {
                actor: "admin:lee".into(),
                request_id: String::new(),
                causation_id: String::new(),
                traceparent: String::new(),
            };
            self.events.push(envelope("hospital", &cause, now, uuid_v4(), aggregate, version, payload));
        }
    }

    fn answer(&self, id: ClaimId) -> CapacityClaim {
        let claim = &self.claims[&id];
        CapacityClaim {
            claim_id: id.to_string(),
            slot: claim.slot.to_string(),
            state: claim.state.message().into(),
            slot_version: claim.slot_version,
            ..self.ticket(claim)
        }
    }
}

/// Refuses a call whose metadata do not name its slot, because a mesh would route it to any replica.
fn require_slot<M>(request: &Request<M>, about: &str) -> Result<(), Status> {
    let named = request.metadata().get(SLOT).and_then(|slot| slot.to_str().ok()).unwrap_or_default();
    if named.starts_with(about) && SlotId::parse(named).is_ok() {
        return Ok(());
    }
    Err(Status::internal(format!("a call about {about} names the slot {named:?}")))
}

/// A slot, a claim on it, and whether it may wait.
type Asked = (SlotId, ClaimId, bool);

fn read(request: &ReserveCapacityRequest) -> Asked {
    let (slot, claim) = (SlotId::parse(&request.slot).unwrap(), ClaimId::parse(&request.claim_id).unwrap());
    (slot, claim, request.allow_waitlist)
}

fn lost() -> Status {
    Status::unavailable("the connection broke")
}

#[async_trait]
impl CapacityService for FakeHospital {
    async fn reserve_capacity(
        &self,
        request: Request<ReserveCapacityRequest>,
    ) -> Result<Response<CapacityClaim>, Status> {
        require_slot(&request, &request.get_ref().slot)?;
        self.answer_all(vec![read(request.get_ref())]).await?.remove(0).map(Response::new).map_err(status)
    }

    async fn batch_reserve_capacity(
        &self,
        request: Request<BatchReserveCapacityRequest>,
    ) -> Result<Response<BatchReserveCapacityResponse>, Status> {
        let asked: Vec<_> = request.get_ref().calls.iter().map(|one| one.request.as_ref().unwrap()).collect();
        require_slot(&request, &asked[0].slot)?;
        let answers = self.answer_all(asked.into_iter().map(read).collect()).await?;
        let results = answers.into_iter().map(|answer| {
            let result = match answer {
                Ok(claim) => Outcome::Claim(claim),
                Err(fault) => Outcome::Error(embed(&status(fault))),
            };
            ReserveCapacityResult { result: Some(result) }
        });
        Ok(Response::new(BatchReserveCapacityResponse { results: results.collect() }))
    }

    async fn release_capacity(
        &self,
        request: Request<ReleaseCapacityRequest>,
    ) -> Result<Response<CapacityClaim>, Status> {
        require_slot(&request, &request.get_ref().slot)?;
        let ReleaseCapacityRequest { slot, claim_id } = request.into_inner();
        let (slot, claim) = (SlotId::parse(&slot).unwrap(), ClaimId::parse(&claim_id).unwrap());
        self.state().releases.push(claim);
        self.release_now(&slot, claim).map(Response::new).map_err(status)
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
