//! Folding events in any order: states, histories, the ledger's own events, and events that cannot be applied.

use std::collections::BTreeMap;

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use contract::reservation::v1::reservation::State;
use domain::frame::Opened;
use fault::Reason;
use prost::Message;
use store::dead_letter::{self, DeadLetter};
use store::inbox::InboxKey;
use store::outbox;
use testkit::{refused, seed, wait_limit, within};
use uuid::Uuid;

use crate::support::{Booking, House, get, history, incoming, shuffle, states};

const SLOT: &str = "hospitals/seoul/slots/2027-03-01";

/// The states of a screening, version by version, and the history that the ledger ends with.
type Life = (&'static [&'static str], &'static [(i64, State)]);

const LIVES: &[Life] = &[
    (&["PENDING"], &[]),
    (&["REJECTED"], &[]),
    (&["PENDING", "REJECTED"], &[]),
    (&["CONFIRMED"], &[(1, State::Registered)]),
    (&["PENDING", "CONFIRMED"], &[(2, State::Registered)]),
    (&["PENDING", "CANCELLED"], &[(2, State::Cancelled)]),
    (&["CONFIRMED", "CANCELLED"], &[(1, State::Registered), (2, State::Cancelled)]),
    (&["CONFIRMED", "FORCE_CANCELLED"], &[(1, State::Registered), (2, State::ForceCancelled)]),
    (&["CONFIRMED", "COMPLETED"], &[(1, State::Registered), (2, State::Completed)]),
    (
        &["CONFIRMED", "RESCHEDULED", "MOVED", "CANCELLED"],
        &[(1, State::Registered), (2, State::Registered), (3, State::Registered), (4, State::Cancelled)],
    ),
    (&["CONFIRMED", "NO_SHOW", "COMPLETED"], &[(1, State::Registered), (2, State::NoShow), (3, State::Completed)]),
    (
        &["PENDING", "CONFIRMED", "NO_SHOW", "COMPLETED"],
        &[(2, State::Registered), (3, State::NoShow), (4, State::Completed)],
    ),
    (&["WAITLISTED"], &[]),
    (&["WAITLISTED", "EXPIRED"], &[]),
    (&["WAITLISTED", "LEFT"], &[]),
    (&["WAITLISTED", "REVOKED"], &[]),
    (&["PENDING", "WAITLISTED", "LEFT"], &[]),
    (&["WAITLISTED", "CONFIRMED"], &[(2, State::Registered)]),
    (&["PENDING", "WAITLISTED", "CONFIRMED", "CANCELLED"], &[(3, State::Registered), (4, State::Cancelled)]),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_booking_is_registered_and_followed() {
    let (house, _dir) = House::start().await;
    let kim = house.served.customer("kim").await;
    let booking = Booking::new(1, "kim", SLOT);
    house.feed(&[booking.event(1, "CONFIRMED")]).await;
    let registered = get(&kim, &booking.name(), "").await.unwrap();
    assert_eq!(registered.name, booking.name());
    assert_eq!(registered.screening, booking.screening.to_string());
    assert_eq!((registered.customer.as_str(), registered.slot.as_str()), ("customers/kim", SLOT));
    assert_eq!(registered.date, Some(contract::google::r#type::Date { year: 2027, month: 3, day: 1 }));
    assert_eq!((registered.state(), registered.screening_version), (State::Registered, 1));

    house.feed(&[booking.event(2, "CANCELLED")]).await;
    let cancelled = get(&kim, &booking.name(), "").await.unwrap();
    assert_eq!((cancelled.state(), cancelled.screening_version), (State::Cancelled, 2));
    assert_eq!(cancelled.create_time, registered.create_time);
    assert!(cancelled.update_time.unwrap().seconds > registered.update_time.unwrap().seconds);

    let entries = history(&kim, &booking.name(), 0).await.unwrap();
    assert_eq!(states(&entries), [(1, State::Registered), (2, State::Cancelled)]);
    let last = &entries[1];
    assert_eq!((last.state_reason.as_str(), last.state_message.as_str()), ("REASON_2", "message 2"));
    assert_eq!(last.actor, "customer:kim");
    assert_eq!(last.event_id, booking.event(2, "CANCELLED").event_id);
    assert_eq!(last.occur_time, booking.event(2, "CANCELLED").occur_time);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn r16_any_delivery_ends_in_the_same_ledger() {
    let mut random = seed("r16_any_delivery_ends_in_the_same_ledger");
    let (house, _dir) = House::start().await;
    let mut bookings = Vec::new();
    let mut events: Vec<EventEnvelope> = Vec::new();
    for uid in 1..=120 {
        let booking = Booking::new(uid, "kim", SLOT);
        let (life, ends) = *random.pick(LIVES);
        events.extend(booking.life(life));
        bookings.push((booking, life, ends));
    }
    let again: Vec<EventEnvelope> = events.iter().filter(|_| random.chance(40)).cloned().collect();
    events.extend(again);
    shuffle(&mut random, &mut events);
    while !events.is_empty() {
        let size = 1 + random.below(40) as usize;
        let batch = events.split_off(events.len().saturating_sub(size));
        house.feed(&batch).await;
    }

    let auditor = house.served.auditor().await;
    for (booking, life, ends) in &bookings {
        let token = booking.token(life.len() as i64);
        let Some((version, state)) = ends.last() else {
            refused(get(&auditor, &booking.name(), &token).await, Reason::ReservationNotFound);
            continue;
        };
        let shown = get(&auditor, &booking.name(), &token).await.unwrap();
        assert_eq!((shown.screening_version, shown.state()), (*version, *state), "{life:?}");
        assert_eq!(shown.create_time.unwrap().seconds, booking.begin + ends[0].0, "{life:?}");
        assert_eq!(shown.update_time.unwrap().seconds, booking.begin + version, "{life:?}");
        assert_eq!(states(&history(&auditor, &booking.name(), 2).await.unwrap()), *ends, "{life:?}");
    }
    let expected: BTreeMap<String, State> =
        bookings.iter().filter_map(|(booking, _, ends)| Some((booking.name(), ends.last()?.1))).collect();
    assert_eq!(announced(&house).await, expected);
    house.stop().await;
}

/// Asserts that each reservation's events have versions from 1 on without a gap. Returns the last state of each.
async fn announced(house: &House) -> BTreeMap<String, State> {
    let rows = outbox::read_after(house.service.database.reader(), 0, 10_000).await.unwrap();
    let mut versions: BTreeMap<String, i64> = BTreeMap::new();
    let mut states = BTreeMap::new();
    for envelope in rows.iter().flat_map(|row| Opened::new(&row.payload).decode().unwrap()) {
        assert_eq!((envelope.producer.as_str(), envelope.actor.as_str()), ("reservation", "service:reservation"));
        assert!(Uuid::try_parse(&envelope.causation_id).is_ok());
        let version = versions.entry(envelope.aggregate.clone()).or_default();
        *version += 1;
        assert_eq!(envelope.aggregate_version, *version, "{}", envelope.aggregate);
        let state = match envelope.payload.unwrap() {
            Payload::ReservationRegistered(registered) => {
                assert_eq!(*version, 1);
                assert_eq!(registered.reservation, envelope.aggregate);
                State::Registered
            }
            Payload::ReservationChanged(changed) => {
                let before: &State = &states[&envelope.aggregate];
                assert_eq!(changed.old_state, before.as_str_name());
                State::from_str_name(&changed.new_state).unwrap()
            }
            other => panic!("{other:?}"),
        };
        states.insert(envelope.aggregate, state);
    }
    states
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fence_is_never_shown_and_still_satisfies_a_token() {
    let (house, _dir) = House::start().await;
    let fence = Booking::new(9, "", SLOT);
    house.feed(&[fence.event(1, "REJECTED")]).await;
    let auditor = house.served.auditor().await;
    refused(get(&auditor, &fence.name(), &fence.token(1)).await, Reason::ReservationNotFound);
    assert!(announced(&house).await.is_empty());
    house.stop().await;
}

/// A wait registers nothing, however it ends. Reads with the tokens of its versions are answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_booking_that_waits_is_registered_once_it_has_a_place() {
    let (house, _dir) = House::start().await;
    let (kim, auditor) = (house.served.customer("kim").await, house.served.auditor().await);
    let ends = ["EXPIRED", "LEFT", "REVOKED"];
    let in_vain: Vec<Booking> = (1..=3).map(|uid| Booking::new(uid, "kim", SLOT)).collect();
    let promoted = Booking::new(4, "kim", SLOT);
    for (booking, end) in in_vain.iter().zip(ends) {
        for (version, state) in [(1, "WAITLISTED"), (2, end)] {
            let (name, token) = (booking.name(), booking.token(version));
            let wait = get(&auditor, &name, &token);
            let write = async { house.feed(&[booking.event(version, state)]).await };
            let (read, ()) = within(wait_limit(), "the read", async { tokio::join!(wait, write) }).await;
            refused(read, Reason::ReservationNotFound);
        }
        refused(history(&auditor, &booking.name(), 0).await, Reason::ReservationNotFound);
    }
    house.feed(&[promoted.event(1, "WAITLISTED")]).await;
    refused(get(&kim, &promoted.name(), &promoted.token(1)).await, Reason::NotOwner);
    assert!(announced(&house).await.is_empty());

    house.feed(&[promoted.event(2, "CONFIRMED")]).await;
    let registered = get(&kim, &promoted.name(), &promoted.token(2)).await.unwrap();
    assert_eq!((registered.state(), registered.screening_version), (State::Registered, 2));
    assert_eq!(registered.create_time, promoted.event(2, "CONFIRMED").occur_time);
    assert_eq!(states(&history(&kim, &promoted.name(), 0).await.unwrap()), [(2, State::Registered)]);
    assert_eq!(announced(&house).await, BTreeMap::from([(promoted.name(), State::Registered)]));
    // what a recovery is told of
    let known = reservation::recovery::bookings(&house.service.database, None, 10).await.unwrap();
    assert_eq!(known.iter().map(|known| known.screening).collect::<Vec<_>>(), [promoted.screening]);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_keeps_the_ledger_and_knows_what_it_has_seen() {
    let (house, dir) = House::start().await;
    let booking = Booking::new(1, "kim", SLOT);
    let life = booking.life(&["CONFIRMED", "CANCELLED"]);
    house.feed(&life[..1]).await;
    house.stop().await;

    let house = House::open(dir.path()).await;
    house.feed(&life).await;
    house.feed(&life).await;
    let kim = house.served.customer("kim").await;
    assert_eq!(get(&kim, &booking.name(), "").await.unwrap().state(), State::Cancelled);
    assert_eq!(states(&history(&kim, &booking.name(), 1).await.unwrap()).len(), 2);
    let events = outbox::read_after(house.service.database.reader(), 0, 10).await.unwrap();
    assert_eq!(events.len(), 2);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_event_is_named_and_becomes_a_dead_letter_once() {
    let (house, _dir) = House::start().await;
    let good = Booking::new(1, "kim", SLOT);
    let mut broken = Booking::new(2, "kim", SLOT).event(1, "CONFIRMED");
    broken.aggregate_version = 0;
    let batch = vec![incoming(&good.event(1, "CONFIRMED")), incoming(&broken)];
    let fault = house.handler().handle(&batch).await.unwrap_err();
    assert_eq!(fault.reason(), Reason::Internal);
    let auditor = house.served.auditor().await;
    refused(get(&auditor, &good.name(), "").await, Reason::ReservationNotFound);

    let dead_letter = DeadLetter {
        consumer: house.service.consumers[0].name.into(),
        event_id: broken.event_id.clone(),
        subject: domain::event::subject(&broken),
        payload: broken.encode_to_vec(),
        error: format!("{fault:?}"),
        attempts: 10,
        time: jiff::Timestamp::UNIX_EPOCH,
    };
    let inbox_key = InboxKey::at("screening".into(), 7, Uuid::nil());
    for _ in 0..2 {
        house.handler().store_dead_letter(dead_letter.clone(), inbox_key.clone()).await.unwrap();
    }
    assert_eq!(dead_letter::count(house.service.database.reader()).await.unwrap(), 1);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_other_services_say_is_passed_over() {
    let (house, _dir) = House::start().await;
    let mut other = Booking::new(1, "kim", SLOT).event(1, "CONFIRMED");
    other.payload = Some(Payload::HospitalDeleted(contract::event::v1::HospitalDeleted::default()));
    house.feed(&[other]).await;
    assert!(announced(&house).await.is_empty());
    house.stop().await;
}
