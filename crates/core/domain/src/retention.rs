//! Which events a service keeps: every event for a time, and what the state follows from for ever.
//!
//! Before a service removes an event, it publishes it again if the state follows from it. So the events that are kept
//! always tell the newest state of everything, and whoever begins to read them, however late, ends where the others
//! are. Of bookings, claims and reservations there are many, and the newest event of each has its whole state, so that
//! one is repeated. The exception is a move: no later event of the booking tells Hospital which place it has to take
//! back, so the move is repeated too. Of hospitals, slots and capacity requests there are few, and an event tells a
//! part, so all are. Not repeated are reports that are only added up over the last days, and claims and moves away from
//! places on dates that have been over for as long as events are kept. Where all events of an aggregate are repeated,
//! none may ever be left out: each is due at a time of its own, so an older one could outlive a newer one.

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use jiff::Timestamp;
use jiff::civil::Date;

use crate::civil::{last_zone, today};
use crate::event::fact;
use crate::ids::{ClaimId, ScreeningId, SlotId};

/// A thing of which there are many. Each of its events has its whole state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Aggregate {
    /// A claim on a place of a slot.
    Claim(ClaimId),
    /// A screening.
    Screening(ScreeningId),
    /// The reservation that follows this screening.
    Reservation(ScreeningId),
}

impl Aggregate {
    /// The aggregate of an event; `None` if it is another one, or this version does not know the fact.
    #[must_use]
    pub fn of(envelope: &EventEnvelope) -> Option<Self> {
        let name = envelope.aggregate.as_str();
        match fact(envelope.payload.as_ref()?).0 {
            "claim" => ClaimId::parse(name.split_once("/claims/")?.1).ok().map(Self::Claim),
            "screening" => ScreeningId::parse(name).ok().map(Self::Screening),
            "reservation" => ScreeningId::parse_reservation(name).ok().map(Self::Reservation),
            _ => None,
        }
    }
}

/// The date of the claim that an event reports; `None` if it reports something else.
fn date_of_claim(envelope: &EventEnvelope) -> Option<Date> {
    let (slot, _) = envelope.aggregate.split_once("/claims/")?;
    SlotId::parse(slot).ok().map(|slot| slot.date)
}

/// The date of the place that a booking left by the move which an event reports; `None` if it reports something else.
fn date_of_place_left(envelope: &EventEnvelope) -> Option<Date> {
    let Some(Payload::ScreeningRescheduled(moved)) = &envelope.payload else { return None };
    SlotId::parse(&moved.previous_slot).ok().map(|slot| slot.date)
}

/// Whether an event that occurred before `limit` is repeated before it is removed. `newest` is the version that its
/// [`Aggregate`] has now; `None` if it has none, or the service does not know it.
///
/// An event that cannot be judged is repeated: a fact of a newer version, or an aggregate that is missing.
#[must_use]
pub fn is_repeated(envelope: &EventEnvelope, newest: Option<i64>, limit: Timestamp) -> bool {
    if matches!(envelope.payload, Some(Payload::ScreeningRefused(_))) {
        return false;
    }
    let is_over = |date: Date| date < today(limit, &last_zone());
    if date_of_claim(envelope).is_some_and(is_over) {
        return false;
    }
    if let Some(date) = date_of_place_left(envelope) {
        return !is_over(date);
    }
    newest.is_none_or(|newest| envelope.aggregate_version >= newest)
}

#[cfg(test)]
mod tests {
    use contract::event::v1::{
        CapacityIncreaseDecided, CapacityReserved, CapacityWaitlisted, HospitalUpdated, ReservationChanged,
        ScreeningConfirmed, ScreeningRefused, ScreeningRescheduled, ScreeningWaitlistEnded, SlotOpened,
    };
    use uuid::Uuid;

    use super::*;

    fn event(aggregate: &str, version: i64, payload: Option<Payload>) -> EventEnvelope {
        EventEnvelope { aggregate: aggregate.into(), aggregate_version: version, payload, ..EventEnvelope::default() }
    }

    fn confirmed() -> Option<Payload> {
        Some(Payload::ScreeningConfirmed(ScreeningConfirmed::default()))
    }

    fn limit() -> Timestamp {
        "2027-01-04T12:00:00Z".parse().unwrap()
    }

    #[test]
    fn an_aggregate_is_read_from_the_name_and_the_fact() {
        let (id, claim) = (Uuid::from_u128(7), format!("{}.2", Uuid::from_u128(7)));
        let slot = "hospitals/seoul/slots/2027-01-04";
        let of = |name: &str, payload| Aggregate::of(&event(name, 1, Some(payload)));
        let reserved = of(&format!("{slot}/claims/{claim}"), Payload::CapacityReserved(CapacityReserved::default()));
        assert_eq!(reserved, Some(Aggregate::Claim(ClaimId::parse(&claim).unwrap())));
        let named = of(&format!("screenings/{id}"), confirmed().unwrap());
        assert_eq!(named, Some(Aggregate::Screening(ScreeningId(id))));
        let changed = of(&format!("reservations/{id}"), Payload::ReservationChanged(ReservationChanged::default()));
        assert_eq!(changed, Some(Aggregate::Reservation(ScreeningId(id))));
        assert_eq!(of("screenings/7", confirmed().unwrap()), None);
        assert_eq!(of(slot, Payload::SlotOpened(SlotOpened::default())), None);
        assert_eq!(Aggregate::of(&event(&format!("screenings/{id}"), 1, None)), None);
    }

    #[test]
    fn what_admins_did_is_repeated_whole() {
        let updated = Some(Payload::HospitalUpdated(HospitalUpdated::default()));
        let opened = Some(Payload::SlotOpened(SlotOpened::default()));
        let decided = Some(Payload::CapacityIncreaseDecided(CapacityIncreaseDecided::default()));
        let request = format!("hospitals/seoul/capacityRequests/{}", Uuid::from_u128(7));
        // the slot's date is long over
        for (name, payload) in
            [("hospitals/seoul", updated), ("hospitals/seoul/slots/2026-02-01", opened), (&request, decided)]
        {
            assert!(is_repeated(&event(name, 1, payload), None, limit()), "{name}");
        }
    }

    #[test]
    fn only_the_newest_event_of_an_aggregate_is_repeated() {
        let name = format!("screenings/{}", Uuid::from_u128(7));
        let repeated = |version, newest| is_repeated(&event(&name, version, confirmed()), newest, limit());
        assert!(!repeated(1, Some(2)));
        assert!(repeated(2, Some(2)));
        // a row that was put back to an earlier time must not take the newer event with it
        assert!(repeated(3, Some(2)));
        assert!(repeated(1, None));
    }

    #[test]
    fn a_move_is_repeated_until_the_place_that_it_left_is_of_no_use() {
        let name = format!("screenings/{}", Uuid::from_u128(7));
        let left = |date: &str| {
            let previous_slot = format!("hospitals/seoul/slots/{date}");
            Some(Payload::ScreeningRescheduled(ScreeningRescheduled { previous_slot, ..Default::default() }))
        };
        // the confirmation that follows every move, and whatever comes after it, says nothing of the old place
        assert!(is_repeated(&event(&name, 2, left("2027-01-04")), Some(3), limit()));
        assert!(!is_repeated(&event(&name, 2, left("2027-01-03")), Some(3), limit()));
    }

    #[test]
    fn what_this_version_does_not_know_is_repeated() {
        assert!(is_repeated(&event("hospitals/seoul", 1, None), None, limit()));
        assert!(is_repeated(&event("plans/7", 1, confirmed()), None, limit()));
    }

    #[test]
    fn how_a_wait_began_and_ended_is_repeated_like_any_claim_and_booking() {
        let slot = "hospitals/seoul/slots/2027-01-04";
        let claim = format!("{slot}/claims/{}.1", Uuid::from_u128(7));
        let joined = || event(&claim, 1, Some(Payload::CapacityWaitlisted(CapacityWaitlisted::default())));
        assert_eq!(
            Aggregate::of(&joined()),
            Some(Aggregate::Claim(ClaimId::parse(&format!("{}.1", Uuid::from_u128(7))).unwrap()))
        );
        // whoever is promoted is announced by a later event of the claim
        assert!(is_repeated(&joined(), Some(1), limit()) && !is_repeated(&joined(), Some(2), limit()));
        let name = format!("screenings/{}", Uuid::from_u128(7));
        let ended = event(&name, 2, Some(Payload::ScreeningWaitlistEnded(ScreeningWaitlistEnded::default())));
        assert_eq!(Aggregate::of(&ended), Some(Aggregate::Screening(ScreeningId(Uuid::from_u128(7)))));
        assert!(is_repeated(&ended, Some(2), limit()), "Hospital releases the claim by it");
    }

    #[test]
    fn reports_and_claims_on_dates_that_are_long_over_are_not_repeated() {
        let refused = Some(Payload::ScreeningRefused(ScreeningRefused::default()));
        assert!(!is_repeated(&event("hospitals/seoul/slots/2027-02-01/refusals", 9, refused), None, limit()));
        let reserved = |slot: &str| {
            let claim = format!("{slot}/claims/{}.1", Uuid::from_u128(7));
            event(&claim, 1, Some(Payload::CapacityReserved(CapacityReserved::default())))
        };
        // west of Greenwich it is still the 4th
        assert!(is_repeated(&reserved("hospitals/seoul/slots/2027-01-04"), Some(1), limit()));
        assert!(!is_repeated(&reserved("hospitals/seoul/slots/2027-01-03"), Some(1), limit()));
    }
}
