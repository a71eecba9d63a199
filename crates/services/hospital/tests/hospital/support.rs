//! A hospital service in this process, where it is noon in Seoul, and short calls to it.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bus::tail::Tailer;
use bus::{Follow, Subscribe, Subscription};
use contract::capacity::v1::{
    CapacityClaim, ListCapacityClaimsRequest, ReleaseCapacityRequest, ReserveCapacityRequest,
};
use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use contract::hospital::v1 as message;
use domain::frame::Opened;
use hospital::{Migrator, Options, Service};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};
use message::{CreateHospitalRequest, GetHospitalRequest, GetSlotRequest, Hospital, Slot};
use relay::OutboxLog;
use runtime::Process;
use runtime::clock::Clock;
use runtime::entropy;
use runtime::identity::{Signer, Verifier};
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::server::{Server, ServerOptions};
use runtime::tasks::Kind;
use store::{Database, Location, Nemesis, Verdict};
use tempfile::TempDir;
use testkit::{Party, Served, Tokens, day_of};
use tokio::net::TcpListener;
use tonic::{Response, Status};
use uuid::Uuid;

/// The time zone of the hospitals that tests create.
pub(crate) const ZONE: &str = "Asia/Seoul";
pub(crate) const FILE: &str = "hospital.db";

/// A clock shifted to noon in Seoul, so that no test begins on one date and ends on the next.
pub(crate) fn noon() -> Clock {
    let now = Clock::system().now().to_zoned(TimeZone::get(ZONE).unwrap());
    let noon = now.with().hour(12).minute(0).second(0).subsec_nanosecond(0).build().unwrap();
    Clock::shifted(noon.timestamp().duration_since(now.timestamp()))
}

/// Lets a number of commits succeed and loses every later one.
#[derive(Debug)]
pub(crate) struct Budget(AtomicI64);

impl Budget {
    pub(crate) fn unlimited() -> Arc<Self> {
        Arc::new(Self(AtomicI64::new(i64::MAX)))
    }

    pub(crate) fn set(&self, commits: i64) {
        self.0.store(commits, Ordering::SeqCst);
    }
}

impl Nemesis for Budget {
    fn at_commit(&self) -> Verdict {
        if self.0.fetch_sub(1, Ordering::SeqCst) > 0 { Verdict::Commit } else { Verdict::Lose }
    }
}

/// The service's log, which counts who begins to read it.
struct Counted {
    tailer: Tailer,
    readers: Arc<AtomicUsize>,
}

#[async_trait]
impl Subscribe for Counted {
    async fn subscribe(
        &self,
        name: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, bus::Error> {
        self.readers.fetch_add(1, Ordering::SeqCst);
        self.tailer.subscribe(name, filter, from).await
    }
}

#[async_trait]
impl Follow for Counted {
    async fn head(&self, producer: &str) -> Result<(String, i64), bus::Error> {
        self.tailer.head(producer).await
    }
}

/// A running hospital service.
pub(crate) struct House {
    pub(crate) service: Service,
    pub(crate) served: Served,
    /// How often somebody began to read the service's events.
    pub(crate) readers: Arc<AtomicUsize>,
    clock: Clock,
    process: Process,
    trigger: DrainTrigger,
}

impl House {
    /// Starts a service on the database in this directory.
    pub(crate) async fn open(dir: &Path, clock: Clock, nemesis: Option<Arc<dyn Nemesis>>) -> Self {
        Self::open_with(dir, clock, nemesis, Options::default()).await
    }

    /// [`House::open`] with options.
    pub(crate) async fn open_with(
        dir: &Path,
        clock: Clock,
        nemesis: Option<Arc<dyn Nemesis>>,
        options: Options,
    ) -> Self {
        let signer = Signer::load_or_create(dir).unwrap();
        let (trigger, drain) = drain_pair();
        let process = Process::new(clock, drain.clone());
        let verifier = Verifier::from_jwks(&signer.jwks()).unwrap();
        let mut server = Server::new(ServerOptions::default(), verifier, Clock::system());
        let mut database = Database::open::<Migrator>(&Location::Sqlite(dir.join(FILE))).await.unwrap();
        if let Some(nemesis) = nemesis {
            database = database.with_nemesis(nemesis);
        }
        let service = hospital::build_on(options, database, &process, &mut server);
        let log = OutboxLog::new(hospital::NAME, service.database.clone());
        let counted = Counted { tailer: Tailer::new(vec![Arc::new(log)]), readers: Arc::default() };
        let readers = Arc::clone(&counted.readers);
        let following = relay::follow(service.follower.clone(), Arc::new(counted), drain.clone());
        process.tasks.spawn(Kind::Loop, "follow", following);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = Served::new(listener.local_addr().unwrap(), Tokens::of(dir));
        process.tasks.spawn(Kind::Essential, "server", server.run(listener, drain));
        Self { service, served, readers, clock, process, trigger }
    }

    /// Starts a service in a new directory.
    pub(crate) async fn start() -> (Self, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Self::open(dir.path(), noon(), None).await, dir)
    }

    /// Starts a service in a new directory; `nemesis` decides about each commit.
    pub(crate) async fn start_under(nemesis: Arc<dyn Nemesis>) -> (Self, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Self::open(dir.path(), noon(), Some(nemesis)).await, dir)
    }

    /// Stops the service and closes its database.
    pub(crate) async fn stop(self) {
        let Self { service, process, trigger, .. } = self;
        trigger.request();
        let Service { database, consumers, places, versions: _, follower } = service;
        drop((consumers, places, follower));
        assert_eq!(process.tasks.shutdown(Duration::from_secs(20)).await, Vec::<&str>::new());
        database.close().await;
    }

    /// The date so many days after today, in the hospitals' time zone.
    pub(crate) fn day(&self, days: i32) -> Date {
        self.clock.now().to_zoned(TimeZone::get(ZONE).unwrap()).date() + days.days()
    }

    /// The service's current time.
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    pub(crate) async fn admin(&self) -> Party {
        self.served.admin().await
    }

    pub(crate) async fn admin_of(&self, hospitals: &str) -> Party {
        self.served.party(Some(self.served.tokens().admin("lee", hospitals))).await
    }

    pub(crate) async fn anybody(&self) -> Party {
        self.served.party(None).await
    }

    pub(crate) async fn screening(&self) -> Party {
        self.served.service("screening").await
    }

    pub(crate) async fn marketing(&self) -> Party {
        self.served.service("marketing").await
    }

    /// The request for a hospital with slots of this capacity on these days from today.
    pub(crate) fn draft(&self, id: &str, days: &[i32], capacity: i32) -> CreateHospitalRequest {
        let slot = |days: &i32| Slot { date: Some(day_of(self.day(*days))), capacity, ..Slot::default() };
        CreateHospitalRequest {
            hospital: Some(Hospital {
                display_name: format!("Hospital {id}"),
                time_zone: ZONE.into(),
                ..Hospital::default()
            }),
            hospital_id: id.into(),
            initial_slots: days.iter().map(slot).collect(),
            request_id: String::new(),
        }
    }

    /// Creates the hospital of [`House::draft`]. Returns the names of its slots.
    pub(crate) async fn hospital(&self, id: &str, days: &[i32], capacity: i32) -> Vec<String> {
        let request = self.draft(id, days, capacity);
        self.admin().await.hospital().create_hospital(request).await.unwrap();
        days.iter().map(|days| format!("hospitals/{id}/slots/{}", self.day(*days))).collect()
    }

    /// Creates a hospital with one slot tomorrow. Returns the slot's name.
    pub(crate) async fn slot(&self, id: &str, capacity: i32) -> String {
        self.hospital(id, &[1], capacity).await.remove(0)
    }

    /// Every event so far, in the order of the outbox.
    pub(crate) async fn events(&self) -> Vec<EventEnvelope> {
        let mut events = Vec::new();
        let mut position = 0;
        loop {
            let rows = store::outbox::read_after(self.service.database.reader(), position, 1_000).await.unwrap();
            let Some(last) = rows.last() else { return events };
            position = last.position;
            events.extend(rows.iter().flat_map(|row| Opened::new(&row.payload).decode().unwrap()));
        }
    }

    /// Every event so far. Checks that versions per aggregate have no gap, ids are unique, and no slot is overbooked.
    pub(crate) async fn sound_events(&self) -> Vec<EventEnvelope> {
        let events = self.events().await;
        let mut versions: BTreeMap<&str, i64> = BTreeMap::new();
        let mut ids = HashSet::new();
        for event in &events {
            let version = versions.entry(&event.aggregate).or_insert(0);
            assert_eq!(event.aggregate_version, *version + 1, "{} skips or repeats a version", event.aggregate);
            *version += 1;
            assert!(ids.insert(&event.event_id), "an event id is there twice");
            assert_eq!(event.producer, "hospital");
            if let Some((capacity, booked, remaining)) = counts(event.payload.as_ref().unwrap()) {
                assert!((0..=capacity).contains(&booked), "{event:?}");
                assert_eq!(remaining, capacity - booked);
            }
            if let Some(Payload::CapacityReserved(fact)) = &event.payload {
                assert!(fact.from_waitlist || fact.waitlisted_count == 0, "in front of the queue: {fact:?}");
            }
        }
        events
    }
}

/// The capacity, booked and remaining places in an event about a claim.
fn counts(payload: &Payload) -> Option<(i32, i32, i32)> {
    match payload {
        Payload::CapacityReserved(fact) => Some((fact.capacity, fact.booked_count, fact.remaining_count)),
        Payload::CapacityReleased(fact) => Some((fact.capacity, fact.booked_count, fact.remaining_count)),
        Payload::CapacityRevoked(fact) => Some((fact.capacity, fact.booked_count, fact.remaining_count)),
        Payload::CapacityWaitlisted(fact) => Some((fact.capacity, fact.booked_count, fact.remaining_count)),
        _ => None,
    }
}

/// How many events each fact has.
pub(crate) fn facts(events: &[EventEnvelope]) -> BTreeMap<&'static str, usize> {
    let mut facts = BTreeMap::new();
    for event in events {
        *facts.entry(domain::event::fact(event.payload.as_ref().unwrap()).1).or_insert(0) += 1;
    }
    facts
}

/// A claim id made from a number.
pub(crate) fn claim(number: u128) -> String {
    format!("{}.1", Uuid::from_u128(number))
}

/// A fresh request_id.
pub(crate) fn request_id() -> String {
    entropy::uuid_v4().to_string()
}

pub(crate) async fn reserve(party: &Party, slot: &str, claim_id: &str) -> Result<CapacityClaim, Status> {
    let request = ReserveCapacityRequest { slot: slot.into(), claim_id: claim_id.into(), allow_waitlist: false };
    party.capacity().reserve_capacity(request).await.map(Response::into_inner)
}

/// Asks for a place, or for a ticket where none is left.
pub(crate) async fn join(party: &Party, slot: &str, claim_id: &str) -> Result<CapacityClaim, Status> {
    let request = ReserveCapacityRequest { slot: slot.into(), claim_id: claim_id.into(), allow_waitlist: true };
    party.capacity().reserve_capacity(request).await.map(Response::into_inner)
}

pub(crate) async fn release(party: &Party, slot: &str, claim_id: &str) -> Result<CapacityClaim, Status> {
    let request = ReleaseCapacityRequest { slot: slot.into(), claim_id: claim_id.into() };
    party.capacity().release_capacity(request).await.map(Response::into_inner)
}

pub(crate) async fn get_slot(party: &Party, name: &str) -> Slot {
    party.hospital().get_slot(GetSlotRequest { name: name.into() }).await.unwrap().into_inner()
}

pub(crate) async fn get_hospital(party: &Party, name: &str) -> Hospital {
    party.hospital().get_hospital(GetHospitalRequest { name: name.into() }).await.unwrap().into_inner()
}

/// Every claim of a slot that matches the filter, read page by page.
pub(crate) async fn claims(party: &Party, slot: &str, filter: &str) -> Vec<CapacityClaim> {
    let mut request = ListCapacityClaimsRequest {
        slot: slot.into(),
        page_size: 900,
        page_token: String::new(),
        filter: filter.into(),
    };
    let mut claims = Vec::new();
    loop {
        let page = party.capacity().list_capacity_claims(request.clone()).await.unwrap().into_inner();
        claims.extend(page.claims);
        if page.next_page_token.is_empty() {
            return claims;
        }
        request.page_token = page.next_page_token;
    }
}

/// Asserts that the slot's counts agree with its claims.
pub(crate) async fn assert_slot_adds_up(party: &Party, slot: &str) -> Slot {
    let active = claims(party, slot, "state=ACTIVE").await.len();
    let waiting = claims(party, slot, "state=WAITING").await.len();
    let slot = get_slot(party, slot).await;
    assert_eq!(usize::try_from(slot.booked_count).unwrap(), active);
    assert_eq!(usize::try_from(slot.waitlisted_count).unwrap(), waiting);
    assert_eq!(slot.remaining_count, slot.capacity - slot.booked_count);
    slot
}

pub(crate) fn hours(hours: i64) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds: SignedDuration::from_hours(hours).as_secs(), nanos: 0 })
}
