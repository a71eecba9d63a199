//! Any delivery of a hospital's events ends in the same demand; also who may read and propose, and the subscribed
//! subjects.

use std::collections::BTreeMap;

use contract::event::v1::EventEnvelope;
use proptest::prelude::*;

use fault::Reason;

use super::*;
use crate::access::Hospitals;

/// The whole fold of one hospital's demand, as the service keeps it in rows.
#[derive(Debug, Default, PartialEq)]
struct Demand {
    hospital: Hospital,
    signals: BTreeMap<SlotId, Signal>,
    bookings: BTreeMap<Uuid, (SlotId, Timestamp)>,
    refusals: BTreeMap<Uuid, (SlotId, i64, Timestamp)>,
}

impl Demand {
    fn of(facts: &[Fact]) -> Self {
        let mut demand = Self::default();
        facts.iter().for_each(|fact| demand.apply(fact));
        demand
    }

    fn signal(&mut self, slot: &SlotId) -> &mut Signal {
        self.signals.entry(slot.clone()).or_insert_with(|| Signal::unknown(slot.clone()))
    }

    fn apply(&mut self, fact: &Fact) {
        self.hospital.apply(fact);
        match fact {
            Fact::Places(places) => self.signal(&places.slot).apply(places),
            Fact::Booked { id, slot, time } => {
                self.bookings.insert(*id, (slot.clone(), *time));
                self.signal(slot).touch(*time);
            }
            Fact::Refused { event_id, slot, count, time } => {
                self.refusals.insert(*event_id, (slot.clone(), *count, *time));
                self.signal(slot).touch(*time);
            }
            Fact::Located { .. } | Fact::Gone { .. } => {}
        }
    }
}

fn seoul() -> HospitalId {
    HospitalId::from_segment("seoul").unwrap()
}

fn slot(day: i8) -> SlotId {
    SlotId::new(seoul(), jiff::civil::date(2027, 1, day))
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

/// A hospital's life: the events of two slots, numbered as Hospital numbers them, and perhaps its deletion.
fn life() -> impl Strategy<Value = Vec<Fact>> {
    let step = (1_i8..=2, 0_u8..3, 0_i32..5, 0_i32..3);
    (prop::collection::vec(step, 0..12), any::<bool>()).prop_map(|(steps, gone)| {
        let mut facts = vec![Fact::Located { hospital: seoul(), time_zone: "Asia/Seoul".into() }];
        let mut versions = BTreeMap::new();
        for (number, (day, kind, amount, waiting)) in (1_i64..).zip(steps) {
            let (slot, time) = (slot(day), at(number));
            let id = u128::from(number.unsigned_abs());
            facts.push(match kind {
                0 => {
                    let slot_version = versions.entry(day).or_insert(0);
                    *slot_version += 1;
                    let slot_version = *slot_version;
                    Fact::Places(Places { slot, slot_version, capacity: 5, booked: amount, waiting, time })
                }
                1 => Fact::Booked { id: Uuid::from_u128(id), slot, time },
                _ => Fact::Refused { event_id: Uuid::from_u128(id), slot, count: amount.into(), time },
            });
        }
        if gone {
            facts.push(Fact::Gone { hospital: seoul() });
        }
        facts
    })
}

fn delivered() -> impl Strategy<Value = (Vec<Fact>, Vec<Fact>)> {
    (life(), prop::collection::vec(any::<prop::sample::Index>(), 0..8)).prop_flat_map(|(life, again)| {
        let mut delivery = life.clone();
        delivery.extend(again.iter().map(|index| index.get(&life).clone()));
        (Just(life), Just(delivery).prop_shuffle())
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_delivery_ends_as_the_ordered_one((life, delivery) in delivered()) {
        prop_assert_eq!(Demand::of(&delivery), Demand::of(&life));
    }
}

#[test]
fn a_slot_is_full_without_capacity_and_over_at_midnight_over_there() {
    let mut signal = Signal::unknown(slot(4));
    assert_eq!(signal.fill_ratio(), 1.0);
    signal.apply(&Places { slot: slot(4), slot_version: 3, capacity: 8, booked: 2, waiting: 1, time: at(0) });
    assert_eq!((signal.fill_ratio(), signal.waiting), (0.25, 1));

    let known = Hospital { time_zone: "Asia/Seoul".into(), gone: false };
    assert_eq!(known.end_of(&slot(4)), "2027-01-04T15:00:00Z".parse().unwrap());
    assert_eq!(Hospital::default().end_of(&slot(4)), "2027-01-05T12:00:00Z".parse().unwrap());
}

#[test]
fn a_fence_is_no_demand() {
    let mut envelope = EventEnvelope {
        payload: Some(Payload::ScreeningConfirmed(ScreeningConfirmed {
            screening: Some(Default::default()),
            ..Default::default()
        })),
        ..EventEnvelope::default()
    };
    assert_eq!(Fact::decode(&envelope), Ok(None));
    envelope.payload = Some(Payload::SlotOpened(SlotOpened::default()));
    assert!(Fact::decode(&envelope).is_err());
}

#[test]
fn marketing_and_admins_propose_and_auditors_read() {
    let marketing = Caller::Service("marketing".into());
    let admin = Caller::Admin { subject: "lee".into(), hospitals: Hospitals::Only([seoul()].into()) };
    let busan = HospitalId::from_segment("busan").unwrap();
    assert_eq!(readable(&marketing), Ok(Scope::Everything));
    assert_eq!(readable(&admin), Ok(Scope::Hospitals([seoul()].into())));
    assert_eq!(readable(&Caller::Auditor("kang".into())), Ok(Scope::Everything));
    assert_eq!(require_proposal_to(&admin, &seoul()), Ok(()));
    assert_eq!(require_proposal_to(&admin, &busan).unwrap_err().reason(), Reason::NotOwner);
    assert_eq!(require_proposal_to(&marketing, &busan), Ok(()));
    for caller in [Caller::Auditor("kang".into()), Caller::Service("screening".into())] {
        assert_eq!(require_proposer(&caller).unwrap_err().reason(), Reason::RoleRequired);
    }
    let kim = Caller::Customer(crate::ids::CustomerId::from_segment("kim").unwrap());
    assert_eq!(readable(&kim).unwrap_err().reason(), Reason::RoleRequired);
    assert_eq!(readable(&Caller::Anonymous).unwrap_err().reason(), Reason::CredentialsMissing);
}

#[test]
fn a_retry_travels_on_under_the_same_id_and_another_caller_under_another() {
    let (lee, park) = (Caller::Auditor("lee".into()), Caller::Auditor("park".into()));
    let chosen = Uuid::from_u128(9);
    assert_eq!(forwarded_request_id(&lee, chosen), forwarded_request_id(&lee, chosen));
    assert_ne!(forwarded_request_id(&lee, chosen), forwarded_request_id(&park, chosen));
    assert_ne!(forwarded_request_id(&lee, chosen), chosen);
}

#[test]
fn every_fact_that_is_understood_is_subscribed_to() {
    let hospital = [
        Payload::HospitalRegistered(Default::default()),
        Payload::HospitalDeletionStarted(Default::default()),
        Payload::HospitalDeleted(Default::default()),
        Payload::SlotOpened(Default::default()),
        Payload::SlotCapacityChanged(Default::default()),
        Payload::SlotClosed(Default::default()),
        Payload::CapacityReserved(Default::default()),
        Payload::CapacityReleased(Default::default()),
        Payload::CapacityRevoked(Default::default()),
        Payload::CapacityWaitlisted(Default::default()),
    ];
    let screening = [Payload::ScreeningConfirmed(Default::default()), Payload::ScreeningRefused(Default::default())];
    let subject = |payload: &Payload| {
        let (kind, fact) = crate::event::fact(payload);
        subject_filter(kind, fact)
    };
    assert_eq!(hospital.iter().map(subject).collect::<Vec<_>>(), hospital_subjects());
    assert_eq!(screening.iter().map(subject).collect::<Vec<_>>(), screening_subjects());
    for payload in hospital.into_iter().chain(screening) {
        // A known fact without content is refused, not skipped.
        let envelope = EventEnvelope { payload: Some(payload), ..EventEnvelope::default() };
        assert!(Fact::decode(&envelope).is_err(), "{envelope:?}");
    }
}

/// Hospital bars a claim by releasing it before it was taken, on whichever slot the caller named.
#[test]
fn a_release_on_a_slot_that_does_not_exist_says_nothing_of_demand() {
    let released = |slot_version| CapacityReleased { slot: slot(4).to_string(), slot_version, ..Default::default() };
    let envelope = |slot_version| EventEnvelope {
        occur_time: Some(crate::civil::encode_time(at(0))),
        payload: Some(Payload::CapacityReleased(released(slot_version))),
        ..EventEnvelope::default()
    };
    assert_eq!(Fact::decode(&envelope(0)), Ok(None));
    assert!(matches!(Fact::decode(&envelope(3)), Ok(Some(Fact::Places(_)))));
    assert!(Fact::decode(&envelope(-1)).is_err());
}

#[test]
fn a_booking_that_moved_counts_once_on_each_slot() {
    let confirmed = |day, claim_generation| {
        let screening = Some(contract::event::v1::ScreeningSnapshot {
            screening: ScreeningId(Uuid::from_u128(7)).to_string(),
            customer: "customers/kim".into(),
            slot: slot(day).to_string(),
            claim_generation,
            ..Default::default()
        });
        let payload = Payload::ScreeningConfirmed(ScreeningConfirmed { screening, ..Default::default() });
        let occur_time = Some(crate::civil::encode_time(at(1)));
        Fact::decode(&EventEnvelope { occur_time, payload: Some(payload), ..Default::default() }).unwrap().unwrap()
    };
    let demand = Demand::of(&[confirmed(1, 1), confirmed(2, 2), confirmed(2, 2), confirmed(1, 1), confirmed(3, 4)]);
    let counted = |day| demand.bookings.values().filter(|(at, _)| *at == slot(day)).count();
    assert_eq!([counted(1), counted(2), counted(3)], [1, 1, 1]);
}
