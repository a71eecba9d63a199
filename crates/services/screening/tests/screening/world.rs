//! A screening service in this process with its own directory, a fake Hospital behind a connection that can break, and
//! the delivery of events between the two.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use contract::screening::v1 as message;
use domain::frame::Opened;
use domain::ids::{ClaimId, CustomerId, HospitalId, ScreeningId, SlotId};
use jiff::SignedDuration;
use jiff::civil::Date;
use message::screening::State;
use relay::Incoming;
use runtime::Process;
use runtime::client::{ClientOptions, Replicas};
use runtime::clock::Clock;
use runtime::entropy::uuid_v4;
use runtime::identity::{Signer, TokenSource, Verifier};
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::server::{Server, ServerOptions};
use runtime::tasks::Kind;
use screening::{Deps, Migrator, Options, Service};
use store::inbox::InboxKey;
use store::{Database, Location};
use tempfile::TempDir;
use testkit::{FaultProxy, Party, Served, Tokens, eventually};
use tokio::net::TcpListener;
use tonic::Status;

use crate::hospital::FakeHospital;

/// A grace that is longer than any test.
const NEVER: Duration = Duration::from_secs(3_600);

/// The default options of the tests: short timeouts, and a grace that never passes.
pub(crate) fn options() -> Options {
    Options {
        hospital_timeout: Duration::from_secs(2),
        hospital_attempt: Duration::from_secs(1),
        reconcile_grace: NEVER,
        resolve_pause: Duration::from_millis(200),
        report_interval: Duration::from_millis(50),
        ..Options::default()
    }
}

/// A running screening service.
pub(crate) struct Desk {
    pub(crate) service: Service,
    pub(crate) served: Served,
    process: Process,
    trigger: DrainTrigger,
}

/// Everything that a test works with.
pub(crate) struct World {
    pub(crate) hospital: FakeHospital,
    pub(crate) wire: FaultProxy,
    pub(crate) desk: Desk,
    delivered: Mutex<(HashSet<String>, i64)>,
    location: Location,
    dir: TempDir,
}

async fn open(dir: &Path, location: Location, options: Options, clock: Clock, hospital: &str) -> Desk {
    let signer = Signer::load_or_create(dir).unwrap();
    let (trigger, drain) = drain_pair();
    let process = Process::new(clock, drain.clone());
    let verifier = Verifier::from_jwks(&signer.jwks()).unwrap();
    let mut server = Server::new(ServerOptions::default(), verifier, Clock::system());
    let deps = Deps {
        location,
        process: process.clone(),
        hospital: Replicas::connect(&[hospital.parse().unwrap()], ClientOptions::default()),
        places: None,
        token: TokenSource::minted(signer, "screening"),
    };
    let service = screening::build(options, deps, &mut server).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let served = Served::new(listener.local_addr().unwrap(), Tokens::of(dir));
    process.tasks.spawn(Kind::Essential, "server", server.run(listener, drain));
    Desk { service, served, process, trigger }
}

impl Desk {
    /// Gives this replica these events of Hospital, as a transport without order does.
    pub(crate) async fn feed(&self, events: &[EventEnvelope]) {
        let batch = events.iter().map(|envelope| {
            let event_id = envelope.event_id.parse().unwrap();
            Incoming { envelope: envelope.clone(), event_id, inbox_key: InboxKey::alone(event_id) }
        });
        self.service.consumers[0].handler.handle(&batch.collect::<Vec<_>>()).await.unwrap();
    }

    pub(crate) async fn stop(self) {
        let Self { service, process, trigger, served: _ } = self;
        trigger.request();
        let Service { database, consumers, versions: _ } = service;
        drop(consumers);
        assert_eq!(process.tasks.shutdown(Duration::from_secs(20)).await, Vec::<&str>::new());
        database.close().await;
    }
}

impl World {
    pub(crate) async fn start() -> Self {
        Self::start_with(options()).await
    }

    pub(crate) async fn start_with(options: Options) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let location = Location::Sqlite(dir.path().join("screening.db"));
        Self::start_on(location, dir, options).await
    }

    /// Starts one replica on a PostgreSQL database, and migrates that first.
    pub(crate) async fn start_shared(database: String, options: Options) -> Self {
        let location = Location::Postgres(database);
        Database::migrate::<Migrator>(&location).await.unwrap();
        Self::start_on(location, tempfile::tempdir().unwrap(), options).await
    }

    async fn start_on(location: Location, dir: TempDir, options: Options) -> Self {
        let (hospital, addr) = FakeHospital::start(Clock::system()).await;
        let wire = FaultProxy::start().await;
        wire.forward_to(addr);
        let desk = open(dir.path(), location.clone(), options, Clock::system(), &wire.uri()).await;
        Self { hospital, wire, desk, delivered: Mutex::default(), location, dir }
    }

    /// Starts another replica on the same database, which has to be shared. The test stops it.
    pub(crate) async fn replica(&self, options: Options) -> Desk {
        self.replica_later(options, SignedDuration::ZERO).await
    }

    /// Like [`Self::replica`], with its clock this much ahead.
    pub(crate) async fn replica_later(&self, options: Options, later: SignedDuration) -> Desk {
        open(self.dir.path(), self.location.clone(), options, Clock::shifted(later), &self.wire.uri()).await
    }

    pub(crate) async fn stop(self) {
        self.desk.stop().await;
    }

    /// Stops the service and starts it again on the same directory, with its clock this much ahead.
    pub(crate) async fn restarted(self, options: Options, later: SignedDuration) -> Self {
        let Self { hospital, wire, desk, delivered, location, dir } = self;
        desk.stop().await;
        let desk = open(dir.path(), location.clone(), options, Clock::shifted(later), &wire.uri()).await;
        Self { hospital, wire, desk, delivered, location, dir }
    }

    pub(crate) async fn customer(&self, id: &str) -> Party {
        self.desk.served.customer(id).await
    }

    pub(crate) async fn admin(&self, hospitals: &str) -> Party {
        self.desk.served.party(Some(self.desk.served.tokens().admin("lee", hospitals))).await
    }

    /// Opens a slot some days from now, and creates its hospital if it does not exist.
    pub(crate) fn slot(&self, hospital: &str, days: i64, capacity: i32) -> SlotId {
        let slot = slot(hospital, days);
        self.hospital.open(&slot, capacity);
        slot
    }

    /// Every event of this service so far.
    pub(crate) async fn announced(&self) -> Vec<EventEnvelope> {
        let rows = store::outbox::read_after(self.desk.service.database.reader(), 0, 10_000).await.unwrap();
        rows.iter().flat_map(|row| Opened::new(&row.payload).decode().unwrap()).collect()
    }

    /// The events of one screening, in order.
    pub(crate) async fn facts_of(&self, name: &str) -> Vec<EventEnvelope> {
        let mut events = self.announced().await;
        events.retain(|event| event.aggregate == name);
        events
    }

    /// Gives the service these events of Hospital, as a transport without order does.
    pub(crate) async fn feed(&self, events: &[EventEnvelope]) {
        self.desk.feed(events).await;
    }

    /// Delivers every event that is not delivered yet, in both directions.
    pub(crate) async fn deliver(&self) {
        let (mut known, position) = self.delivered.lock().unwrap().clone();
        let mut unseen = self.hospital.events();
        unseen.retain(|event| known.insert(event.event_id.clone()));
        self.feed(&unseen).await;
        let rows = store::outbox::read_after(self.desk.service.database.reader(), position, 10_000).await.unwrap();
        for event in rows.iter().flat_map(|row| Opened::new(&row.payload).decode().unwrap()) {
            let (slot, claim) = match event.payload.unwrap() {
                Payload::ScreeningRejected(fact) => (fact.screening.unwrap().slot, fact.claim_id),
                Payload::ScreeningCancelled(fact) => (fact.screening.unwrap().slot, fact.claim_id),
                Payload::ScreeningWaitlistEnded(fact) => (fact.screening.unwrap().slot, fact.claim_id),
                Payload::ScreeningRescheduled(fact) => (fact.previous_slot, fact.released_claim_id),
                _ => continue,
            };
            let slot = SlotId::parse(&slot).unwrap();
            self.hospital.hear_of_the_end(&slot, ClaimId::parse(&claim).unwrap());
        }
        let position = rows.last().map_or(position, |row| row.position);
        *self.delivered.lock().unwrap() = (known, position);
    }

    /// Waits until a screening is in this state.
    pub(crate) async fn becomes(&self, party: &Party, name: &str, state: State) -> message::Screening {
        eventually(&format!("{name} to be {state:?}"), async || {
            let seen = read(party, name).await.map_err(|status| format!("{status:?}"))?;
            if seen.state() == state { Ok(seen) } else { Err(format!("{seen:?}")) }
        })
        .await
    }
}

/// The id of a slot some days from now, in the hospitals' time zone.
pub(crate) fn slot(hospital: &str, days: i64) -> SlotId {
    let days = i32::try_from(days).unwrap();
    SlotId::new(HospitalId::from_segment(hospital).unwrap(), testkit::in_days("Asia/Seoul", days))
}

/// How far this hour of a date in Seoul is from now, for clocks that are to show it.
pub(crate) fn until(date: Date, hour: i8) -> SignedDuration {
    let there = date.at(hour, 0, 0, 0).in_tz("Asia/Seoul").unwrap().timestamp();
    there.duration_since(Clock::system().now())
}

/// A request to book, without a request_id.
pub(crate) fn ask(customer: &str, slot: &SlotId) -> message::CreateScreeningRequest {
    message::CreateScreeningRequest {
        screening: Some(message::Screening {
            customer: CustomerId::from_segment(customer).unwrap().to_string(),
            slot: slot.to_string(),
            ..message::Screening::default()
        }),
        ..message::CreateScreeningRequest::default()
    }
}

/// Like [`ask`], with a fresh request_id.
pub(crate) fn ask_once(customer: &str, slot: &SlotId) -> message::CreateScreeningRequest {
    message::CreateScreeningRequest { request_id: uuid_v4().to_string(), ..ask(customer, slot) }
}

/// Like [`ask_once`], with accept_pending.
pub(crate) fn ask_patiently(customer: &str, slot: &SlotId) -> message::CreateScreeningRequest {
    message::CreateScreeningRequest { accept_pending: true, ..ask_once(customer, slot) }
}

/// Like [`ask_once`], with join_waitlist.
pub(crate) fn ask_to_wait(customer: &str, slot: &SlotId) -> message::CreateScreeningRequest {
    message::CreateScreeningRequest { join_waitlist: true, ..ask_once(customer, slot) }
}

pub(crate) async fn book(
    party: &Party,
    request: message::CreateScreeningRequest,
) -> Result<message::Screening, Status> {
    party.screening().create_screening(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn read(party: &Party, name: &str) -> Result<message::Screening, Status> {
    let request = message::GetScreeningRequest { name: name.to_owned() };
    party.screening().get_screening(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn cancel(party: &Party, name: &str) -> Result<message::Screening, Status> {
    let request =
        message::CancelScreeningRequest { name: name.to_owned(), ..message::CancelScreeningRequest::default() };
    party.screening().cancel_screening(request).await.map(tonic::Response::into_inner)
}

/// A request to move a booking to a slot, without a request_id.
pub(crate) fn ask_to_move(name: &str, slot: &SlotId) -> message::RescheduleScreeningRequest {
    message::RescheduleScreeningRequest {
        name: name.to_owned(),
        slot: slot.to_string(),
        ..message::RescheduleScreeningRequest::default()
    }
}

/// Like [`ask_to_move`], with a fresh request_id.
pub(crate) fn ask_to_move_once(name: &str, slot: &SlotId) -> message::RescheduleScreeningRequest {
    message::RescheduleScreeningRequest { request_id: uuid_v4().to_string(), ..ask_to_move(name, slot) }
}

pub(crate) async fn reschedule(
    party: &Party,
    request: message::RescheduleScreeningRequest,
) -> Result<message::Screening, Status> {
    party.screening().reschedule_screening(request).await.map(tonic::Response::into_inner)
}

pub(crate) async fn list(party: &Party, filter: &str) -> Result<Vec<message::Screening>, Status> {
    let request =
        message::ListScreeningsRequest { filter: filter.to_owned(), ..message::ListScreeningsRequest::default() };
    party.screening().list_screenings(request).await.map(|answer| answer.into_inner().screenings)
}

pub(crate) fn claim(screening: &message::Screening) -> ClaimId {
    ClaimId { screening: ScreeningId::parse(&screening.name).unwrap(), generation: screening.claim_generation }
}

/// The claim that the next move of a booking asks for, if no move was fenced.
pub(crate) fn next_claim(screening: &message::Screening) -> ClaimId {
    ClaimId { generation: screening.claim_generation + 1, ..claim(screening) }
}

/// The names of the events' facts, in order.
pub(crate) fn names(events: &[EventEnvelope]) -> Vec<&'static str> {
    events.iter().map(|event| domain::event::fact(event.payload.as_ref().unwrap()).1).collect()
}
