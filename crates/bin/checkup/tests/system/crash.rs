//! `kill -9` at random moments under load: answered calls stay, unanswered ones are settled, and all services agree.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::{Booking, BookingHistory, Cancelling, Checkup, Desk, Launch, Moving, Outcome, Party, Random, Sighting};
use testkit::{Tokens, connect, eventually, gather, seed};
use tonic::Status;
use tonic::transport::Channel;

use crate::embedded;
use crate::races::{all_screenings, claims};

const ROUNDS: usize = 50;
/// How many customers book, move and cancel at the same time.
const CALLERS: usize = 10;
/// The most bookings of one caller per round.
const TURNS: usize = 20;
/// The share of bookings that are moved, in per cent.
const MOVED_PERCENT: u64 = 30;

/// What the tasks of a run share.
pub(crate) struct Run {
    pub(crate) history: BookingHistory,
    pub(crate) slots: Vec<String>,
    pub(crate) tokens: Tokens,
    pub(crate) stop: AtomicBool,
}

impl Run {
    pub(crate) fn new(slots: Vec<String>, tokens: &Tokens) -> Self {
        Self { history: BookingHistory::default(), slots, tokens: tokens.clone(), stop: AtomicBool::new(false) }
    }
}

/// Keeps the outcome of a call. Panics at a status that no client may get.
fn outcome<T>(result: Result<T, Status>) -> Outcome<T> {
    match Outcome::of(result) {
        Ok(outcome) => outcome,
        Err(why) => panic!("{why}"),
    }
}

/// A booking that nobody has asked for yet. Some are to be moved, and some to be cancelled in the end.
pub(crate) fn wanted(run: &Run, customer: String, cancelled_percent: u64, random: &mut Random) -> Booking {
    let moves = random.chance(MOVED_PERCENT).then(|| Moving {
        slot: random.pick(&run.slots).clone(),
        request_id: random.uuid().to_string(),
        outcome: Outcome::Unknown,
    });
    let cancelling = random
        .chance(cancelled_percent)
        .then(|| Cancelling { request_id: random.uuid().to_string(), outcome: Outcome::Unknown });
    Booking {
        customer,
        slot: random.pick(&run.slots).clone(),
        request_id: random.uuid().to_string(),
        outcome: Outcome::Unknown,
        moves: moves.into_iter().collect(),
        cancelling,
    }
}

/// Makes, as the customer and with the same request_ids each time, every call about a booking whose outcome is unknown.
/// A call waits for the outcome of the one before it.
pub(crate) async fn ask(run: &Run, channel: &Channel, booking: &mut Booking) {
    let desk = Desk::of(&Party::new(channel.clone(), Some(&run.tokens.customer(&booking.customer))));
    if booking.outcome == Outcome::Unknown {
        let answer = desk.book(&booking.customer, &booking.slot, &booking.request_id).await;
        booking.outcome = outcome(answer.map(|screening| screening.name));
    }
    if let Outcome::Refused(_) = &booking.outcome {
        // A booking that was refused can be neither moved nor cancelled.
        (booking.moves, booking.cancelling) = (Vec::new(), None);
    }
    let Outcome::Done(name) = &booking.outcome else { return };
    for moving in &mut booking.moves {
        if moving.outcome == Outcome::Unknown {
            let answer = desk.reschedule(name, &moving.slot, &moving.request_id).await;
            moving.outcome = outcome(answer.map(|_| ()));
        }
        if moving.outcome == Outcome::Unknown {
            return;
        }
    }
    if let Some(cancelling) = &mut booking.cancelling
        && cancelling.outcome == Outcome::Unknown
    {
        cancelling.outcome = outcome(desk.cancel(name, &cancelling.request_id).await.map(|_| ()));
    }
}

/// One caller: books for one new customer after another, moves some of the bookings and cancels most of them, until an
/// answer is lost.
async fn call(run: Arc<Run>, channel: Channel, name: String, mut random: Random) {
    for turn in 0..TURNS {
        if run.stop.load(Ordering::Relaxed) {
            return;
        }
        let mut booking = wanted(&run, format!("{name}-{turn}"), 60, &mut random);
        ask(&run, &channel, &mut booking).await;
        let lost = booking.is_open();
        run.history.note(booking);
        if lost {
            return;
        }
    }
}

/// Runs load, and kills the process in the middle of it.
pub(crate) async fn round(checkup: Checkup, run: &Arc<Run>, number: usize, random: &mut Random) -> Launch {
    run.stop.store(false, Ordering::Relaxed);
    let connections = checkup.served().connections(3).await;
    let callers = (0..CALLERS)
        .map(|caller| {
            let channel = connections[caller % connections.len()].clone();
            tokio::spawn(call(Arc::clone(run), channel, format!("c{number}-{caller}"), random.fork()))
        })
        .collect();
    // The nemesis: the kill comes at a random moment of the load.
    tokio::time::sleep(Duration::from_millis(50 + random.below(350))).await;
    let launch = checkup.kill().await;
    run.stop.store(true, Ordering::Relaxed);
    gather(callers).await;
    launch
}

/// Repeats every call with an unknown outcome until it is known. Returns how many there were.
pub(crate) async fn settle(checkup: &Checkup, run: &Run) -> usize {
    let channel = connect(checkup.addr()).await;
    let open = run.history.take_unknown();
    let count = open.len();
    for mut booking in open {
        eventually("an unknown outcome to settle", async || {
            ask(run, &channel, &mut booking).await;
            if booking.is_open() { Err(format!("{booking:?}")) } else { Ok(()) }
        })
        .await;
        run.history.note(booking);
    }
    count
}

/// Checks what clients were answered against the screenings that exist.
pub(crate) async fn check_screenings(checkup: &Checkup, run: &Run, when: &str) {
    let seen: Vec<Sighting> =
        all_screenings(&checkup.auditor().await, "").await.into_iter().map(Sighting::from).collect();
    let wrong = run.history.disagreements(&seen);
    assert!(wrong.is_empty(), "{when}: {wrong:#?}");
}

/// Checks the services against each other.
pub(crate) async fn verify(checkup: &Checkup, when: &str) {
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{when}: {verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_kills_lose_nothing_and_double_nothing() {
    let mut random = seed("crash");
    let mut checkup = embedded().start().await;
    let admin = Desk::of(&checkup.admin().await);
    let mut slots = admin.open("roomy", &(5..35).collect::<Vec<_>>(), 200).await;
    slots.extend(admin.open("narrow", &(40..50).collect::<Vec<_>>(), 4).await);
    let run = Arc::new(Run::new(slots, checkup.tokens()));
    let mut lost = 0;
    for number in 0..ROUNDS {
        let launch = round(checkup, &run, number, &mut random).await;
        checkup = launch.start().await;
        check_screenings(&checkup, &run, &format!("after kill {number}")).await;
        // In two of three rounds the client repeats its calls first. In the third, the services have to settle them
        // alone.
        if number % 3 != 0 {
            lost += settle(&checkup, &run).await;
            verify(&checkup, &format!("after kill {number}, the client came back")).await;
        } else {
            verify(&checkup, &format!("after kill {number}, nobody came back")).await;
            lost += settle(&checkup, &run).await;
        }
    }
    let (answered, unknown) = run.history.counts();
    println!("{answered} bookings were answered over {ROUNDS} kills; {lost} answers were lost and settled");
    assert_eq!(unknown, 0);
    assert!(answered > ROUNDS * CALLERS && lost > 0, "there was load, and kills hit it");
    check_screenings(&checkup, &run, "in the end").await;
    verify(&checkup, "in the end").await;
    let auditor = checkup.auditor().await;
    let confirmed = all_screenings(&auditor, "state=CONFIRMED").await;
    for slot in &run.slots {
        let booked = confirmed.iter().filter(|one| one.slot == *slot).count();
        eventually("every released place to be back", async || {
            let held = claims(&auditor, slot, "ACTIVE").await.len();
            let counted = Desk::of(&auditor).booked(slot).await?;
            let agree = held == booked && usize::try_from(counted) == Ok(booked);
            if agree { Ok(()) } else { Err(format!("{slot}: {booked} bookings, {held} claims, {counted} counted")) }
        })
        .await;
    }
}
