//! Which events a service keeps: every event for a time, and the newest event of each aggregate for ever.
//!
//! Before a service removes an event, it publishes it again if nothing has changed since. So the events that are kept
//! always tell the newest state of everything, and whoever begins to read them, however late, ends where the others
//! are. Two kinds of events are not repeated: reports that are only added up over the last days, and what is known about
//! dates that have been over for as long as events are kept.

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use jiff::Timestamp;
use jiff::civil::Date;

use crate::civil::{last_zone, today};
use crate::event::fact;
use crate::ids::{CapacityRequestId, ClaimId, HospitalId, ScreeningId, SlotId};

/// The thing whose state an event reports.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Aggregate {
    /// A hospital.
    Hospital(HospitalId),
    /// A slot.
    Slot(SlotId),
    /// A claim on a place of this slot.
    Claim(SlotId, ClaimId),
    /// A request for more capacity.
    CapacityRequest(CapacityRequestId),
    /// A screening.
    Screening(ScreeningId),
    /// The reservation that follows this screening.
    Reservation(ScreeningId),
}

impl Aggregate {
    /// The aggregate of an event; `None` if this version does not know its fact, or the fact is a report and no state.
    #[must_use]
    pub fn of(envelope: &EventEnvelope) -> Option<Self> {
        let (payload, name) = (envelope.payload.as_ref()?, envelope.aggregate.as_str());
        match fact(payload).0 {
            _ if matches!(payload, Payload::ScreeningRefused(_)) => None,
            "hospital" => HospitalId::parse(name).ok().map(Self::Hospital),
            "slot" => SlotId::parse(name).ok().map(Self::Slot),
            "claim" => {
                let (slot, claim) = name.split_once("/claims/")?;
                Some(Self::Claim(SlotId::parse(slot).ok()?, ClaimId::parse(claim).ok()?))
            }
            "capacity_request" => CapacityRequestId::parse(name).ok().map(Self::CapacityRequest),
            "screening" => ScreeningId::parse(name).ok().map(Self::Screening),
            "reservation" => ScreeningId::parse_reservation(name).ok().map(Self::Reservation),
            _ => None,
        }
    }

    /// The date that it is about and that can be over.
    fn date(&self) -> Option<Date> {
        match self {
            Self::Slot(slot) | Self::Claim(slot, _) => Some(slot.date),
            Self::Hospital(_) | Self::CapacityRequest(_) | Self::Screening(_) | Self::Reservation(_) => None,
        }
    }
}

/// Whether an event that occurred before `limit` is repeated before it is removed. `newest` is the version that its
/// aggregate has now; `None` if the service knows no such aggregate.
///
/// An event that cannot be judged is repeated: a fact of a newer version, or an aggregate that is missing.
#[must_use]
pub fn is_repeated(envelope: &EventEnvelope, newest: Option<i64>, limit: Timestamp) -> bool {
    if matches!(envelope.payload, Some(Payload::ScreeningRefused(_))) {
        return false;
    }
    let date = Aggregate::of(envelope).and_then(|aggregate| aggregate.date());
    if date.is_some_and(|date| date < today(limit, &last_zone())) {
        return false;
    }
    newest.is_none_or(|newest| envelope.aggregate_version >= newest)
}

#[cfg(test)]
mod tests {
    use contract::event::v1::{CapacityReserved, HospitalUpdated, ScreeningConfirmed, ScreeningRefused, SlotOpened};
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
        let slot = SlotId::parse("hospitals/seoul/slots/2027-01-04").unwrap();
        let of = |name: &str, payload| Aggregate::of(&event(name, 1, Some(payload)));
        let reserved = || Payload::CapacityReserved(CapacityReserved::default());
        assert_eq!(
            of(&format!("{slot}/claims/{claim}"), reserved()),
            Some(Aggregate::Claim(slot.clone(), ClaimId::parse(&claim).unwrap()))
        );
        assert_eq!(of(&slot.to_string(), Payload::SlotOpened(SlotOpened::default())), Some(Aggregate::Slot(slot)));
        let updated = Payload::HospitalUpdated(HospitalUpdated::default());
        assert_eq!(
            of("hospitals/seoul", updated),
            Some(Aggregate::Hospital(HospitalId::parse("hospitals/seoul").unwrap()))
        );
        let named = of(&format!("screenings/{id}"), confirmed().unwrap());
        assert_eq!(named, Some(Aggregate::Screening(ScreeningId(id))));
        assert_eq!(of("screenings/7", confirmed().unwrap()), None);
        let refused = Payload::ScreeningRefused(ScreeningRefused::default());
        assert_eq!(of("hospitals/seoul/slots/2027-01-04/refusals", refused), None);
        assert_eq!(Aggregate::of(&event("hospitals/seoul", 1, None)), None);
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
    fn what_this_version_does_not_know_is_repeated() {
        assert!(is_repeated(&event("hospitals/seoul", 1, None), None, limit()));
        assert!(is_repeated(&event("plans/7", 1, confirmed()), None, limit()));
    }

    #[test]
    fn reports_and_dates_that_are_long_over_are_not_repeated() {
        let refused = Some(Payload::ScreeningRefused(ScreeningRefused::default()));
        assert!(!is_repeated(&event("hospitals/seoul/slots/2027-02-01/refusals", 9, refused), None, limit()));
        let opened = |slot: &str| event(slot, 1, Some(Payload::SlotOpened(SlotOpened::default())));
        // west of Greenwich it is still the 4th
        assert!(is_repeated(&opened("hospitals/seoul/slots/2027-01-04"), Some(1), limit()));
        assert!(!is_repeated(&opened("hospitals/seoul/slots/2027-01-03"), Some(1), limit()));
        let claim = format!("hospitals/seoul/slots/2027-01-03/claims/{}.1", Uuid::from_u128(7));
        let reserved = Some(Payload::CapacityReserved(CapacityReserved::default()));
        assert!(!is_repeated(&event(&claim, 1, reserved), Some(1), limit()));
    }
}
