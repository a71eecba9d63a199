//! A batch that runs again after a commit of unknown outcome changes nothing and answers the same.

mod limits;
mod waiting;

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use domain::access::Caller;
use domain::frame::Opened;
use domain::ids::{ClaimId, CustomerId};
use domain::screening::{Command as Ask, Party, State};
use runtime::entropy::uuid_v7;
use store::{Database, Location, Nemesis, Verdict, WriterOptions};

use super::*;
use crate::migration::Migrator;

/// Uses up these verdicts, one per commit and the last one first. Afterwards every commit succeeds.
struct Fates(Mutex<Vec<Verdict>>);

impl Nemesis for Fates {
    fn at_commit(&self) -> Verdict {
        self.0.lock().unwrap().pop().unwrap_or(Verdict::Commit)
    }
}

/// A writer on a database whose commits can be made to fail.
struct Bench {
    database: Database,
    fates: std::sync::Arc<Fates>,
    writer: ScreeningWriter,
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let database = Database::open::<Migrator>(&Location::Sqlite(dir.path().join("screening.db"))).await.unwrap();
        let fates = std::sync::Arc::new(Fates(Mutex::default()));
        let nemesis: std::sync::Arc<dyn Nemesis> = fates.clone();
        let database = database.with_nemesis(nemesis);
        let handler = ScreeningBatchHandler::new(Clock::system(), screening::decide);
        let (writer, writing) = Writer::new("screening", handler, database.clone(), WriterOptions::default());
        #[allow(clippy::disallowed_methods, reason = "the test has no process that could own it")]
        tokio::spawn(writing);
        Self { database, fates, writer: ScreeningWriter::new(writer), _dir: dir }
    }

    fn suffer(&self, fates: &[Verdict]) {
        *self.fates.0.lock().unwrap() = fates.to_vec();
    }

    async fn events(&self) -> usize {
        let rows = outbox::read_after(self.database.reader(), 0, 1_000).await.unwrap();
        rows.iter().map(|row| Opened::new(&row.payload).events.len()).sum()
    }

    async fn book(&self, book: Book) -> Booked {
        self.writer.booked(Command::Book(book), deadline()).await.unwrap()
    }

    async fn reschedule(&self, moving: Move) -> Booked {
        self.writer.booked(Command::Reschedule(moving), deadline()).await.unwrap()
    }

    /// Applies an event of Hospital.
    async fn consume(&self, fact: ClaimFact) {
        self.writer.done(Command::Consume(vec![claim_event(fact)]), deadline()).await.unwrap();
    }

    /// The claims that are watched.
    async fn watched(&self) -> Vec<Orphan> {
        watch::due(self.database.reader(), Timestamp::MAX, None, 100).await.unwrap()
    }

    async fn row(&self, id: ScreeningId) -> Screening {
        tables::by_ids(self.database.reader(), [id]).await.unwrap().remove(&id).unwrap()
    }

    /// Runs a statement of the test's own.
    async fn execute(&self, sql: &str) {
        let url = format!("sqlite://{}/screening.db", self._dir.path().display());
        let own = sea_orm::Database::connect(url).await.unwrap();
        sea_orm::ConnectionTrait::execute_unprepared(&own, sql).await.unwrap();
    }
}

const TROUBLE: [&[Verdict]; 3] =
    [&[Verdict::CommitAndFail], &[Verdict::Lose], &[Verdict::CommitAndFail, Verdict::Lose, Verdict::CommitAndFail]];

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn cause() -> Cause {
    Cause {
        actor: "customer:kim".into(),
        request_id: String::new(),
        causation_id: String::new(),
        traceparent: String::new(),
    }
}

fn request(method: &'static str, chosen: bool) -> Request {
    let kim = Caller::Customer(CustomerId::from_segment("kim").unwrap());
    let content = contract::screening::v1::GetScreeningRequest::default();
    Request::new(&kim, method, chosen.then(uuid_v7), uuid_v7(), &content)
}

/// The slot of a date that is not over while anybody runs this test, because the clock is the machine's.
fn slot(day: u8) -> SlotId {
    SlotId::parse(&format!("hospitals/seoul/slots/2099-01-{day:02}")).unwrap()
}

fn terms() -> Terms {
    Terms { hospital_display_name: "Seoul".into(), time_zone: "Asia/Seoul".into(), ..Terms::default() }
}

fn book(day: u8, chosen: bool, holds: Holds) -> Book {
    let booking = Booking {
        id: ScreeningId(uuid_v7()),
        customer: CustomerId::from_segment("kim").unwrap(),
        customer_display_name: String::new(),
        slot: slot(day),
        joins_waitlist: holds != Holds::Place,
    };
    let request = chosen.then(|| request("CreateScreening", true));
    Book { request, cause: cause(), booking, terms: terms(), holds }
}

/// A move to the slot of this day, where it got a place for a claim of this generation.
fn moving(id: ScreeningId, day: u8, generation: i32) -> Move {
    let asked = Reschedule { by: Party::Customer, slot: slot(day), message: "a trip".into(), etag: String::new() };
    let request = request("RescheduleScreening", true);
    Move { request, scope: Scope::Everything, id, asked, generation, terms: terms(), cause: cause() }
}

fn claim_event(fact: ClaimFact) -> ClaimEvent {
    let event_id = uuid_v7();
    ClaimEvent { inbox_key: InboxKey::alone(event_id), event_id, cause: cause(), fact }
}

/// The booking that a command wrote or kept.
fn written(booked: Booked) -> Screening {
    match booked {
        Booked::Row(row) => *row,
        other => panic!("{other:?}"),
    }
}

/// Why a command was refused.
fn refusal(booked: Booked) -> fault::Reason {
    match booked {
        Booked::Refused(fault) | Booked::Left(fault) => fault.reason(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn callers_commands_survive_commits_of_unknown_outcome() {
    for trouble in TROUBLE {
        let bench = Bench::new().await;
        for (day, chosen) in [(1, true), (2, false)] {
            let before = bench.events().await;
            bench.suffer(trouble);
            let made = written(bench.book(book(day, chosen, Holds::Place)).await);
            assert_eq!((made.state, made.version), (State::Confirmed, 1));
            assert_eq!(bench.events().await, before + 1);

            let command = Ask::Cancel { by: Party::Customer, message: String::new(), etag: String::new() };
            let request = request("CancelScreening", chosen);
            let change = BookingChange { request, scope: Scope::Everything, id: made.id, command, cause: cause() };
            bench.suffer(trouble);
            let cancelled = bench.writer.change(change, deadline()).await.unwrap();
            assert_eq!((cancelled.state, cancelled.version), (State::Cancelled, 2));
            assert_eq!(bench.events().await, before + 2);
        }
    }
}

#[tokio::test]
async fn our_own_commands_survive_them_too() {
    for trouble in TROUBLE {
        let bench = Bench::new().await;
        let parked = written(bench.book(book(1, true, Holds::Nothing)).await);
        for command in [Ask::GiveUp { reason: fault::Reason::SlotFull }, Ask::Reject] {
            bench.suffer(trouble);
            let settle = Settle { id: parked.id, command, cause: cause() };
            bench.writer.settle(settle, deadline()).await.unwrap();
        }
        assert_eq!(bench.events().await, 2);

        let claim = ClaimId { screening: ScreeningId(uuid_v7()), generation: 1 };
        let orphan = Orphan {
            claim,
            slot: slot(2),
            seen: Timestamp::UNIX_EPOCH,
            event_id: uuid_v7(),
            traceparent: String::new(),
        };
        bench.suffer(trouble);
        assert_eq!(
            bench.writer.fence(vec![orphan], deadline()).await.unwrap(),
            Unsettled::default(),
            "its event has it released"
        );
        assert_eq!(bench.events().await, 3);

        let revoked = ClaimFact::Revoked {
            claim: ClaimId { screening: ScreeningId(uuid_v7()), generation: 1 },
            slot: slot(3),
            reason: Revocation::SlotCancelled,
            message: String::new(),
        };
        let revoked = claim_event(revoked);
        bench.suffer(trouble);
        bench.writer.done(Command::Consume(vec![revoked.clone(), revoked]), deadline()).await.unwrap();
        assert_eq!(bench.events().await, 4);

        bench.suffer(trouble);
        let report = RefusalReport { request: request("ReportRefusals", false), counts: vec![(slot(4), 7)] };
        bench.writer.done(Command::Report(report), deadline()).await.unwrap();
        assert_eq!(bench.events().await, 5);
    }
}

#[tokio::test]
async fn one_batch_decides_in_order_and_writes_what_is_left() {
    let bench = Bench::new().await;
    let (first, second) = (book(1, true, Holds::Place), book(1, true, Holds::Place));
    let (id, other) = (first.booking.id, second.booking.id);
    let command = Ask::Cancel { by: Party::Customer, message: String::new(), etag: String::new() };
    let request = request("CancelScreening", true);
    let change = BookingChange { request, scope: Scope::Everything, id, command, cause: cause() };
    // all of them are queued before the writer runs, so they share a batch
    let (first, refused, cancelled, booked) = tokio::join!(
        bench.book(first),
        bench.book(second.clone()),
        bench.writer.change(change, deadline()),
        bench.book(Book { booking: Booking { id: ScreeningId(uuid_v7()), ..second.booking }, ..second }),
    );
    assert_eq!(written(first).state, State::Confirmed);
    assert_eq!(refusal(refused), fault::Reason::CustomerDateConflict);
    assert_eq!(cancelled.unwrap().state, State::Cancelled);
    assert_eq!(written(booked).state, State::Confirmed);
    let rows = tables::by_ids(bench.database.reader(), [id, other]).await.unwrap();
    assert_eq!((rows[&id].state, rows[&id].version), (State::Cancelled, 2));
    assert!(rows[&other].is_fence());
    assert_eq!(bench.events().await, 4);
}

/// A restored record has no fingerprint. It answers calls about its own booking and refuses calls about another one.
#[tokio::test]
async fn a_call_whose_record_was_made_again_is_answered_as_before() {
    let bench = Bench::new().await;
    let wanted = book(1, true, Holds::Place);
    let (asked, booking) = (wanted.request.clone().unwrap(), wanted.booking.clone());
    let made = written(bench.book(wanted.clone()).await);
    let other = written(bench.book(book(2, true, Holds::Place)).await);
    let cancel = |id, request: &Request| BookingChange {
        request: request.clone(),
        scope: Scope::Everything,
        id,
        command: Ask::Cancel { by: Party::Customer, message: String::new(), etag: String::new() },
        cause: cause(),
    };
    let cancelling = request("CancelScreening", true);
    bench.writer.change(cancel(made.id, &cancelling), deadline()).await.unwrap();
    bench.writer.change(cancel(made.id, &request("CancelScreening", true)), deadline()).await.unwrap_err();

    // a recovery leaves records without a fingerprint
    bench.execute("UPDATE request SET fingerprint = x''").await;
    let again = bench.writer.change(cancel(made.id, &cancelling), deadline()).await.unwrap();
    assert_eq!((again.id, again.state), (made.id, State::Cancelled));
    let refused = bench.writer.change(cancel(other.id, &cancelling), deadline()).await.unwrap_err();
    assert_eq!(refused.reason(), fault::Reason::RequestIdReused);
    assert_eq!(written(bench.book(wanted).await).id, made.id);
    let elsewhere = Booking { id: ScreeningId(uuid_v7()), slot: slot(3), ..booking };
    let elsewhere = Book { request: Some(asked), booking: elsewhere, ..book(3, false, Holds::Place) };
    assert_eq!(refusal(bench.book(elsewhere).await), fault::Reason::RequestIdReused);
}

#[tokio::test]
async fn a_move_of_unknown_outcome_is_made_once() {
    for trouble in TROUBLE {
        let bench = Bench::new().await;
        let made = written(bench.book(book(1, true, Holds::Place)).await);
        bench.suffer(trouble);
        let moved = written(bench.reschedule(moving(made.id, 2, 2)).await);
        assert_eq!((moved.state, moved.version, moved.generation), (State::Confirmed, 3, 2));
        assert_eq!((&moved.slot, bench.events().await), (&slot(2), 3));

        // a refusal fences the claim that it brought, as often as it runs
        let cancel = Ask::Cancel { by: Party::Customer, message: String::new(), etag: String::new() };
        let request = request("CancelScreening", false);
        let change = BookingChange { request, scope: Scope::Everything, id: made.id, command: cancel, cause: cause() };
        let cancelled = bench.writer.change(change, deadline()).await.unwrap();
        bench.suffer(trouble);
        let refused = bench.reschedule(moving(made.id, 3, 3)).await;
        assert_eq!(refusal(refused), fault::Reason::ScreeningStateInvalid);
        assert_eq!(bench.row(made.id).await, Screening { fenced_generation: 3, ..cancelled });
        assert_eq!(bench.events().await, 4);
    }
}

#[tokio::test]
async fn one_batch_moves_a_booking_and_takes_the_date_that_it_leaves() {
    let bench = Bench::new().await;
    let made = written(bench.book(book(1, true, Holds::Place)).await);
    let third = written(bench.book(book(3, true, Holds::Place)).await);
    let again = moving(made.id, 2, 2);
    // in this order: day 1 is free for the second, day 2 is taken for the third, and a repetition changes nothing
    let (moved, booked, refused, repeated) = tokio::join!(
        bench.reschedule(again.clone()),
        bench.book(book(1, true, Holds::Place)),
        bench.reschedule(moving(third.id, 2, 2)),
        bench.reschedule(again),
    );
    let moved = written(moved);
    assert_eq!((&moved.slot, moved.version), (&slot(2), 3));
    assert_eq!(written(booked).slot, slot(1));
    assert_eq!(refusal(refused), fault::Reason::CustomerDateConflict);
    assert_eq!(written(repeated), moved);
    assert_eq!(bench.row(made.id).await, moved);
    assert_eq!(bench.row(third.id).await, Screening { fenced_generation: 2, ..third });
    assert_eq!(bench.events().await, 2 + 2 + 1);
}

/// No event tells Hospital of such a claim, so it is watched until Hospital has acknowledged its release.
#[tokio::test]
async fn a_claim_of_a_move_is_watched_until_it_is_released_or_held() {
    let bench = Bench::new().await;
    let made = written(bench.book(book(1, true, Holds::Place)).await);
    let claim = |generation| ClaimId { generation, ..made.claim() };
    let reserved = |generation, day| ClaimFact::Made { claim: claim(generation), slot: slot(day) };
    bench.consume(reserved(1, 1)).await;
    assert_eq!(bench.watched().await, []);
    bench.consume(reserved(2, 2)).await;
    let due = bench.watched().await;
    assert_eq!(due.iter().map(|orphan| orphan.claim).collect::<Vec<_>>(), [claim(2)]);
    for _ in 0..2 {
        assert_eq!(bench.writer.fence(due.clone(), deadline()).await.unwrap().left, due);
        assert_eq!(bench.watched().await, due);
    }
    assert!(matches!(bench.reschedule(moving(made.id, 2, 2)).await, Booked::Fenced));
    bench.writer.done(Command::Unwatch(vec![claim(2)]), deadline()).await.unwrap();
    assert_eq!(bench.watched().await, []);

    // the next claim is watched too, until the booking holds it
    bench.consume(reserved(3, 2)).await;
    let due = bench.watched().await;
    assert_eq!(written(bench.reschedule(moving(made.id, 2, 3)).await).claim(), claim(3));
    assert_eq!(bench.writer.fence(due, deadline()).await.unwrap(), Unsettled::default());
    bench.consume(reserved(3, 2)).await;
    assert_eq!(bench.watched().await, []);
    assert_eq!(bench.events().await, 3);
}

#[tokio::test]
async fn claims_that_stay_watched_do_not_hide_those_behind_them() {
    let bench = Bench::new().await;
    // in one batch, so that all are watched since the same moment
    let claims = (0..5).map(|_| ClaimId { screening: ScreeningId(uuid_v7()), generation: 2 });
    let events = claims.map(|claim| claim_event(ClaimFact::Made { claim, slot: slot(1) })).collect();
    bench.writer.done(Command::Consume(events), deadline()).await.unwrap();
    let (mut seen, mut after) = (HashSet::new(), None);
    loop {
        let page = watch::due(bench.database.reader(), Timestamp::MAX, after.as_ref(), 2).await.unwrap();
        seen.extend(page.iter().map(|orphan| orphan.claim));
        after = page.last().cloned();
        if page.len() < 2 {
            break;
        }
    }
    assert_eq!(seen.len(), 5);
}
