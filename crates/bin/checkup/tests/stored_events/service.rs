//! One service in this process on a new SQLite database, an hour after the samples were stored.

use std::path::PathBuf;
use std::time::Duration;

use contract::capacity::v1::ReserveCapacityRequest;
use contract::event::v1::EventEnvelope;
use contract::hospital::v1::{CreateHospitalRequest, Hospital, Slot};
use domain::event::subject;
use domain::ids::{CustomerId, ScreeningId, SlotId};
use domain::screening::{Screening, State, Terms};
use jiff::Timestamp;
use relay::{Consumer, Incoming};
use runtime::Process;
use runtime::client::{ClientOptions, Replicas};
use runtime::clock::Clock;
use runtime::identity::{Signer, TokenSource, Verifier};
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::server::{Server, ServerOptions};
use runtime::tasks::Kind;
use store::inbox::InboxKey;
use store::{Database, Location};
use tempfile::TempDir;
use testkit::{Served, Tokens};
use tokio::net::TcpListener;

pub(crate) const SERVICES: [&str; 5] =
    [hospital::NAME, screening::NAME, reservation::NAME, mypage::NAME, marketing::NAME];

/// When the samples occurred, in seconds since 1970.
pub(crate) const OCCURRED: i64 = 1_798_761_600;
/// An hour later.
const NOW: i64 = OCCURRED + 3_600;
/// The booking of the samples.
const SCREENING: &str = "screenings/0190c8e2-7d1a-7a3e-9c55-2f6b1d04a7e1";
const SLOT: &str = "hospitals/seoul-north/slots/2027-03-02";

/// A service that runs.
pub(crate) struct Running {
    database: Database,
    consumers: Vec<Consumer>,
    process: Process,
    trigger: DrainTrigger,
    served: Served,
    dir: TempDir,
    name: &'static str,
}

fn clock() -> Clock {
    let now = Timestamp::from_second(NOW).expect("a timestamp");
    Clock::shifted(now.duration_since(Clock::system().now()))
}

impl Running {
    /// Starts a service on a new database, which holds the booking or nothing. The views hold no booking: they learn of
    /// it by events.
    pub(crate) async fn open(name: &'static str, booked: bool) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join(format!("{name}.db"));
        if booked && name == screening::NAME {
            book(&Location::Sqlite(file.clone())).await;
        }
        let signer = Signer::load_or_create(dir.path()).expect("a key");
        let (trigger, drain) = drain_pair();
        let process = Process::new(clock(), drain.clone());
        let verifier = Verifier::from_jwks(&signer.jwks()).expect("its public key");
        let mut server = Server::new(ServerOptions::default(), verifier, Clock::system());
        let (database, consumers) = build(name, Location::Sqlite(file), &process, signer, &mut server).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let served = Served::new(listener.local_addr().expect("its address"), Tokens::of(dir.path()));
        process.tasks.spawn(Kind::Essential, "server", server.run(listener, drain));
        let running = Self { database, consumers, process, trigger, served, dir, name };
        if booked && name == hospital::NAME {
            running.take_the_place().await;
        }
        running
    }

    pub(crate) async fn stop(self) {
        let Self { database, consumers, process, trigger, served: _, dir: _, name: _ } = self;
        trigger.request();
        drop(consumers);
        assert_eq!(process.tasks.shutdown(Duration::from_secs(20)).await, Vec::<&str>::new());
        database.close().await;
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Its database.
    pub(crate) fn file(&self) -> PathBuf {
        self.dir.path().join(format!("{}.db", self.name))
    }

    fn consumer(&self, event: &EventEnvelope) -> Option<&Consumer> {
        let subject = subject(event);
        let matches = |filter: &String| filter.strip_suffix('*').is_some_and(|kind| subject.starts_with(kind));
        self.consumers.iter().find(|consumer| consumer.filter.iter().any(matches))
    }

    /// Whether one of its consumers gets such an event.
    pub(crate) fn reads(&self, event: &EventEnvelope) -> bool {
        self.consumer(event).is_some()
    }

    /// Gives it the event, as a transport without order does.
    pub(crate) async fn apply(&self, event: &EventEnvelope) {
        let event_id = event.event_id.parse().expect("a UUID");
        let incoming = Incoming { envelope: event.clone(), event_id, inbox_key: InboxKey::alone(event_id) };
        let handler = &self.consumer(event).expect("a consumer").handler;
        handler.handle(&[incoming]).await.unwrap_or_else(|fault| panic!("{} refuses {event:?}: {fault:?}", self.name));
    }

    /// Registers the hospital of the samples, and takes a place for their booking.
    async fn take_the_place(&self) {
        let date = SlotId::parse(SLOT).expect("a slot").date;
        let request = CreateHospitalRequest {
            hospital_id: "seoul-north".into(),
            hospital: Some(Hospital {
                display_name: "서울북부검진센터".into(),
                time_zone: "Asia/Seoul".into(),
                ..Hospital::default()
            }),
            initial_slots: vec![Slot { date: Some(testkit::day_of(date)), capacity: 40, ..Slot::default() }],
            ..CreateHospitalRequest::default()
        };
        self.served.admin().await.hospital().create_hospital(request).await.expect("a hospital");
        let claim_id = format!("{}.1", SCREENING.trim_start_matches("screenings/"));
        let request = ReserveCapacityRequest { slot: SLOT.into(), claim_id, ..ReserveCapacityRequest::default() };
        self.served.service("screening").await.capacity().reserve_capacity(request).await.expect("a place");
    }
}

async fn build(
    name: &str,
    location: Location,
    process: &Process,
    signer: Signer,
    server: &mut Server,
) -> (Database, Vec<Consumer>) {
    let process = process.clone();
    // Nobody answers there, and nothing that an event causes asks.
    let hospital = || Replicas::connect(&["http://127.0.0.1:1".parse().expect("an address")], ClientOptions::default());
    match name {
        hospital::NAME => {
            let deps = hospital::Deps { location, process };
            let built = hospital::build(hospital::Options::default(), deps, server).await.expect("hospital");
            (built.database, built.consumers)
        }
        screening::NAME => {
            let token = TokenSource::minted(signer, "screening");
            let deps = screening::Deps { location, process, hospital: hospital(), places: None, token };
            // longer than any test: a claim without a booking stays one
            let reconcile_grace = Duration::from_secs(3_600);
            let options = screening::Options { reconcile_grace, ..screening::Options::default() };
            let built = screening::build(options, deps, server).await.expect("screening");
            (built.database, built.consumers)
        }
        reservation::NAME => {
            let deps = reservation::Deps { location, process };
            let built = reservation::build(reservation::Options::default(), deps, server).await.expect("reservation");
            (built.database, built.consumers)
        }
        mypage::NAME => {
            let deps = mypage::Deps { location, process };
            let built = mypage::build(mypage::Options::default(), deps, server).await.expect("mypage");
            (built.database, built.consumers)
        }
        marketing::NAME => {
            let token = TokenSource::minted(signer, "marketing");
            let deps = marketing::Deps { location, process, hospital: hospital(), token };
            let built = marketing::build(marketing::Options::default(), deps, server).await.expect("marketing");
            (built.database, built.consumers)
        }
        _ => panic!("there is no service {name}"),
    }
}

/// Stores the booking of the samples in Screening's database, CONFIRMED as its version 2. A call would choose its own
/// id, so what a recovery restores is used.
async fn book(location: &Location) {
    let database = Database::open::<screening::Migrator>(location).await.expect("a database");
    let time = Timestamp::from_second(OCCURRED).expect("a timestamp");
    let booking = Screening {
        id: ScreeningId::parse(SCREENING).expect("a screening"),
        customer: CustomerId::from_segment("c-17").ok(),
        customer_display_name: String::new(),
        slot: SlotId::parse(SLOT).expect("a slot"),
        terms: Terms {
            hospital_display_name: "서울북부검진센터".into(),
            time_zone: "Asia/Seoul".into(),
            ..Terms::default()
        },
        state: State::Confirmed,
        state_reason: String::new(),
        state_message: String::new(),
        given_up: None,
        joins_waitlist: false,
        queued: None,
        generation: 1,
        fenced_generation: 0,
        reschedule_count: 0,
        version: 2,
        create_time: time,
        update_time: time,
    };
    let known = screening::recovery::Known { bookings: vec![booking], ..screening::recovery::Known::default() };
    screening::recovery::recover(&database, known, clock()).await.expect("restored");
    database.close().await;
}
