//! A marketing service in this process with its own port and directory, and events to feed it.

use std::path::Path;
use std::time::Duration;

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    CapacityReleased, CapacityReserved, CapacityRevoked, CapacityWaitlisted, EventEnvelope, HospitalDeleted,
    HospitalDeletionStarted, HospitalRegistered, ScreeningConfirmed, ScreeningRefused, ScreeningRescheduled,
    ScreeningSnapshot, SlotCapacityChanged, SlotClosed, SlotOpened,
};
use contract::marketing::v1::{DemandSignal, ListDemandSignalsRequest};
use domain::civil::encode_time;
use jiff::SignedDuration;
use marketing::{Deps, Options, Service};
use relay::{Handler, Incoming};
use runtime::Process;
use runtime::client::{ClientOptions, Replicas};
use runtime::clock::Clock;
use runtime::entropy::uuid_v4;
use runtime::identity::{Signer, TokenSource, Verifier};
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::server::{Server, ServerOptions};
use runtime::tasks::Kind;
use store::Location;
use store::inbox::InboxKey;
use tempfile::TempDir;
use testkit::{Party, Served, Tokens, in_days, slot_name};
use tokio::net::TcpListener;
use tonic::Status;

/// A running marketing service.
pub(crate) struct House {
    pub(crate) service: Service,
    pub(crate) served: Served,
    process: Process,
    trigger: DrainTrigger,
}

/// The configuration of a test's service.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plan {
    pub(crate) options: Options,
    pub(crate) shift: SignedDuration,
    /// The address of Hospital. `None`: nothing listens there.
    pub(crate) hospital: Option<String>,
}

impl House {
    /// Starts a service on the database in this directory.
    pub(crate) async fn open(dir: &Path, plan: Plan) -> Self {
        let signer = Signer::load_or_create(dir).unwrap();
        let (trigger, drain) = drain_pair();
        let process = Process::new(Clock::shifted(plan.shift), drain.clone());
        let verifier = Verifier::from_jwks(&signer.jwks()).unwrap();
        let mut server = Server::new(ServerOptions::default(), verifier, Clock::system());
        // nobody listens on the discard port
        let hospital = plan.hospital.unwrap_or_else(|| "http://127.0.0.1:9".into());
        let deps = Deps {
            location: Location::Sqlite(dir.join("marketing.db")),
            process: process.clone(),
            hospital: Replicas::connect(&[hospital.parse().unwrap()], ClientOptions::default()),
            token: TokenSource::minted(signer, marketing::NAME),
        };
        let service = marketing::build(plan.options, deps, &mut server).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = Served::new(listener.local_addr().unwrap(), Tokens::of(dir));
        process.tasks.spawn(Kind::Essential, "server", server.run(listener, drain));
        Self { service, served, process, trigger }
    }

    /// Starts a service in a new directory.
    pub(crate) async fn start(plan: Plan) -> (Self, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Self::open(dir.path(), plan).await, dir)
    }

    /// Stops the service and closes its database.
    pub(crate) async fn stop(self) {
        let Self { service, process, trigger, .. } = self;
        trigger.request();
        let Service { database, consumers } = service;
        drop(consumers);
        assert_eq!(process.tasks.shutdown(Duration::from_secs(20)).await, Vec::<&str>::new());
        database.close().await;
    }

    /// The handler of this producer's events.
    pub(crate) fn handler(&self, producer: &str) -> &dyn Handler {
        let name = format!("marketing-{producer}");
        let consumer = self.service.consumers.iter().find(|consumer| consumer.name == name).unwrap();
        consumer.handler.as_ref()
    }

    /// Gives each consumer the events of its producer as one batch.
    pub(crate) async fn feed(&self, events: &[EventEnvelope]) {
        for producer in ["hospital", "screening"] {
            let own = events.iter().filter(|event| event.producer == producer);
            self.handler(producer).handle(&own.map(incoming).collect::<Vec<_>>()).await.unwrap();
        }
    }
}

/// An event as a transport without order delivers it.
pub(crate) fn incoming(envelope: &EventEnvelope) -> Incoming {
    let event_id = envelope.event_id.parse().unwrap();
    Incoming { envelope: envelope.clone(), event_id, inbox_key: InboxKey::alone(event_id) }
}

/// The time zone of every hospital.
pub(crate) const ZONE: &str = "Asia/Seoul";

/// The slot of `hospitals/{hospital}` `days` days from today.
pub(crate) fn slot(hospital: &str, days: i32) -> String {
    slot_name(&format!("hospitals/{hospital}"), in_days(ZONE, days))
}

/// An event that happened so many hours ago.
pub(crate) fn event(producer: &str, hours_ago: i64, payload: Payload) -> EventEnvelope {
    EventEnvelope {
        event_id: uuid_v4().to_string(),
        aggregate_version: 1,
        occur_time: Some(encode_time(Clock::system().now() - SignedDuration::from_hours(hours_ago))),
        producer: producer.into(),
        payload: Some(payload),
        ..EventEnvelope::default()
    }
}

pub(crate) fn registered(hospital: &str) -> EventEnvelope {
    let hospital = format!("hospitals/{hospital}");
    let payload = HospitalRegistered {
        hospital,
        display_name: "A hospital".into(),
        time_zone: ZONE.into(),
        ..Default::default()
    };
    event("hospital", 0, Payload::HospitalRegistered(payload))
}

pub(crate) fn deletion(hospital: &str) -> [EventEnvelope; 2] {
    let hospital = format!("hospitals/{hospital}");
    let started = HospitalDeletionStarted { hospital: hospital.clone(), ..HospitalDeletionStarted::default() };
    let ended = HospitalDeleted { hospital, ..HospitalDeleted::default() };
    [
        event("hospital", 0, Payload::HospitalDeletionStarted(started)),
        event("hospital", 0, Payload::HospitalDeleted(ended)),
    ]
}

/// How many facts report places.
pub(crate) const FACTS: u64 = 7;

/// An event of Hospital about a slot of this version, for whose places nobody waits. `word` chooses the fact.
pub(crate) fn places(slot: &str, slot_version: i64, capacity: i32, booked_count: i32, word: u64) -> EventEnvelope {
    queue(slot, slot_version, [capacity, booked_count, 0], word)
}

/// [`places`] for which so many wait.
pub(crate) fn queue(slot: &str, slot_version: i64, counts: [i32; 3], word: u64) -> EventEnvelope {
    let (slot, [capacity, booked_count, waitlisted_count]) = (slot.to_owned(), counts);
    macro_rules! fact {
        ($name:ident { $($capacity:tt)* }) => {
            Payload::$name($name { slot, slot_version, $($capacity)*, booked_count, waitlisted_count, ..$name::default() })
        };
    }
    let payload = match word % FACTS {
        0 => fact!(SlotOpened { capacity }),
        1 => fact!(SlotCapacityChanged { new_capacity: capacity }),
        2 => fact!(SlotClosed { capacity }),
        3 => fact!(CapacityReserved { capacity }),
        4 => fact!(CapacityReleased { capacity }),
        5 => fact!(CapacityRevoked { capacity }),
        _ => fact!(CapacityWaitlisted { capacity }),
    };
    event("hospital", 1, payload)
}

pub(crate) fn booked(slot: &str, hours_ago: i64) -> EventEnvelope {
    let screening = Some(ScreeningSnapshot {
        screening: format!("screenings/{}", uuid_v4()),
        customer: "customers/kim".into(),
        slot: slot.into(),
        ..ScreeningSnapshot::default()
    });
    let confirmed = ScreeningConfirmed { screening, ..ScreeningConfirmed::default() };
    event("screening", hours_ago, Payload::ScreeningConfirmed(confirmed))
}

/// The two facts of a booking that moves to this slot, where it has a claim of this generation.
pub(crate) fn moved(booked: &EventEnvelope, slot: &str, claim_generation: i32, hours_ago: i64) -> [EventEnvelope; 2] {
    let Some(Payload::ScreeningConfirmed(ScreeningConfirmed { screening: Some(before), .. })) = &booked.payload else {
        panic!("not a booking: {booked:?}")
    };
    let screening = Some(ScreeningSnapshot { slot: slot.into(), claim_generation, ..before.clone() });
    let reason = String::from("CUSTOMER_REQUEST");
    let moved = ScreeningRescheduled {
        screening: screening.clone(),
        previous_slot: before.slot.clone(),
        reason: reason.clone(),
        ..ScreeningRescheduled::default()
    };
    let confirmed = ScreeningConfirmed { screening, reason, message: String::new() };
    [Payload::ScreeningRescheduled(moved), Payload::ScreeningConfirmed(confirmed)]
        .map(|payload| event("screening", hours_ago, payload))
}

pub(crate) fn refusals(slot: &str, count: i64, hours_ago: i64) -> EventEnvelope {
    let payload = ScreeningRefused { slot: slot.into(), reason: "SLOT_FULL".into(), count, ..Default::default() };
    event("screening", hours_ago, Payload::ScreeningRefused(payload))
}

/// Every signal, read in pages of three.
pub(crate) async fn list(party: &Party, filter: &str, order_by: &str) -> Result<Vec<DemandSignal>, Status> {
    let mut request = ListDemandSignalsRequest {
        filter: filter.into(),
        order_by: order_by.into(),
        page_size: 3,
        ..ListDemandSignalsRequest::default()
    };
    let mut found = Vec::new();
    loop {
        let page = party.marketing().list_demand_signals(request.clone()).await?.into_inner();
        found.extend(page.signals);
        if page.next_page_token.is_empty() {
            return Ok(found);
        }
        request.page_token = page.next_page_token;
    }
}
