//! One or two files of a data directory come back older than the others: the services catch up by themselves, or the
//! loss is noticed and recovered.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::{
    Booking, BookingHistory, Cancelling, Checkup, DataDir, Desk, Launch, Moving, Outcome, Refusal, Sighting,
    eventually, get,
};
use tokio::task::JoinSet;

use crate::embedded;
use crate::races::{all_screenings, claims};

const SERVICES: [&str; 5] = ["hospital", "screening", "reservation", "mypage", "marketing"];
/// The capacity of the slot that all customers want.
const PLACES: i32 = 40;
const CALLERS: usize = 6;
/// How many bookings are made before the copy, and after it.
const BEFORE: usize = 90;
const AFTER: usize = 90;

/// A copy of the directory from the middle of the load, the directory at the end, and what clients were answered.
struct Story {
    older: DataDir,
    newer: DataDir,
    slots: Vec<String>,
    history: Arc<BookingHistory>,
}

fn path(directory: &DataDir) -> String {
    directory.path().to_string_lossy().into_owned()
}

async fn story() -> Story {
    let checkup = embedded().start().await;
    let desk = Desk::of(&checkup.admin().await);
    let slots = [desk.open("wanted", &[30], PLACES).await, desk.open("wide", &[30, 31, 32], 5_000).await].concat();
    let (history, made, enough) =
        (Arc::new(BookingHistory::default()), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(usize::MAX)));
    let mut callers = JoinSet::new();
    for caller in 0..CALLERS {
        let (party, slots, history) = (checkup.admin().await, slots.clone(), Arc::clone(&history));
        let (made, enough) = (Arc::clone(&made), Arc::clone(&enough));
        callers.spawn(async move {
            let desk = Desk::of(&party);
            let mut number = 0;
            while made.fetch_add(1, Ordering::SeqCst) < enough.load(Ordering::SeqCst) {
                number += 1;
                let slot = |number: usize| slots[number % slots.len()].as_str();
                let target = (number % 3 == 1).then(|| slot(number + 1 + number / 4 % 3));
                let customer = format!("c{caller}-{number}");
                history.note(one(&desk, &customer, slot(number), target, number % 2 == 0).await);
            }
        });
    }
    let reaches = async |wanted: usize| {
        eventually("the callers to get on", async || {
            let made = made.load(Ordering::SeqCst);
            if made >= wanted { Ok(()) } else { Err(format!("{made} calls")) }
        })
        .await;
    };
    reaches(BEFORE).await;
    let (archive, older) = (DataDir::new(), DataDir::new());
    let file = archive.path().join("older.tar").to_string_lossy().into_owned();
    let directory = path(checkup.launch().data());
    let taken = checkup.launch().run(&["backup", "--data-dir", &directory, "--to", &file]).await;
    assert_eq!(taken.code, Some(0), "{taken:?}");
    let now = made.load(Ordering::SeqCst);
    enough.store(now + AFTER, Ordering::SeqCst);
    while let Some(ended) = callers.join_next().await {
        ended.expect("a caller");
    }
    let restored = checkup.launch().run(&["restore", "--from", &file, "--data-dir", &path(&older)]).await;
    assert_eq!(restored.code, Some(0), "{restored:?}");
    // before the end every view reads everything, because an event that nobody has read cannot be recovered
    let verified = checkup.run(&["verify", "--settle", "20s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:?}");
    let newer = checkup.stop().await.data().clone();
    Story { older, newer, slots, history }
}

/// Books, moves to `target` if there is one, and cancels if `cancels` is set. Returns the outcomes that the customer
/// got.
async fn one(desk: &Desk, customer: &str, slot: &str, target: Option<&str>, cancels: bool) -> Booking {
    let reason = |status| Refusal::of(&status).expect("a refusal").reason;
    let mut booking = Booking {
        customer: customer.to_owned(),
        slot: slot.to_owned(),
        request_id: uuid::Uuid::now_v7().to_string(),
        outcome: Outcome::Unknown,
        moves: Vec::new(),
        cancelling: None,
    };
    booking.outcome = match desk.book(customer, slot, &booking.request_id).await {
        Ok(booked) => Outcome::Done(booked.name),
        Err(status) => Outcome::Refused(reason(status)),
    };
    if let (Outcome::Done(name), Some(slot)) = (&booking.outcome, target) {
        let request_id = uuid::Uuid::now_v7().to_string();
        let outcome = match desk.reschedule(name, slot, &request_id).await {
            Ok(_) => Outcome::Done(()),
            Err(status) => Outcome::Refused(reason(status)),
        };
        booking.moves.push(Moving { slot: slot.to_owned(), request_id, outcome });
    }
    if let (Outcome::Done(name), true) = (&booking.outcome, cancels) {
        let request_id = uuid::Uuid::now_v7().to_string();
        desk.cancel(name, &request_id).await.expect("cancelled");
        booking.cancelling = Some(Cancelling { request_id, outcome: Outcome::Done(()) });
    }
    booking
}

impl Story {
    /// The newer directory with these services' files from the older one.
    fn with_older(&self, services: &[&str]) -> Launch {
        let launch = embedded();
        for entry in fs::read_dir(self.newer.path()).expect("a directory") {
            let from = entry.expect("an entry").path();
            fs::copy(&from, launch.data().path().join(from.file_name().expect("a name"))).expect("copied");
        }
        for service in services {
            let name = format!("{service}.db");
            fs::copy(self.older.path().join(&name), launch.data().path().join(&name)).expect("copied");
            for beside in ["-wal", "-shm"] {
                let _ = fs::remove_file(launch.data().path().join(format!("{name}{beside}")));
            }
        }
        launch
    }

    async fn comes_back(&self, services: &[&str]) {
        let launch = self.with_older(services);
        let forgetful: Vec<_> =
            services.iter().filter(|service| matches!(**service, "hospital" | "screening")).collect();
        if !forgetful.is_empty() {
            let checkup = launch.start_refusing().await;
            let ready = get(checkup.admin_addr(), "/ready").await.expect("the admin port answers");
            for service in forgetful {
                assert!(ready.body.contains(&format!("{service} has lost its own past")), "{services:?}: {ready:?}");
            }
            drop(checkup.stop().await);
            let directory = path(launch.data());
            let recovered = launch.run(&["recover", "--data-dir", &directory]).await;
            assert_eq!(recovered.code, Some(0), "{services:?}: {recovered:?}");
        }
        let checkup = launch.start().await;
        self.is_whole(&checkup, services).await;
        drop(checkup.stop().await);
    }

    async fn is_whole(&self, checkup: &Checkup, services: &[&str]) {
        let verified = checkup.run(&["verify", "--settle", "20s"]).await;
        assert_eq!(verified.code, Some(0), "{services:?}: {verified:?}");
        let auditor = checkup.auditor().await;
        let seen: Vec<Sighting> = all_screenings(&auditor, "").await.into_iter().map(Sighting::from).collect();
        assert_eq!(self.history.disagreements(&seen), Vec::<String>::new(), "{services:?}");
        let desk = Desk::of(&checkup.admin().await);
        for customer in 0..3 {
            let late = desk.book(&format!("late-{customer}"), &self.slots[0], "").await;
            drop(late);
        }
        let held = claims(&auditor, &self.slots[0], "ACTIVE").await.len();
        assert!(held <= PLACES as usize, "{services:?}: {held} claims of {PLACES} places");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_file_heals_or_is_noticed_and_mended() {
    let story = story().await;
    assert!(story.history.counts().0 > BEFORE, "{:?}", story.history);
    for service in SERVICES {
        story.comes_back(&[service]).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_pair_of_files_heals_or_is_noticed_and_mended() {
    let story = story().await;
    for (index, first) in SERVICES.iter().enumerate() {
        for second in &SERVICES[index + 1..] {
            story.comes_back(&[first, second]).await;
        }
    }
}

/// Without any view, Hospital and Screening still store how far each other's log has come, including events that they
/// do not act on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_is_noticed_where_no_view_ever_read() {
    for service in ["screening", "hospital"] {
        let checkup = embedded().without("reservation,mypage,marketing").start().await;
        let desk = Desk::of(&checkup.admin().await);
        let slot = desk.open("alone", &[30], 10).await.remove(0);
        desk.book("early", &slot, "").await.expect("a place");
        let launch = checkup.stop().await;
        let file = launch.data().path().join(format!("{service}.db"));
        let copy = launch.data().path().join("copy");
        fs::copy(&file, &copy).expect("a copy");
        let checkup = launch.start().await;
        let desk = Desk::of(&checkup.admin().await);
        // an event that the other service does not act on
        match service {
            "screening" => drop(desk.book("late", &slot, "").await.expect("a place")),
            _ => drop(desk.open("later", &[30], 10).await),
        }
        let launch = checkup.stop().await;
        replace(&copy, &file);
        let checkup = launch.start_refusing().await;
        let ready = get(checkup.admin_addr(), "/ready").await.expect("the admin port answers");
        assert!(ready.body.contains(&format!("{service} has lost its own past")), "{ready:?}");
    }
}

fn replace(copy: &Path, file: &Path) {
    for beside in ["-wal", "-shm"] {
        let _ = fs::remove_file(format!("{}{beside}", file.display()));
    }
    fs::rename(copy, file).expect("put back");
}
