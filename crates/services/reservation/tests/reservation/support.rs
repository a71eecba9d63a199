//! A reservation service in this process with its own port and directory, and events to feed it.

use std::path::Path;
use std::time::Duration;

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    EventEnvelope, ScreeningAttendanceRecorded, ScreeningCancelled, ScreeningConfirmed, ScreeningForceCancelled,
    ScreeningPending, ScreeningRejected, ScreeningRescheduled, ScreeningSnapshot, ScreeningWaitlistEnded,
    ScreeningWaitlisted,
};
use contract::reservation::v1::reservation::State;
use contract::reservation::v1::{
    GetReservationRequest, ListReservationHistoryRequest, Reservation, ReservationHistoryEntry,
};
use domain::ids::ScreeningId;
use domain::token::ConsistencyToken;
use relay::{Handler, Incoming};
use reservation::{Deps, Options, Service};
use runtime::Process;
use runtime::clock::Clock;
use runtime::identity::{Signer, Verifier};
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::server::{Server, ServerOptions};
use runtime::tasks::Kind;
use store::Location;
use store::inbox::InboxKey;
use tempfile::TempDir;
use testkit::{Party, Random, Served, Tokens};
use tokio::net::TcpListener;
use tonic::Status;
use uuid::Uuid;

/// A running reservation service.
pub(crate) struct House {
    pub(crate) service: Service,
    pub(crate) served: Served,
    process: Process,
    trigger: DrainTrigger,
}

impl House {
    /// Starts a service on the database in this directory.
    pub(crate) async fn open(dir: &Path) -> Self {
        let signer = Signer::load_or_create(dir).unwrap();
        let (trigger, drain) = drain_pair();
        let process = Process::new(Clock::system(), drain.clone());
        let verifier = Verifier::from_jwks(&signer.jwks()).unwrap();
        let mut server = Server::new(ServerOptions::default(), verifier, Clock::system());
        let deps = Deps { location: Location::Sqlite(dir.join("reservation.db")), process: process.clone() };
        let service = reservation::build(Options::default(), deps, &mut server).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let served = Served::new(listener.local_addr().unwrap(), Tokens::of(dir));
        process.tasks.spawn(Kind::Essential, "server", server.run(listener, drain));
        Self { service, served, process, trigger }
    }

    /// Starts a service in a new directory.
    pub(crate) async fn start() -> (Self, TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (Self::open(dir.path()).await, dir)
    }

    /// Stops the service and closes its database.
    pub(crate) async fn stop(self) {
        let Self { service, process, trigger, .. } = self;
        trigger.request();
        let Service { database, consumers, versions: _ } = service;
        drop(consumers);
        assert_eq!(process.tasks.shutdown(Duration::from_secs(20)).await, Vec::<&str>::new());
        database.close().await;
    }

    /// The handler of Screening's events.
    pub(crate) fn handler(&self) -> &dyn Handler {
        self.service.consumers[0].handler.as_ref()
    }

    /// Gives the service these events as one batch.
    pub(crate) async fn feed(&self, events: &[EventEnvelope]) {
        self.handler().handle(&events.iter().map(incoming).collect::<Vec<_>>()).await.unwrap();
    }
}

/// An event as a transport without order delivers it.
pub(crate) fn incoming(envelope: &EventEnvelope) -> Incoming {
    let event_id = envelope.event_id.parse().unwrap();
    Incoming { envelope: envelope.clone(), event_id, inbox_key: InboxKey::alone(event_id) }
}

/// The position of every booking that waits.
const POSITION: i32 = 3;

/// The state in which a booking is left. LEFT and REVOKED are the two ways in which a wait ends as a booking does.
fn shown_as(state: &str) -> &str {
    match state {
        "LEFT" => "CANCELLED",
        "REVOKED" => "FORCE_CANCELLED",
        state => state,
    }
}

/// A booking, to make its events from.
#[derive(Debug, Clone)]
pub(crate) struct Booking {
    pub(crate) screening: ScreeningId,
    pub(crate) customer: String,
    pub(crate) slot: String,
    /// The base of its events' times, in seconds since 1970.
    pub(crate) begin: i64,
}

impl Booking {
    pub(crate) fn new(uid: u128, customer: &str, slot: &str) -> Self {
        let begin = 1_800_000_000 + i64::try_from(uid).unwrap() * 1_000;
        let customer = if customer.is_empty() { String::new() } else { format!("customers/{customer}") };
        Self { screening: ScreeningId(Uuid::from_u128(uid)), customer, slot: slot.to_owned(), begin }
    }

    pub(crate) fn name(&self) -> String {
        self.screening.reservation_name()
    }

    pub(crate) fn token(&self, version: i64) -> String {
        ConsistencyToken { screening: self.screening, version }.encode()
    }

    /// The event that reports this state as this version. RESCHEDULED and MOVED are the two facts of a move to the
    /// slot: the move itself, and the confirmation that follows it.
    pub(crate) fn event(&self, version: i64, state: &str) -> EventEnvelope {
        let screening = Some(ScreeningSnapshot {
            screening: self.screening.to_string(),
            customer: self.customer.clone(),
            slot: self.slot.clone(),
            date: None,
            hospital_display_name: "Seoul".into(),
            time_zone: "Asia/Seoul".into(),
            claim_generation: 1,
        });
        let (reason, message, claim_id) = (format!("REASON_{version}"), format!("message {version}"), String::new());
        let payload = match state {
            "PENDING" => Payload::ScreeningPending(ScreeningPending { screening }),
            "CONFIRMED" => Payload::ScreeningConfirmed(ScreeningConfirmed { screening, ..Default::default() }),
            "RESCHEDULED" => {
                let moved = ScreeningRescheduled { screening, reason, message, ..Default::default() };
                Payload::ScreeningRescheduled(moved)
            }
            "MOVED" => Payload::ScreeningConfirmed(ScreeningConfirmed { screening, reason, message }),
            "REJECTED" => Payload::ScreeningRejected(ScreeningRejected { screening, reason, claim_id }),
            "CANCELLED" => Payload::ScreeningCancelled(ScreeningCancelled { screening, reason, message, claim_id }),
            "FORCE_CANCELLED" => {
                Payload::ScreeningForceCancelled(ScreeningForceCancelled { screening, reason, message })
            }
            "WAITLISTED" => Payload::ScreeningWaitlisted(ScreeningWaitlisted {
                screening,
                position: POSITION,
                ..Default::default()
            }),
            "EXPIRED" | "LEFT" | "REVOKED" => {
                let state = shown_as(state).to_owned();
                let ended = ScreeningWaitlistEnded { screening, state, reason, message, claim_id };
                Payload::ScreeningWaitlistEnded(ended)
            }
            _ => {
                let attended = state == "COMPLETED";
                Payload::ScreeningAttendanceRecorded(ScreeningAttendanceRecorded { screening, attended })
            }
        };
        EventEnvelope {
            event_id: Uuid::from_u128(self.screening.0.as_u128() * 100 + u128::from(version.unsigned_abs()))
                .to_string(),
            aggregate: self.screening.to_string(),
            aggregate_version: version,
            occur_time: Some(prost_types::Timestamp { seconds: self.begin + version, nanos: 0 }),
            producer: "screening".into(),
            actor: "customer:kim".into(),
            payload: Some(payload),
            ..EventEnvelope::default()
        }
    }

    /// The events of these states, with versions from 1 on.
    pub(crate) fn life(&self, states: &[&str]) -> Vec<EventEnvelope> {
        (1..).zip(states).map(|(version, state)| self.event(version, state)).collect()
    }
}

/// Puts the items into a random order.
pub(crate) fn shuffle<T>(random: &mut Random, items: &mut [T]) {
    for i in (1..items.len()).rev() {
        items.swap(i, random.below(i as u64 + 1) as usize);
    }
}

pub(crate) async fn get(party: &Party, name: &str, token: &str) -> Result<Reservation, Status> {
    let request = GetReservationRequest { name: name.into(), min_consistency_token: token.into() };
    party.reservation().get_reservation(request).await.map(tonic::Response::into_inner)
}

/// The whole history of a reservation, read in pages of this size.
pub(crate) async fn history(party: &Party, name: &str, page_size: i32) -> Result<Vec<ReservationHistoryEntry>, Status> {
    let mut request = ListReservationHistoryRequest { parent: name.into(), page_size, page_token: String::new() };
    let mut entries = Vec::new();
    loop {
        let page = party.reservation().list_reservation_history(request.clone()).await?.into_inner();
        entries.extend(page.entries);
        if page.next_page_token.is_empty() {
            return Ok(entries);
        }
        request.page_token = page.next_page_token;
    }
}

/// The versions and states of a history.
pub(crate) fn states(history: &[ReservationHistoryEntry]) -> Vec<(i64, State)> {
    history.iter().map(|entry| (entry.screening_version, entry.state())).collect()
}
