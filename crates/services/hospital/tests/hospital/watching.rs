//! Streams of availability: the snapshot in parts, changes, resuming, heartbeats, and how many read for how many.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use contract::hospital::v1 as message;
use fault::Reason;
use futures::future::join_all;
use futures::{StreamExt, stream};
use hospital::Options;
use message::set_slot_capacity_request::Change;
use message::slot::State;
use message::watch_availability_response::Event;
use message::{
    BatchCloseSlotsRequest, CloseSlotRequest, CreateSlotRequest, DeleteHospitalRequest, SetSlotCapacityRequest, Slot,
    WatchAvailabilityRequest, WatchAvailabilityResponse,
};
use sea_orm::ConnectionTrait;
use testkit::{Party, day_of, refused, wait_limit, within};
use tonic::transport::Endpoint;
use tonic::{Request, Status, Streaming};

use crate::closures::{date_of, rule_of};
use crate::support::{FILE, House, claim, get_slot, noon, reserve};

/// A stream that the test reads.
#[derive(Debug)]
struct Watch {
    stream: Streaming<WatchAvailabilityResponse>,
    /// The token to resume after the last message that was read.
    token: String,
    /// The last version that was told of each slot as a change.
    known: BTreeMap<String, i64>,
}

/// The request to watch these hospitals on the 62 days from today.
fn request(house: &House, hospitals: &[&str], resume_token: &str) -> WatchAvailabilityRequest {
    WatchAvailabilityRequest {
        hospitals: hospitals.iter().map(|id| format!("hospitals/{id}")).collect(),
        start_date: Some(day_of(house.day(0))),
        end_date: Some(day_of(house.day(62))),
        resume_token: resume_token.to_owned(),
    }
}

async fn open(party: &Party, request: WatchAvailabilityRequest) -> Result<Watch, Status> {
    let token = request.resume_token.clone();
    let mut request = Request::new(request);
    request.set_timeout(Duration::from_secs(600));
    let stream = party.hospital().watch_availability(request).await?.into_inner();
    Ok(Watch { stream, token, known: BTreeMap::new() })
}

/// Opens a stream from the beginning, and reads its snapshot.
async fn begun(house: &House, party: &Party, hospitals: &[&str]) -> (Watch, Vec<Slot>) {
    let mut watch = open(party, request(house, hospitals, "")).await.unwrap();
    let slots = watch.snapshot().await.concat();
    (watch, slots)
}

impl Watch {
    async fn next(&mut self) -> Result<Event, Status> {
        let message = within(wait_limit(), "a message", self.stream.message()).await?;
        let message = message.expect("a stream that ends tells why");
        self.token = message.resume_token;
        let event = message.event.expect("an event");
        if let Event::Changed(slot) = &event {
            let before = self.known.insert(slot.name.clone(), slot.version);
            assert!(before.is_none_or(|before| before < slot.version), "{} went back", slot.name);
        }
        Ok(event)
    }

    /// The parts of the snapshot that the stream begins with.
    async fn snapshot(&mut self) -> Vec<Vec<Slot>> {
        let mut parts = Vec::new();
        loop {
            let Event::Snapshot(part) = self.next().await.unwrap() else { panic!("not a part of the snapshot") };
            parts.push(part.slots);
            assert_eq!(self.token.is_empty(), !part.complete, "only a whole snapshot can be resumed after");
            if part.complete {
                return parts;
            }
        }
    }

    /// The next change. Heartbeats are skipped.
    async fn change(&mut self) -> Result<Slot, Status> {
        loop {
            match self.next().await? {
                Event::Changed(slot) => return Ok(slot),
                Event::Heartbeat(_) => {}
                Event::Snapshot(part) => panic!("{part:?}"),
            }
        }
    }

    /// Reads changes until this slot has this version. Returns how many there were.
    async fn until(&mut self, slot: &Slot) -> usize {
        for count in 1.. {
            let change = self.change().await.unwrap();
            if (&change.name, change.version) == (&slot.name, slot.version) {
                assert_eq!(change, *slot);
                return count;
            }
        }
        unreachable!("the stream goes on")
    }

    /// So many changes, by name.
    async fn all(&mut self, count: usize) -> Vec<Slot> {
        let mut slots = Vec::new();
        while slots.len() < count {
            slots.push(self.change().await.unwrap());
        }
        slots.sort_by(|one, other| one.name.cmp(&other.name));
        slots
    }
}

async fn shift(admin: &Party, slot: &str, delta: i32) -> Slot {
    let change = Some(Change::Delta(delta));
    let request = SetSlotCapacityRequest { name: slot.to_owned(), change, ..Default::default() };
    admin.hospital().set_slot_capacity(request).await.unwrap().into_inner()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_begins_with_the_slots_there_are_in_parts() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let days: Vec<i32> = (1..=70).collect();
    for id in ["seoul", "busan", "daegu", "elsewhere"] {
        house.hospital(id, &days, 4).await;
    }
    let closed = format!("hospitals/busan/slots/{}", house.day(3));
    admin.hospital().close_slot(CloseSlotRequest { name: closed, ..Default::default() }).await.unwrap();
    let delete = DeleteHospitalRequest { name: "hospitals/daegu".into(), ..Default::default() };
    admin.hospital().delete_hospital(delete).await.unwrap();

    let kim = house.served.customer("kim").await;
    let mut watch = open(&kim, request(&house, &["seoul", "daegu", "busan", "seoul"], "")).await.unwrap();
    let parts = watch.snapshot().await;
    assert_eq!(parts.iter().map(Vec::len).collect::<Vec<_>>(), [100, 83]);
    let expected: Vec<String> = (1..62)
        .flat_map(|days| ["busan", "daegu", "seoul"].map(|id| format!("hospitals/{id}/slots/{}", house.day(days))))
        .collect();
    assert_eq!(parts.concat().iter().map(|slot| slot.name.clone()).collect::<Vec<_>>(), expected);
    let states: Vec<State> = parts[0][6..9].iter().map(Slot::state).collect();
    assert_eq!(states, [State::Closed, State::Deleted, State::Open]);
    assert_eq!(parts[0][8], get_slot(&admin, &parts[0][8].name).await);

    // where nothing is, the snapshot is one part without slots
    house.hospital("empty", &[], 1).await;
    let (mut watch, slots) = begun(&house, &kim, &["empty"]).await;
    assert_eq!(slots, []);
    let slot = CreateSlotRequest { parent: "hospitals/empty".into(), ..date_of(&house, 5) };
    let opened = admin.hospital().create_slot(slot).await.unwrap().into_inner();
    assert_eq!(watch.change().await.unwrap(), opened);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_changes_a_slot_is_told_and_nothing_of_others() {
    let (house, _dir) = House::start().await;
    let (admin, screening) = (house.admin().await, house.screening().await);
    let slots = house.hospital("seoul", &[3, 4, 70], 4).await;
    let elsewhere = house.slot("busan", 4).await;
    let (mut watch, _) = begun(&house, &admin, &["seoul"]).await;

    shift(&admin, &elsewhere, 1).await;
    shift(&admin, &slots[2], 1).await;
    reserve(&screening, &slots[0], &claim(1)).await.unwrap();
    assert_eq!(watch.change().await.unwrap(), get_slot(&admin, &slots[0]).await);
    let shifted = shift(&admin, &slots[1], 1).await;
    assert_eq!(watch.change().await.unwrap(), shifted);

    let openings = vec![rule_of(&house, 10, 20, &[])];
    let opening =
        message::BatchCreateSlotsRequest { parent: "hospitals/seoul".into(), requests: openings, ..Default::default() };
    let opened = admin.hospital().batch_create_slots(opening).await.unwrap().into_inner().slots;
    assert_eq!(opened.len(), 10);
    assert_eq!(watch.all(10).await, opened);

    let mut closing = BatchCloseSlotsRequest { parent: "hospitals/seoul".into(), ..Default::default() };
    let named = |days| message::DateRange { start_date: Some(day_of(house.day(days))), repeat: None };
    closing.ranges = vec![named(10), named(11)];
    let closed = admin.hospital().batch_close_slots(closing).await.unwrap().into_inner().slots;
    assert_eq!(watch.all(2).await, closed);

    // the deletion is one fact for all of them; the claim is revoked a moment later
    let delete = DeleteHospitalRequest { name: "hospitals/seoul".into(), force: true, ..Default::default() };
    admin.hospital().delete_hospital(delete).await.unwrap();
    let mut known = BTreeMap::new();
    while known.len() < 12 || known[&slots[0]] != (State::Deleted, 0) {
        let slot = watch.change().await.unwrap();
        known.insert(slot.name.clone(), (slot.state(), slot.booked_count));
    }
    assert!(known.values().all(|known| *known == (State::Deleted, 0)), "{known:?}");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_of_one_slot_within_a_moment_are_told_as_one() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let slot = house.slot("seoul", 4).await;
    let (mut watch, _) = begun(&house, &admin, &["seoul"]).await;
    let begin = Instant::now();
    for _ in 0..99 {
        shift(&admin, &slot, 1).await;
    }
    let last = shift(&admin, &slot, 1).await;
    // one for each quarter of a second that it took, and one for each end
    let most = begin.elapsed().as_millis() / 250 + 2;
    let told = watch.until(&last).await;
    assert!(told as u128 <= most, "{told} messages, at most {most} expected");
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_resumes_is_told_what_changed_since_and_no_more() {
    let (house, dir) = House::start().await;
    let admin = house.admin().await;
    let slots = house.hospital("seoul", &[3, 4, 5, 6], 4).await;
    let (mut watch, _) = begun(&house, &admin, &["seoul"]).await;
    // the reader may be behind the snapshot; once this is told it is not
    let first = shift(&admin, &slots[3], 1).await;
    assert_eq!(watch.change().await.unwrap(), first);
    let token = watch.token.clone();
    drop(watch);

    shift(&admin, &slots[1], 1).await;
    let changed = [shift(&admin, &slots[1], 1).await, shift(&admin, &slots[2], 1).await];
    let mut watch = open(&admin, request(&house, &["seoul"], &token)).await.unwrap();
    assert_eq!(watch.all(2).await, changed);
    let later = watch.token.clone();
    assert_ne!(later, token);
    // it goes on, and a token can be used again, also one of the process before
    let last = shift(&admin, &slots[0], 1).await;
    assert_eq!(watch.change().await.unwrap(), last);
    drop((watch, admin));
    house.stop().await;
    let house = House::open(dir.path(), noon(), None).await;
    let admin = house.admin().await;
    let mut watch = open(&admin, request(&house, &["seoul"], &later)).await.unwrap();
    assert_eq!(watch.change().await.unwrap(), last);
    let mut watch = open(&admin, request(&house, &["seoul"], &token)).await.unwrap();
    assert_eq!(watch.all(3).await, [vec![last], changed.to_vec()].concat());
    drop((watch, admin));
    house.stop().await;

    // a log that is far further: what lies between is not read again
    let file = dir.path().join(FILE);
    let connection = sea_orm::Database::connect(format!("sqlite://{}", file.display())).await.unwrap();
    connection.execute_unprepared("UPDATE outbox SET position = position + 5000").await.unwrap();
    drop(connection);
    let house = House::open(dir.path(), noon(), None).await;
    let admin = house.admin().await;
    refused(open(&admin, request(&house, &["seoul"], &later)).await, Reason::CursorExpired);
    begun(&house, &admin, &["seoul"]).await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_broken_by_heartbeats() {
    let dir = tempfile::tempdir().unwrap();
    let options = Options { heartbeat: Duration::from_millis(50), ..Options::default() };
    let house = House::open_with(dir.path(), noon(), None, options).await;
    let admin = house.admin().await;
    let slot = house.slot("seoul", 4).await;
    let (mut watch, _) = begun(&house, &admin, &["seoul"]).await;
    let token = watch.token.clone();
    for _ in 0..3 {
        let Event::Heartbeat(heartbeat) = watch.next().await.unwrap() else { panic!("not a heartbeat") };
        assert!(heartbeat.time.is_some());
        assert_eq!(watch.token, token);
    }
    let changed = shift(&admin, &slot, 1).await;
    assert_eq!(watch.change().await.unwrap(), changed);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_cannot_be_watched_is_refused_at_once() {
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    house.slot("seoul", 4).await;
    house.slot("busan", 4).await;
    refused(open(&house.anybody().await, request(&house, &["seoul"], "")).await, Reason::CredentialsMissing);
    refused(open(&admin, request(&house, &["seoul", "nowhere"], "")).await, Reason::HospitalNotFound);
    let wrong = async |request| refused(open(&admin, request).await, Reason::FieldInvalid);
    assert_eq!(wrong(request(&house, &[], "")).await.complaints(), [("hospitals", "FIELD_INVALID")]);
    assert_eq!(wrong(request(&house, &["seoul"; 21], "")).await.complaints(), [("hospitals", "FIELD_INVALID")]);
    let long = WatchAvailabilityRequest { end_date: Some(day_of(house.day(63))), ..request(&house, &["seoul"], "") };
    assert_eq!(wrong(long).await.complaints(), [("end_date", "FIELD_INVALID")]);

    let (watch, _) = begun(&house, &admin, &["seoul", "busan"]).await;
    let token = watch.token.as_str();
    let other = if token.starts_with('A') { 'B' } else { 'A' };
    let broken = format!("{other}{}", &token[1..]);
    for malformed in ["nonsense", &broken, &token[1..]] {
        let refusal =
            refused(open(&admin, request(&house, &["busan", "seoul"], malformed)).await, Reason::PageTokenInvalid);
        assert_eq!(refusal.complaints(), [("resume_token", "PAGE_TOKEN_INVALID")]);
    }
    refused(open(&admin, request(&house, &["busan"], token)).await, Reason::PageTokenInvalid);
    open(&admin, request(&house, &["busan", "seoul"], token)).await.unwrap();
    let shorter = WatchAvailabilityRequest {
        end_date: Some(day_of(house.day(61))),
        ..request(&house, &["seoul", "busan"], token)
    };
    refused(open(&admin, shorter).await, Reason::PageTokenInvalid);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_watchers_cost_one_reader() {
    const WATCHERS: usize = 1_000;
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let slots = house.hospital("seoul", &[3, 4], 4).await;
    house.slot("busan", 4).await;
    assert_eq!(house.readers.load(Ordering::SeqCst), 0, "what nobody watches is not read");
    let parties = house.served.customers("kim", WATCHERS, 4).await;
    let opened = parties.iter().enumerate().map(async |(i, party)| {
        let hospitals = if i % 2 == 0 { &["seoul"][..] } else { &["busan", "seoul"] };
        begun(&house, party, hospitals).await.0
    });
    // not all at once: who reads pages while many others do is told to come back
    let mut watches: Vec<Watch> = stream::iter(opened).buffer_unordered(4).collect().await;
    let changed = [shift(&admin, &slots[0], 1).await, shift(&admin, &slots[1], 1).await];
    let told = join_all(watches.iter_mut().map(async |watch| watch.all(2).await)).await;
    assert!(told.iter().all(|told| *told == changed));
    assert_eq!(house.readers.load(Ordering::SeqCst), 1);
    drop((watches, parties));
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_does_not_read_piles_up_nothing_and_misses_nothing() {
    // more rounds than are kept for a stream, of more messages than fit between the two
    const ROUNDS: usize = 20;
    let (house, _dir) = House::start().await;
    let admin = house.admin().await;
    let slots = house.hospital("seoul", &(1..=60).collect::<Vec<_>>(), 4).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", house.served.addr())).unwrap();
    let narrow = endpoint.initial_stream_window_size(16_384).initial_connection_window_size(65_535);
    let kim = Party::new(narrow.connect().await.unwrap(), Some(&house.served.tokens().customer("kim")));
    let (mut slow, _) = begun(&house, &kim, &["seoul"]).await;
    let (mut fast, _) = begun(&house, &admin, &["seoul"]).await;
    let mut last = BTreeMap::new();
    for _ in 0..ROUNDS {
        let shifted = join_all(slots.iter().map(|slot| shift(&admin, slot, 1))).await;
        last.extend(shifted.into_iter().map(|slot| (slot.name, slot.version)));
        // the fast one has been told of this round
        while fast.known != last {
            fast.change().await.unwrap();
        }
    }
    let mut messages = 0;
    while slow.known != last {
        slow.change().await.unwrap();
        messages += 1;
    }
    assert!(messages < ROUNDS * slots.len(), "{messages} messages were kept for it");
    house.stop().await;
}
