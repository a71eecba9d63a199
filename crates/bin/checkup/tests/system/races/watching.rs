//! R32: streams of availability against changes: what happens between a snapshot and the first change is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::hospital::v1 as hospital;
use hospital::set_slot_capacity_request::Change;
use hospital::watch_availability_response::Event;
use hospital::{ListSlotsRequest, SetSlotCapacityRequest, Slot, WatchAvailabilityRequest, WatchAvailabilityResponse};
use testkit::{Desk, Party, day_of, gather, in_days, seed, wait_limit, within};
use tokio::sync::watch;
use tonic::{Request, Response, Status, Streaming};

use super::check_counts;
use crate::launch;

/// The version of each slot, by name.
type Versions = BTreeMap<String, i64>;

/// What a watcher knows.
struct Watcher {
    party: Party,
    hospitals: Vec<String>,
    stream: Streaming<WatchAvailabilityResponse>,
    token: String,
    /// As its streams told.
    known: Versions,
    /// As this stream told.
    told: Versions,
}

async fn open(
    party: &Party,
    hospitals: &[String],
    resume_token: &str,
) -> Result<Streaming<WatchAvailabilityResponse>, Status> {
    let mut request = Request::new(WatchAvailabilityRequest {
        hospitals: hospitals.to_vec(),
        start_date: Some(day_of(in_days(Desk::ZONE, 0))),
        end_date: Some(day_of(in_days(Desk::ZONE, 62))),
        resume_token: resume_token.to_owned(),
    });
    request.set_timeout(Duration::from_secs(600));
    party.hospital().watch_availability(request).await.map(Response::into_inner)
}

impl Watcher {
    async fn begin(party: Party, hospitals: Vec<String>) -> Self {
        let stream = open(&party, &hospitals, "").await.expect("a stream");
        let (token, known, told) = (String::new(), Versions::new(), Versions::new());
        let mut watcher = Self { party, hospitals, stream, token, known, told };
        while watcher.token.is_empty() {
            watcher.read().await;
        }
        watcher
    }

    /// Leaves the stream and goes on where it was.
    async fn resume(&mut self) {
        self.stream = open(&self.party, &self.hospitals, &self.token).await.expect("resumed");
        self.told.clear();
    }

    /// Reads one message.
    async fn read(&mut self) {
        let message = within(wait_limit(), "the next message", self.stream.message()).await;
        let message = message.expect("the stream goes on").expect("the stream does not end");
        self.token = message.resume_token;
        match message.event.expect("an event") {
            Event::Snapshot(part) => part.slots.iter().for_each(|slot| self.learn(slot)),
            Event::Changed(slot) => self.learn(&slot),
            Event::Heartbeat(_) => {}
        }
    }

    fn learn(&mut self, slot: &Slot) {
        check_counts(slot).expect("sound counts");
        let before = self.told.insert(slot.name.clone(), slot.version).unwrap_or(0);
        assert!(before <= slot.version, "{} went back from {before} to {}", slot.name, slot.version);
        let known = self.known.entry(slot.name.clone()).or_insert(0);
        *known = slot.version.max(*known);
    }

    /// Reads until it knows what is there in the end. It leaves its stream after so many messages, if that is not 0.
    async fn until(mut self, mut ended: watch::Receiver<Option<Versions>>, stay: usize) -> usize {
        let mut messages = 0;
        loop {
            if ended.borrow_and_update().as_ref().is_some_and(|last| *last == self.known) {
                return messages;
            }
            tokio::select! {
                () = self.read() => messages += 1,
                changed = ended.changed() => changed.expect("the test goes on"),
            }
            if stay > 0 && messages % stay == stay - 1 {
                self.resume().await;
                messages += 1;
            }
        }
    }
}

/// Opens these hospitals, each with a slot on 61 days. Returns the hospitals and all slots.
async fn hospitals(admin: &Party, count: usize) -> (Vec<String>, Vec<String>) {
    let days: Vec<i32> = (1..62).collect();
    let (mut names, mut slots) = (Vec::new(), Vec::new());
    for i in 0..count {
        slots.extend(Desk::of(admin).open(&format!("watched-{i}"), &days, 50).await);
        names.push(format!("hospitals/watched-{i}"));
    }
    (names, slots)
}

/// The version of every slot of these hospitals.
async fn versions(party: &Party, hospitals: &[String]) -> Versions {
    let mut versions = Versions::new();
    for parent in hospitals {
        let list = ListSlotsRequest { parent: parent.clone(), page_size: 1_000, ..ListSlotsRequest::default() };
        let slots = party.hospital().list_slots(list).await.expect("listed").into_inner().slots;
        versions.extend(slots.into_iter().map(|slot| (slot.name, slot.version)));
    }
    versions
}

/// Changes slots one after another: mostly their capacity, sometimes by a booking.
async fn change(admin: Party, mut slots: Vec<String>, number: usize, changed: Arc<AtomicUsize>) {
    let mut random = seed(&format!("r32-{number}"));
    slots.sort_by_cached_key(|_| random.number());
    for (i, slot) in slots.iter().enumerate() {
        if i % 8 == 0 {
            Desk::of(&admin).book(&format!("kim-{number}-{i}"), slot, "").await.expect("a place");
        } else {
            let change = Some(Change::Delta(1));
            let request = SetSlotCapacityRequest { name: slot.clone(), change, ..SetSlotCapacityRequest::default() };
            admin.hospital().set_slot_capacity(request).await.expect("changed");
        }
        changed.fetch_add(1, Ordering::Relaxed);
    }
}

/// Runs watchers against changes of every slot. Watchers begin while slots change, one after another, so each reads its
/// snapshot in the middle of it. No slot changes twice, which would hide what was missed.
async fn race(hospital_count: usize, watchers: usize, stay: usize) {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let (names, slots) = hospitals(&admin, hospital_count).await;
    let parties = checkup.served().customers("watcher", watchers, 4).await;
    let (ended, end) = watch::channel(None);
    let changed = Arc::new(AtomicUsize::new(0));
    let halves = slots.chunks(slots.len().div_ceil(2)).enumerate();
    let writers: Vec<_> =
        halves.map(|(i, half)| tokio::spawn(change(admin.clone(), half.to_vec(), i, Arc::clone(&changed)))).collect();
    let mut watching = Vec::new();
    for (i, party) in parties.into_iter().enumerate() {
        while changed.load(Ordering::Relaxed) < i * slots.len() / (watchers + 1) {
            tokio::task::yield_now().await;
        }
        let (names, end) = (names.clone(), end.clone());
        watching.push(tokio::spawn(async move { Watcher::begin(party, names).await.until(end, stay).await }));
    }
    gather(writers).await;
    ended.send_replace(Some(versions(&admin, &names).await));
    let messages = within(wait_limit(), "every watcher to know every slot as it is", gather(watching)).await;
    assert!(messages.iter().sum::<usize>() > 0, "changes were told");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r32_no_change_falls_between_the_snapshot_and_the_stream() {
    race(12, 24, 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r32_no_change_falls_between_a_stream_and_the_one_that_resumes_it() {
    race(4, 8, 20).await;
}
