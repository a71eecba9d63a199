//! A my-page service in this process with its own port and directory, and events to feed it.

use std::path::Path;
use std::time::Duration;

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{
    EventEnvelope, ScreeningAttendanceRecorded, ScreeningCancelled, ScreeningConfirmed, ScreeningForceCancelled,
    ScreeningPending, ScreeningRejected, ScreeningRescheduled, ScreeningSnapshot, ScreeningWaitlistEnded,
    ScreeningWaitlisted,
};
use contract::mypage::v1::watch_my_page_response::Event;
use contract::mypage::v1::{GetMyPageRequest, ListMyPageItemsRequest, MyPage, MyPageItem, WatchMyPageRequest};
use domain::ids::ScreeningId;
use domain::token::ConsistencyToken;
use jiff::SignedDuration;
use mypage::{Deps, Options, Service};
use relay::{Handler, Incoming};
use runtime::Process;
use runtime::clock::Clock;
use runtime::identity::{Signer, Verifier};
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::server::{Server, ServerOptions};
use runtime::tasks::Kind;
use store::Location;
use store::inbox::InboxKey;
use tempfile::TempDir;
use testkit::{Party, Served, Tokens, in_days, within};
use tokio::net::TcpListener;
use tonic::{Status, Streaming};
use uuid::Uuid;

/// A running my-page service.
pub(crate) struct House {
    pub(crate) service: Service,
    pub(crate) served: Served,
    process: Process,
    trigger: DrainTrigger,
}

/// The configuration of a test's service.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) options: Options,
    pub(crate) server: ServerOptions,
    pub(crate) shift: SignedDuration,
}

impl Default for Plan {
    /// The heartbeat is an hour: a stream reads again at each heartbeat, and that would hide a missed wake-up.
    fn default() -> Self {
        let options = Options { heartbeat: Duration::from_secs(3_600), ..Options::default() };
        Self { options, server: ServerOptions::default(), shift: SignedDuration::ZERO }
    }
}

impl House {
    /// Starts a service on the database in this directory.
    pub(crate) async fn open(dir: &Path, plan: Plan) -> Self {
        Self::on(Location::Sqlite(dir.join("mypage.db")), dir, plan).await
    }

    /// Starts a service on this database. The directory has its key.
    pub(crate) async fn on(location: Location, dir: &Path, plan: Plan) -> Self {
        let signer = Signer::load_or_create(dir).unwrap();
        let (trigger, drain) = drain_pair();
        let process = Process::new(Clock::shifted(plan.shift), drain.clone());
        let verifier = Verifier::from_jwks(&signer.jwks()).unwrap();
        let mut server = Server::new(plan.server, verifier, Clock::system());
        let deps = Deps { location, process: process.clone() };
        let service = mypage::build(plan.options, deps, &mut server).await.unwrap();
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

    /// Begins the drain, and does not wait for its end.
    pub(crate) fn drain(&self) {
        self.trigger.request();
    }

    /// Stops the service and closes its database.
    pub(crate) async fn stop(self) {
        let Self { service, process, trigger, .. } = self;
        trigger.request();
        let Service { consumers, views, database: _ } = service;
        let database = views.database();
        drop((consumers, views));
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

/// The time zone of every booking that is not PENDING.
pub(crate) const ZONE: &str = "Asia/Seoul";

/// The position of every booking that waits.
pub(crate) const POSITION: i32 = 3;

/// The state in which a booking is left. LEFT and REVOKED are the two ways in which a wait ends as a booking does.
pub(crate) fn shown_as(state: &str) -> &str {
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
    /// A booking of this customer for the date `days` days from today.
    pub(crate) fn new(uid: u128, customer: &str, days: i32) -> Self {
        let begin = 1_800_000_000 + i64::try_from(uid).unwrap() * 1_000;
        let customer = if customer.is_empty() { String::new() } else { format!("customers/{customer}") };
        let slot = format!("hospitals/seoul/slots/{}", in_days(ZONE, days));
        Self { screening: ScreeningId(Uuid::from_u128(uid)), customer, slot, begin }
    }

    pub(crate) fn name(&self) -> String {
        self.screening.to_string()
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
            hospital_display_name: if state == "PENDING" { String::new() } else { "Seoul".into() },
            time_zone: if state == "PENDING" { String::new() } else { ZONE.into() },
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

pub(crate) fn page_of(customer: &str) -> String {
    format!("customers/{customer}/myPage")
}

pub(crate) async fn get(party: &Party, name: &str, token: &str) -> Result<MyPage, Status> {
    read(party, name, token, false).await
}

/// [`get`] with what waits.
pub(crate) async fn get_all(party: &Party, name: &str, token: &str) -> Result<MyPage, Status> {
    read(party, name, token, true).await
}

async fn read(party: &Party, name: &str, token: &str, show_waitlisted: bool) -> Result<MyPage, Status> {
    let request = GetMyPageRequest { name: name.into(), min_consistency_token: token.into(), show_waitlisted };
    party.my_page().get_my_page(request).await.map(tonic::Response::into_inner)
}

/// Every booking of a customer, except what waits or waited in vain, read in pages of this size.
pub(crate) async fn list(party: &Party, parent: &str, page_size: i32) -> Result<Vec<MyPageItem>, Status> {
    pages(party, ListMyPageItemsRequest { parent: parent.into(), page_size, ..Default::default() }).await
}

/// [`list`] with what waits or waited in vain.
pub(crate) async fn list_all(party: &Party, parent: &str, page_size: i32) -> Result<Vec<MyPageItem>, Status> {
    let request = ListMyPageItemsRequest { parent: parent.into(), page_size, ..Default::default() };
    pages(party, ListMyPageItemsRequest { show_waitlisted: true, ..request }).await
}

async fn pages(party: &Party, mut request: ListMyPageItemsRequest) -> Result<Vec<MyPageItem>, Status> {
    let mut items = Vec::new();
    loop {
        let page = party.my_page().list_my_page_items(request.clone()).await?.into_inner();
        items.extend(page.items);
        if page.next_page_token.is_empty() {
            return Ok(items);
        }
        request.page_token = page.next_page_token;
    }
}

/// A stream that the test reads.
#[derive(Debug)]
pub(crate) struct Watch {
    stream: Streaming<contract::mypage::v1::WatchMyPageResponse>,
    /// The token to resume after the last message that was read.
    pub(crate) token: String,
}

pub(crate) async fn watch(party: &Party, name: &str, token: &str) -> Result<Watch, Status> {
    open(party, name, token, false).await
}

/// [`watch`] with what waits or waited in vain.
pub(crate) async fn watch_all(party: &Party, name: &str, token: &str) -> Result<Watch, Status> {
    open(party, name, token, true).await
}

/// Watches with this `show_waitlisted`.
pub(crate) async fn open(party: &Party, name: &str, token: &str, show_waitlisted: bool) -> Result<Watch, Status> {
    let request = WatchMyPageRequest { name: name.into(), resume_token: token.into(), show_waitlisted };
    let stream = party.my_page().watch_my_page(request).await?.into_inner();
    Ok(Watch { stream, token: token.into() })
}

impl Watch {
    /// The next message of any kind.
    pub(crate) async fn next(&mut self) -> Result<Event, Status> {
        let message = within(testkit::wait_limit(), "a message", self.stream.message()).await?;
        let message = message.expect("a stream that ends tells why");
        self.token = message.resume_token;
        Ok(message.event.expect("an event"))
    }

    /// The next message, which must be a snapshot.
    pub(crate) async fn snapshot(&mut self) -> MyPage {
        match self.next().await.unwrap() {
            Event::Snapshot(page) => page,
            other => panic!("{other:?}"),
        }
    }

    /// The next change, as the name and version of its screening. Heartbeats are skipped.
    pub(crate) async fn change(&mut self) -> Result<(String, i64), Status> {
        loop {
            match self.next().await? {
                Event::Changed(item) => return Ok((item.screening, item.screening_version)),
                Event::Heartbeat(_) => {}
                Event::Snapshot(page) => panic!("{page:?}"),
            }
        }
    }
}
