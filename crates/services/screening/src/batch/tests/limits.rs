//! Limits of hospitals on the bookings of a customer.

use domain::screening::CustomerBookings;
use store::Lookup;

use super::*;
use crate::tables::booking_lookup::{BookingLookup, BookingQuery};

fn at_most(bookings: i32) -> Terms {
    Terms { customer_limit: Some(bookings), ..terms() }
}

fn limited(day: u8, bookings: i32) -> Book {
    Book { terms: at_most(bookings), ..book(day, true, Holds::Place) }
}

#[tokio::test]
async fn one_batch_counts_what_it_has_decided_itself() {
    for trouble in TROUBLE {
        let bench = Bench::new().await;
        let first = limited(1, 2);
        let command = Ask::Cancel { by: Party::Customer, message: String::new(), etag: String::new() };
        let request = request("CancelScreening", true);
        let cancel = BookingChange { request, scope: Scope::Everything, id: first.booking.id, command, cause: cause() };
        let (one, two, refused, cancelled, three) = tokio::join!(
            bench.book(first),
            bench.book(limited(2, 2)),
            bench.book(limited(3, 2)),
            bench.writer.change(cancel, deadline()),
            bench.book(limited(4, 2)),
        );
        assert_eq!((written(one).state, written(two).state), (State::Confirmed, State::Confirmed));
        assert_eq!(refusal(refused), fault::Reason::CustomerLimitReached);
        assert_eq!((cancelled.unwrap().state, written(three).state), (State::Cancelled, State::Confirmed));
        // in a batch of its own, with what is stored
        assert_eq!(refusal(bench.book(limited(5, 2)).await), fault::Reason::CustomerLimitReached);
        bench.suffer(trouble);
        assert_eq!(written(bench.book(limited(5, 3)).await).state, State::Confirmed);
        assert_eq!(bench.row(written(bench.book(book(7, true, Holds::Place)).await).id).await.terms, terms());
    }
}

#[tokio::test]
async fn a_move_to_another_hospital_counts_there() {
    let bench = Bench::new().await;
    written(bench.book(limited(1, 1)).await);
    let busan = SlotId::parse("hospitals/busan/slots/2099-01-02").unwrap();
    let elsewhere = book(2, true, Holds::Place);
    let booking = Booking { slot: busan.clone(), ..elsewhere.booking.clone() };
    let made = written(bench.book(Book { booking, ..elsewhere }).await);
    let back = |generation, terms| Move { terms, ..moving(made.id, 3, generation) };
    assert_eq!(refusal(bench.reschedule(back(2, at_most(1))).await), fault::Reason::CustomerLimitReached);
    assert_eq!(bench.row(made.id).await, Screening { fenced_generation: 2, ..made.clone() });
    let moved = written(bench.reschedule(back(3, at_most(2))).await);
    assert_eq!((moved.reschedule_count, bench.row(made.id).await), (1, moved.clone()));
    // there it is one of them already
    let on = Move { terms: at_most(1), ..moving(made.id, 4, 4) };
    assert_eq!(written(bench.reschedule(on).await).slot, slot(4));
}

/// Looked up together, each call sees all of its customer's bookings.
#[tokio::test]
async fn two_calls_of_one_customer_count_the_same_bookings() {
    let bench = Bench::new().await;
    let made = written(bench.book(limited(1, 2)).await);
    let query = |day| BookingQuery {
        key: None,
        id: ScreeningId(uuid_v7()),
        customer_date: (CustomerId::from_segment("kim").unwrap(), slot(day).date),
        queue: None,
        limited: Some(slot(day).hospital),
    };
    let mut expected = CustomerBookings::default();
    expected.add(made.id, made.slot.date);
    let (one, other) = (query(2), query(3));
    let found = BookingLookup.look_up(bench.database.reader(), &[&one, &other]).await.unwrap();
    assert_eq!(found.into_iter().map(|existing| existing.held).collect::<Vec<_>>(), [expected.clone(), expected]);
}
