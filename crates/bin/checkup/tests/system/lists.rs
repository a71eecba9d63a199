//! A rush of long lists: each is answered or refused soon, and reads of single rows and bookings are served meanwhile.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use contract::screening::v1::ListScreeningsRequest;
use fault::Reason;
use testkit::{Checkup, Desk, Party, gather, refused, rush, start_together};
use tokio::time::Instant;
use tonic::Status;

use crate::embedded;

/// The largest page size.
const ROWS: usize = 1_000;
const LISTS: usize = 400;
/// How soon a list must be refused: one second, and more on a busy machine. Before lists had to take turns it took five
/// seconds.
const SOON: Duration = Duration::from_secs(4);

/// Makes as many bookings of one slot as a page has rows.
async fn booked(checkup: &Checkup) -> String {
    let slot = Desk::of(&checkup.admin().await).open("listed", &[7], 2 * ROWS as i32).await.remove(0);
    let customers = checkup.served().customers("listed", ROWS, 4).await;
    let bookings = rush(ROWS, |i| {
        let (desk, slot) = (Desk::of(&customers[i]), slot.clone());
        async move { desk.book(&format!("listed-{i}"), &slot, "").await }
    });
    bookings.await.into_iter().for_each(|booking| drop(booking.expect("a place")));
    slot
}

/// Lists screenings. Returns how many there are and how long it took.
async fn list(party: Party) -> (Result<usize, Status>, Duration) {
    let begun = Instant::now();
    let request = ListScreeningsRequest { page_size: ROWS as i32, ..ListScreeningsRequest::default() };
    let listed = party.screening().list_screenings(request).await;
    (listed.map(|page| page.into_inner().screenings.len()), begun.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rush_of_lists_is_answered_or_refused_soon_and_stops_nobody_else() {
    let checkup = embedded().start().await;
    let slot = booked(&checkup).await;
    // Several callers, each within its share.
    let channels = checkup.served().connections(8).await;
    let tokens: Vec<String> = (0..8).map(|i| checkup.tokens().admin(&format!("root-{i}"), "*")).collect();
    let over = Arc::new(AtomicBool::new(false));
    let lee = {
        let (desk, over) = (Desk::of(&checkup.customer("lee").await), Arc::clone(&over));
        tokio::spawn(async move {
            let mut visits = 0;
            while !over.load(Ordering::Relaxed) {
                let booking = desk.book("lee", &slot, "").await.expect("a booking during the rush");
                desk.screening(&booking.name).await.expect("a booking is read during the rush");
                desk.slot(&slot).await.expect("a slot is read during the rush");
                desk.cancel(&booking.name, "").await.expect("a booking is cancelled during the rush");
                visits += 1;
            }
            visits
        })
    };
    let lists = start_together(LISTS, |i| list(Party::new(channels[i % 8].clone(), Some(&tokens[i % 8]))));
    let (mut answered, mut refusals, mut latest) = (0, 0, Duration::ZERO);
    for (listed, took) in gather(lists).await {
        match listed {
            Ok(rows) => {
                assert_eq!(rows, ROWS);
                answered += 1;
            }
            Err(status) => {
                let refusal = refused(Err::<(), _>(status), Reason::Overloaded);
                assert!(refusal.retry_after.is_some(), "{refusal:?}");
                latest = latest.max(took);
                refusals += 1;
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    let visits = lee.await.expect("nobody else is stopped");
    println!("{answered} lists answered, {refusals} refused within {latest:?}; {visits} visits meanwhile");
    assert!(answered > 0 && visits > 0, "{answered} lists and {visits} visits");
    assert!(refusals > 0, "400 lists at once are no rush for this machine");
    assert!(latest < SOON, "a list was refused after {latest:?}");
}

/// A list waits a second for its turn at a connection. Of one customer so few are under way that the lists of others
/// get theirs. Customers have no lists this long, so an auditor plays one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_of_one_caller_leave_turns_for_those_of_others() {
    const VISITS: usize = 10;
    const CROWD: usize = 64;
    let share = runtime::server::ServerOptions::default().max_calls_per_customer;
    let checkup = embedded().set("server.max_calls_per_caller", share).start().await;
    booked(&checkup).await;
    let token = checkup.tokens().auditor();
    let channels = checkup.served().connections(8).await;
    let over = Arc::new(AtomicBool::new(false));
    let crowd = start_together(CROWD, |i| {
        let (party, over) = (Party::new(channels[i % channels.len()].clone(), Some(&token)), Arc::clone(&over));
        async move {
            let (mut answered, mut refusals) = (0, 0);
            while !over.load(Ordering::Relaxed) {
                match list(party.clone()).await.0 {
                    Ok(_) => answered += 1,
                    Err(status) => {
                        let refusal = refused(Err::<(), _>(status), Reason::RateLimited);
                        tokio::time::sleep(refusal.retry_after.unwrap_or_default()).await;
                        refusals += 1;
                    }
                }
            }
            (answered, refusals)
        }
    });
    let admin = checkup.admin().await;
    let mut latest = Duration::ZERO;
    for _ in 0..VISITS {
        let (listed, took) = list(admin.clone()).await;
        assert_eq!(listed.expect("somebody else's list"), ROWS);
        latest = latest.max(took);
    }
    over.store(true, Ordering::Relaxed);
    let counts = gather(crowd).await;
    let (answered, refusals) = counts.iter().fold((0, 0), |sum, count| (sum.0 + count.0, sum.1 + count.1));
    println!("{answered} lists answered, {refusals} refused; somebody else's took {latest:?} at most");
    assert!(answered > 0 && refusals > 0, "{answered} answered, {refusals} refused");
}
