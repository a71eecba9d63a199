//! R22 and R23: a promotion against what its own customer does meanwhile.

use contract::screening::v1 as screening;
use fault::Reason;
use screening::screening::State;
use screening::{CancelScreeningRequest, Screening};
use testkit::{Desk, Party, eventually, in_days, refused, rush};
use tonic::{Response, Status};

use super::{Queue, Watch, agree, counts, of_slot, promoted};
use crate::launch;
use crate::races::all_screenings;

/// Waits until a booking is in this state and version.
async fn ends(auditor: &Party, name: &str, expected: (State, i64)) -> Screening {
    eventually("a booking to settle", async || {
        let seen = Desk::of(auditor).screening(name).await.map_err(|status| status.to_string())?;
        if (seen.state(), seen.version) == expected { Ok(seen) } else { Err(format!("{seen:?}, not {expected:?}")) }
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r22_of_a_promotion_and_an_own_booking_of_that_date_the_first_stands() {
    const TORN: usize = 16;
    const PATIENT: usize = 6;
    let checkup = launch().start().await;
    let elsewhere = Desk::of(&checkup.admin().await).open("elsewhere", &[7], 100).await.remove(0);
    let mut queue = Queue::set(&checkup, "sought-after", TORN, TORN).await;
    queue.wait(&checkup, "patient", PATIENT).await;
    let watch = Watch::over(&checkup, &queue.slot).await;
    let auditor = checkup.auditor().await;
    let answers = queue
        .released_while(&auditor, TORN, |i| {
            let (desk, elsewhere) = (Desk::of(&queue.waiters[i].0), elsewhere.clone());
            async move { desk.book(&format!("sought-after-waiter-{i}"), &elsewhere, "").await }
        })
        .await;

    let date = in_days(Desk::ZONE, 7);
    let mut expired = 0;
    for (i, answer) in answers.into_iter().enumerate() {
        let joined = &queue.waiters[i].1;
        let there = match answer {
            Ok(booked) => {
                let waited = ends(&auditor, &joined.name, (State::Expired, 2)).await;
                assert_eq!(waited.state_reason, "CUSTOMER_DATE_CONFLICT");
                expired += 1;
                booked
            }
            Err(status) => {
                let refusal = refused(Err::<(), _>(status), Reason::CustomerDateConflict);
                assert_eq!(refusal.value("screening"), joined.name, "the promotion came first");
                ends(&auditor, &joined.name, (State::Confirmed, 2)).await
            }
        };
        let filter = format!("customer=\"{}\" AND date=\"{date}\" AND state=CONFIRMED", joined.customer);
        assert_eq!(all_screenings(&auditor, &filter).await, [there], "one on that date");
    }
    println!("{expired} of {TORN} had booked elsewhere before they were promoted");
    // each place of these passes on to who waited behind them
    let names = queue.names();
    promoted(&auditor, &queue.slot, &names[TORN..], expired.min(PATIENT)).await;
    let places = TORN - expired + expired.min(PATIENT);
    let waiting = PATIENT.saturating_sub(expired);
    assert_eq!(waiting + places, TORN + PATIENT - expired);
    counts(&auditor, &queue.slot, places, waiting).await;
    watch.end().await;
    agree(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r22_who_waits_at_two_hospitals_for_one_date_gets_one_place() {
    const CUSTOMERS: usize = 8;
    let checkup = launch().start().await;
    let first = Queue::set(&checkup, "first-choice", CUSTOMERS, 0).await;
    let second = Queue::set(&checkup, "second-choice", CUSTOMERS, 0).await;
    let customers = checkup.served().customers("undecided", CUSTOMERS, 4).await;
    let mut waiting = Vec::new();
    for (i, customer) in customers.iter().enumerate() {
        for queue in [&first, &second] {
            let joined = Desk::of(customer).join(&format!("undecided-{i}"), &queue.slot, "").await;
            waiting.push(joined.expect("who waits is not booked").name);
        }
    }
    let auditor = checkup.auditor().await;
    rush(2 * CUSTOMERS, |i| {
        let (desk, name) = if i % 2 == 0 { first.holder(i / 2) } else { second.holder(i / 2) };
        async move { desk.cancel(&name, "").await.expect("cancelled") }
    })
    .await;
    let mut of_first = 0;
    for pair in waiting.chunks(2) {
        let confirmed = eventually("one of two promotions to stand", async || {
            let mut states = Vec::new();
            for name in pair {
                let seen = Desk::of(&auditor).screening(name).await.map_err(|status| status.to_string())?;
                states.push((seen.state(), seen.version, seen.state_reason));
            }
            let expired = (State::Expired, 2, "CUSTOMER_DATE_CONFLICT".to_owned());
            let is = |at: usize| states[at].0 == State::Confirmed && states[1 - at] == expired;
            (0..2).find(|at| is(*at)).ok_or_else(|| format!("{states:?}"))
        })
        .await;
        of_first += usize::from(confirmed == 0);
    }
    println!("{of_first} of {CUSTOMERS} have their first choice");
    counts(&auditor, &first.slot, of_first, 0).await;
    counts(&auditor, &second.slot, CUSTOMERS - of_first, 0).await;
    agree(&checkup).await;
}

async fn cancel(party: &Party, name: &str, etag: &str) -> Result<Screening, Status> {
    let (name, etag) = (name.to_owned(), etag.to_owned());
    let request = CancelScreeningRequest { name, etag, ..CancelScreeningRequest::default() };
    party.screening().cancel_screening(request).await.map(Response::into_inner)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r23_of_a_promotion_and_a_leaving_the_first_wins_and_nothing_is_resurrected() {
    const TORN: usize = 20;
    const PATIENT: usize = 12;
    let checkup = launch().start().await;
    let mut queue = Queue::set(&checkup, "of-two-minds", TORN, TORN).await;
    queue.wait(&checkup, "patient", PATIENT).await;
    let watch = Watch::over(&checkup, &queue.slot).await;
    // every other one leaves with the etag of the booking that waits
    let has_etag = |i: usize| i.is_multiple_of(2);
    let auditor = checkup.auditor().await;
    let answers = queue
        .released_while(&auditor, TORN, |i| {
            let (party, joined) = queue.waiters[i].clone();
            async move { cancel(&party, &joined.name, if has_etag(i) { &joined.etag } else { "" }).await }
        })
        .await;

    let (mut left, mut cancelled, mut stayed) = (0, 0, 0);
    for (i, answer) in answers.into_iter().enumerate() {
        let name = &queue.waiters[i].1.name;
        match answer {
            Ok(gone) if gone.version == 2 => {
                assert_eq!((gone.state(), gone.waitlist_position), (State::Cancelled, 0));
                left += 1;
            }
            Ok(gone) => {
                assert_eq!((gone.state(), gone.version), (State::Cancelled, 3), "promoted, then cancelled");
                assert!(!has_etag(i), "{name} was cancelled with an etag from before it was promoted");
                cancelled += 1;
            }
            Err(status) => {
                let refusal = refused(Err::<(), _>(status), Reason::EtagMismatch);
                let promoted = ends(&auditor, name, (State::Confirmed, 2)).await;
                assert!(has_etag(i) && refusal.value("currentEtag") == promoted.etag, "{refusal:?}");
                stayed += 1;
            }
        }
    }
    println!("{left} of {TORN} left the queue, {cancelled} cancelled the place that they got, {stayed} have it");
    let places = TORN.min(stayed + PATIENT);
    promoted(&auditor, &queue.slot, &queue.names()[TORN..], places - stayed).await;
    counts(&auditor, &queue.slot, places, stayed + PATIENT - places).await;
    watch.end().await;
    agree(&checkup).await;
    // every event of a promotion has arrived by now
    let seen = of_slot(&auditor, &queue.slot).await;
    let gone = queue.names()[..TORN].iter().filter(|name| seen[**name].0 == State::Cancelled).count();
    assert_eq!(gone, left + cancelled);
}
