//! Bookings that wait for a place.

use jiff::SignedDuration;

use super::*;

/// A position from which nobody gets a place any more at this instant.
fn queued(closes_at: Timestamp) -> Queued {
    Queued { position: 3, closes_at }
}

/// A position in a queue that is open while anybody runs this test.
fn ticket() -> Queued {
    queued("2098-12-31T00:00:00Z".parse().unwrap())
}

fn promoted(row: &Screening) -> ClaimFact {
    ClaimFact::Promoted { claim: row.claim(), slot: row.slot.clone() }
}

/// A booking as it was asked for.
fn booking(row: &Screening) -> Booking {
    row.booking(row.customer.clone().unwrap())
}

fn settling(row: &Screening, command: Ask) -> Settle {
    Settle { id: row.id, command, cause: cause() }
}

fn joining(row: &Screening) -> Settle {
    let command = Ask::Queue { booking: booking(row), terms: terms(), queued: ticket(), conflict: None };
    settling(row, command)
}

fn confirming(row: &Screening) -> Settle {
    settling(row, Ask::Confirm { booking: booking(row), terms: terms(), conflict: None })
}

fn leaving(row: &Screening) -> BookingChange {
    let command = Ask::Cancel { by: Party::Customer, message: String::new(), etag: String::new() };
    let request = request("CancelScreening", true);
    BookingChange { request, scope: Scope::Everything, id: row.id, command, cause: cause() }
}

#[tokio::test]
async fn what_waits_survives_commits_of_unknown_outcome() {
    for trouble in TROUBLE {
        let bench = Bench::new().await;
        bench.suffer(trouble);
        let waiting = written(bench.book(book(1, true, Holds::Ticket(ticket()))).await);
        assert_eq!((waiting.state, waiting.version, waiting.queued), (State::Waitlisted, 1, Some(ticket())));
        bench.suffer(trouble);
        bench.consume(promoted(&waiting)).await;
        let row = bench.row(waiting.id).await;
        assert_eq!((row.state, row.version, row.queued), (State::Confirmed, 2, None));

        let over = queued(Clock::system().now() - SignedDuration::from_secs(1));
        let waiting = written(bench.book(book(2, true, Holds::Ticket(over))).await);
        for _ in 0..2 {
            bench.suffer(trouble);
            let expired = bench.writer.settle(settling(&waiting, Ask::Expire), deadline()).await.unwrap();
            assert_eq!((expired.state, expired.version), (State::Expired, 2));
            assert_eq!(expired.queued.map(|queued| queued.position), Some(3));
        }
        assert_eq!(bench.events().await, 4);
        assert_eq!(bench.watched().await, []);
    }
}

/// Hospital's answer that it waits is on its way; the event of its promotion overtakes it.
#[tokio::test]
async fn a_promotion_that_finds_a_pending_booking_is_asked_about() {
    let bench = Bench::new().await;
    let parked = written(bench.book(book(1, true, Holds::Nothing)).await);
    bench.consume(promoted(&parked)).await;
    assert_eq!(bench.row(parked.id).await, parked);
    assert_eq!(bench.watched().await, []);

    let waiting = bench.writer.settle(joining(&parked), deadline()).await.unwrap();
    assert_eq!((waiting.state, waiting.version), (State::Waitlisted, 2));
    let due = bench.watched().await;
    assert_eq!(due.iter().map(|orphan| orphan.claim).collect::<Vec<_>>(), [parked.claim()]);
    for _ in 0..2 {
        let unsettled = bench.writer.fence(due.clone(), deadline()).await.unwrap();
        assert_eq!(unsettled, Unsettled { left: vec![], waiting: vec![waiting.clone()] });
        assert_eq!(bench.watched().await, due, "until Hospital has answered");
    }
    let confirmed = bench.writer.settle(confirming(&waiting), deadline()).await.unwrap();
    assert_eq!((confirmed.state, confirmed.version), (State::Confirmed, 3));
    assert_eq!(bench.writer.fence(due, deadline()).await.unwrap(), Unsettled::default());
    assert_eq!(bench.watched().await, []);
}

/// The grace of a claim that was watched before may end in the batch in which its booking joins the queue.
#[tokio::test]
async fn a_claim_stays_watched_whose_booking_joins_while_it_is_looked_at() {
    for looked_at_first in [true, false] {
        let bench = Bench::new().await;
        let wanted = book(1, true, Holds::Nothing);
        let claim = wanted.booking.claim();
        bench.consume(ClaimFact::Made { claim, slot: slot(1) }).await;
        let due = bench.watched().await;
        let parked = written(bench.book(wanted).await);
        let (look, join) = (bench.writer.fence(due, deadline()), bench.writer.settle(joining(&parked), deadline()));
        let waiting = if looked_at_first {
            let (unsettled, waiting) = tokio::join!(look, join);
            assert_eq!(unsettled.unwrap(), Unsettled::default());
            waiting.unwrap()
        } else {
            let (waiting, unsettled) = tokio::join!(join, look);
            let waiting = waiting.unwrap();
            assert_eq!(unsettled.unwrap().waiting, std::slice::from_ref(&waiting));
            waiting
        };
        assert_eq!(waiting.state, State::Waitlisted);
        assert_eq!(bench.watched().await.len(), 1, "{looked_at_first}");
    }
}

#[tokio::test]
async fn one_batch_lets_a_customer_wait_once_for_a_slot() {
    let bench = Bench::new().await;
    let joins = || book(1, true, Holds::Ticket(ticket()));
    let (first, second, third, other) = (joins(), joins(), joins(), book(2, true, Holds::Ticket(ticket())));
    let row = Screening { id: first.booking.id, ..written(bench.book(book(9, true, Holds::Place)).await) };
    let (joined, refused, elsewhere, left, again) = tokio::join!(
        bench.book(first),
        bench.book(second.clone()),
        bench.book(other),
        bench.writer.change(leaving(&row), deadline()),
        bench.book(third),
    );
    assert_eq!(written(joined).state, State::Waitlisted);
    assert_eq!(refusal(refused), fault::Reason::CustomerDateConflict);
    assert_eq!(written(elsewhere).state, State::Waitlisted);
    let left = left.unwrap();
    assert_eq!((left.state, left.waited_in_vain()), (State::Cancelled, true));
    assert_eq!(written(again).state, State::Waitlisted);
    // the event of the fence gives the ticket back
    let fence = bench.row(second.booking.id).await;
    assert_eq!((fence.is_fence(), fence.state), (true, State::Rejected));
    // and in a batch of its own, against what is stored
    assert_eq!(refusal(bench.book(joins()).await), fault::Reason::CustomerDateConflict);
    let parked = book(1, true, Holds::Nothing);
    assert_eq!(refusal(bench.book(parked).await), fault::Reason::CustomerDateConflict);
}

/// Two replicas can write the two at the same time, for no index forbids it.
#[tokio::test]
async fn a_pending_booking_does_not_join_a_queue_in_which_its_customer_waits() {
    let bench = Bench::new().await;
    let other = written(bench.book(book(1, true, Holds::Ticket(ticket()))).await);
    bench.writer.change(leaving(&other), deadline()).await.unwrap();
    let parked = written(bench.book(book(1, true, Holds::Nothing)).await);
    bench.execute("UPDATE screening SET state = 11 WHERE state = 4").await;
    let given_up = bench.writer.settle(joining(&parked), deadline()).await.unwrap();
    assert_eq!((given_up.state, given_up.given_up), (State::Pending, Some(fault::Reason::CustomerDateConflict)));
    let rejected = bench.writer.settle(settling(&parked, Ask::Reject), deadline()).await.unwrap();
    assert_eq!((rejected.state, rejected.state_reason.as_str()), (State::Rejected, "CUSTOMER_DATE_CONFLICT"));
    assert_eq!(bench.row(other.id).await.state, State::Waitlisted);
}

#[tokio::test]
async fn what_is_over_is_found_oldest_first_and_what_stays_hides_nothing() {
    let bench = Bench::new().await;
    let now = Clock::system().now();
    // two are over at the same instant, and one is not
    let ages = [5, 30, 5, 20, 10, -60];
    for (day, age) in (1..).zip(ages) {
        let closes_at = timestamp(micros(now - SignedDuration::from_secs(age)));
        written(bench.book(book(day, true, Holds::Ticket(queued(closes_at)))).await);
    }
    written(bench.book(book(9, true, Holds::Place)).await);
    let (mut seen, mut after) = (Vec::new(), None);
    loop {
        let page = tables::over(bench.database.reader(), now, after, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        after = last.queued.map(|queued| (queued.closes_at, last.id));
        seen.extend(page.into_iter().map(|row| row.slot.date.day()));
    }
    seen[3..].sort_unstable();
    assert_eq!(seen, [2, 4, 5, 1, 3]);
    assert_eq!(tables::count_waiting(bench.database.reader()).await.unwrap(), 6);
}
