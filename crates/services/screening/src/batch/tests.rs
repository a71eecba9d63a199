//! A batch that runs again after a commit of unknown outcome changes nothing and answers the same.

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

fn slot(day: u8) -> SlotId {
    SlotId::parse(&format!("hospitals/seoul/slots/2027-01-{day:02}")).unwrap()
}

fn terms() -> Terms {
    Terms { hospital_display_name: "Seoul".into(), time_zone: "Asia/Seoul".into(), cancellation_close_time: None }
}

fn book(day: u8, chosen: bool, parked: bool) -> Book {
    let booking = Booking {
        id: ScreeningId(uuid_v7()),
        customer: CustomerId::from_segment("kim").unwrap(),
        customer_display_name: String::new(),
        slot: slot(day),
    };
    let request = chosen.then(|| request("CreateScreening", true));
    Book { request, cause: cause(), booking, terms: terms(), parked }
}

#[tokio::test]
async fn callers_commands_survive_commits_of_unknown_outcome() {
    for trouble in TROUBLE {
        let bench = Bench::new().await;
        for (day, chosen) in [(1, true), (2, false)] {
            let before = bench.events().await;
            bench.suffer(trouble);
            let Booked::Row(made) = bench.writer.book(book(day, chosen, false), deadline()).await.unwrap() else {
                panic!("not booked")
            };
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
        let Booked::Row(parked) = bench.writer.book(book(1, true, true), deadline()).await.unwrap() else {
            panic!("not parked")
        };
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
        bench.writer.done(Command::Fence(vec![orphan]), deadline()).await.unwrap();
        assert_eq!(bench.events().await, 3);

        let revoked = ClaimFact::Revoked {
            claim: ClaimId { screening: ScreeningId(uuid_v7()), generation: 1 },
            slot: slot(3),
            reason: Revocation::SlotCancelled,
            message: String::new(),
        };
        let event_id = uuid_v7();
        let claim_event = ClaimEvent { inbox_key: InboxKey::alone(event_id), event_id, cause: cause(), fact: revoked };
        bench.suffer(trouble);
        bench.writer.done(Command::Consume(vec![claim_event.clone(), claim_event]), deadline()).await.unwrap();
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
    let (first, second) = (book(1, true, false), book(1, true, false));
    let (id, other) = (first.booking.id, second.booking.id);
    let command = Ask::Cancel { by: Party::Customer, message: String::new(), etag: String::new() };
    let request = request("CancelScreening", true);
    let change = BookingChange { request, scope: Scope::Everything, id, command, cause: cause() };
    // all of them are queued before the writer runs, so they share a batch
    let (first, refused, cancelled, booked) = tokio::join!(
        bench.writer.book(first, deadline()),
        bench.writer.book(second.clone(), deadline()),
        bench.writer.change(change, deadline()),
        bench
            .writer
            .book(Book { booking: Booking { id: ScreeningId(uuid_v7()), ..second.booking }, ..second }, deadline()),
    );
    assert!(matches!(first.unwrap(), Booked::Row(row) if row.state == State::Confirmed));
    assert!(
        matches!(refused.unwrap(), Booked::Refused(fault) if fault.reason() == fault::Reason::CustomerDateConflict)
    );
    assert_eq!(cancelled.unwrap().state, State::Cancelled);
    assert!(matches!(booked.unwrap(), Booked::Row(row) if row.state == State::Confirmed));
    let rows = tables::by_ids(bench.database.reader(), [id, other]).await.unwrap();
    assert_eq!((rows[&id].state, rows[&id].version), (State::Cancelled, 2));
    assert!(rows[&other].is_fence());
    assert_eq!(bench.events().await, 4);
}

/// A restored record has no fingerprint. It answers calls about its own booking and refuses calls about another one.
#[tokio::test]
async fn a_call_whose_record_was_made_again_is_answered_as_before() {
    let bench = Bench::new().await;
    let wanted = book(1, true, false);
    let (asked, booking) = (wanted.request.clone().unwrap(), wanted.booking.clone());
    let Booked::Row(made) = bench.writer.book(wanted.clone(), deadline()).await.unwrap() else { panic!("not booked") };
    let Booked::Row(other) = bench.writer.book(book(2, true, false), deadline()).await.unwrap() else {
        panic!("not booked")
    };
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
    let forgetful =
        sea_orm::Database::connect(format!("sqlite://{}/screening.db", bench._dir.path().display())).await.unwrap();
    sea_orm::ConnectionTrait::execute_unprepared(&forgetful, "UPDATE request SET fingerprint = x''").await.unwrap();
    let again = bench.writer.change(cancel(made.id, &cancelling), deadline()).await.unwrap();
    assert_eq!((again.id, again.state), (made.id, State::Cancelled));
    let refused = bench.writer.change(cancel(other.id, &cancelling), deadline()).await.unwrap_err();
    assert_eq!(refused.reason(), fault::Reason::RequestIdReused);
    let Booked::Row(again) = bench.writer.book(wanted, deadline()).await.unwrap() else { panic!("not answered") };
    assert_eq!(again.id, made.id);
    let elsewhere = Booking { id: ScreeningId(uuid_v7()), slot: slot(3), ..booking };
    let elsewhere = Book { request: Some(asked), booking: elsewhere, ..book(3, false, false) };
    let Booked::Refused(refused) = bench.writer.book(elsewhere, deadline()).await.unwrap() else { panic!("answered") };
    assert_eq!(refused.reason(), fault::Reason::RequestIdReused);
}
