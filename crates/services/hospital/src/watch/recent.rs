//! Which slots changed last, and where in the log: a fold of Hospital's own events.
//!
//! It keeps names and positions, and no slot. A fact has most of a slot, but neither its etag and times nor how far a
//! cancelling has come, and a deletion is one fact for all slots of its hospital. So a slot that changed is read from
//! the table: once for all who watch it, and it is never older than the fact.

use std::collections::{BTreeSet, HashMap};

use contract::event::v1::event_envelope::Payload;
use domain::ids::{HospitalId, SlotId};

/// The facts that change slots, by the type of their aggregate.
pub(super) const FACTS: [(&str, &str); 9] = [
    ("slot", "slot_opened"),
    ("slot", "slot_capacity_changed"),
    ("slot", "slot_closed"),
    ("claim", "capacity_reserved"),
    ("claim", "capacity_released"),
    ("claim", "capacity_waitlisted"),
    ("claim", "capacity_revoked"),
    ("hospital", "hospital_deletion_started"),
    ("hospital", "hospital_deleted"),
];

/// What a fact changed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Changed {
    /// One slot.
    Slot(SlotId),
    /// Every slot of a hospital.
    Hospital(HospitalId),
}

impl Changed {
    /// What this fact changed; `None` for a fact that changes no slot.
    pub(super) fn by(payload: &Payload) -> Option<Self> {
        let slot = match payload {
            Payload::SlotOpened(fact) => &fact.slot,
            Payload::SlotCapacityChanged(fact) => &fact.slot,
            Payload::SlotClosed(fact) => &fact.slot,
            Payload::CapacityReserved(fact) => &fact.slot,
            Payload::CapacityReleased(fact) => &fact.slot,
            Payload::CapacityWaitlisted(fact) => &fact.slot,
            Payload::CapacityRevoked(fact) => &fact.slot,
            Payload::HospitalDeletionStarted(fact) => {
                return HospitalId::parse(&fact.hospital).ok().map(Self::Hospital);
            }
            Payload::HospitalDeleted(fact) => return HospitalId::parse(&fact.hospital).ok().map(Self::Hospital),
            _ => return None,
        };
        SlotId::parse(slot).ok().map(Self::Slot)
    }

    fn hospital(&self) -> &HospitalId {
        match self {
            Self::Slot(slot) => &slot.hospital,
            Self::Hospital(hospital) => hospital,
        }
    }
}

/// Several changes, each with its last position.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) slots: HashMap<SlotId, i64>,
    pub(super) hospitals: HashMap<HospitalId, i64>,
}

impl Changes {
    /// Where this slot changed last; 0 if none of these changes is of it.
    pub(super) fn position(&self, slot: &SlotId) -> i64 {
        let [own, with_all] = [self.slots.get(slot), self.hospitals.get(&slot.hospital)];
        own.max(with_all).copied().unwrap_or(0)
    }
}

impl FromIterator<(Changed, i64)> for Changes {
    fn from_iter<I: IntoIterator<Item = (Changed, i64)>>(changes: I) -> Self {
        let mut collected = Self::default();
        for (changed, position) in changes {
            match changed {
                Changed::Slot(slot) => drop(collected.slots.insert(slot, position)),
                Changed::Hospital(hospital) => drop(collected.hospitals.insert(hospital, position)),
            }
        }
        collected
    }
}

/// The latest changes, each at its last position. The oldest make room for new ones, so it never grows beyond a limit.
#[derive(Debug)]
pub(super) struct Recent {
    limit: usize,
    by_hospital: HashMap<HospitalId, HashMap<Changed, i64>>,
    by_position: BTreeSet<(i64, Changed)>,
    /// Everything that changed after this position is here.
    floor: i64,
}

impl Recent {
    /// Knows of no change after `floor`.
    pub(super) fn after(floor: i64, limit: usize) -> Self {
        Self { limit, by_hospital: HashMap::new(), by_position: BTreeSet::new(), floor }
    }

    /// Takes in a change at a position that is not below those before it.
    pub(super) fn note(&mut self, position: i64, changed: Changed) {
        let places = self.by_hospital.entry(changed.hospital().clone()).or_default();
        if let Some(before) = places.insert(changed.clone(), position) {
            self.by_position.remove(&(before, changed.clone()));
        }
        self.by_position.insert((position, changed));
        while self.by_position.len() > self.limit {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some((position, changed)) = self.by_position.pop_first() else { return };
        self.floor = position;
        if let Some(places) = self.by_hospital.get_mut(changed.hospital()) {
            places.remove(&changed);
            if places.is_empty() {
                self.by_hospital.remove(changed.hospital());
            }
        }
    }

    /// What changed at these hospitals after a position; `None` if some of it is forgotten.
    pub(super) fn since<'a>(
        &self,
        position: i64,
        hospitals: impl IntoIterator<Item = &'a HospitalId>,
    ) -> Option<Changes> {
        if position < self.floor {
            return None;
        }
        let places = hospitals.into_iter().filter_map(|hospital| self.by_hospital.get(hospital)).flatten();
        Some(places.filter(|(_, at)| **at > position).map(|(changed, at)| (changed.clone(), *at)).collect())
    }
}

#[cfg(test)]
mod tests {
    use contract::event::v1::{CapacityReserved, HospitalDeletionStarted, HospitalUpdated, SlotClosed};
    use jiff::civil::date;

    use super::*;

    fn hospital(id: &str) -> HospitalId {
        HospitalId::from_segment(id).unwrap()
    }

    fn slot(id: &str, day: i8) -> Changed {
        Changed::Slot(SlotId::new(hospital(id), date(2027, 1, day)))
    }

    fn since(recent: &Recent, position: i64, id: &str) -> Option<Vec<Changed>> {
        let Changes { slots, hospitals } = recent.since(position, [&hospital(id)])?;
        let slots = slots.into_keys().map(Changed::Slot);
        let mut changed: Vec<Changed> = slots.chain(hospitals.into_keys().map(Changed::Hospital)).collect();
        changed.sort();
        Some(changed)
    }

    #[test]
    fn a_slot_counts_at_its_last_position() {
        let mut recent = Recent::after(10, 100);
        recent.note(11, slot("seoul", 1));
        recent.note(12, slot("seoul", 2));
        recent.note(12, slot("busan", 1));
        recent.note(13, slot("seoul", 1));
        assert_eq!(since(&recent, 10, "seoul"), Some(vec![slot("seoul", 1), slot("seoul", 2)]));
        assert_eq!(since(&recent, 12, "seoul"), Some(vec![slot("seoul", 1)]));
        assert_eq!(since(&recent, 13, "seoul"), Some(Vec::new()));
        assert_eq!(since(&recent, 11, "busan"), Some(vec![slot("busan", 1)]));
        assert_eq!(since(&recent, 11, "daegu"), Some(Vec::new()));
        assert_eq!(since(&recent, 9, "seoul"), None);
    }

    #[test]
    fn a_slot_changes_with_its_hospital_too() {
        let mut recent = Recent::after(0, 100);
        let position = |recent: &Recent, changed: &Changed| {
            let Changed::Slot(slot) = changed else { panic!("a slot") };
            recent.since(0, [&hospital("seoul")]).unwrap().position(slot)
        };
        recent.note(1, slot("seoul", 1));
        recent.note(2, Changed::Hospital(hospital("seoul")));
        recent.note(3, slot("seoul", 2));
        let days = [1, 2, 3].map(|day| position(&recent, &slot("seoul", day)));
        assert_eq!(days, [2, 3, 2]);
    }

    #[test]
    fn the_oldest_changes_make_room() {
        let mut recent = Recent::after(0, 2);
        for position in 1..=5 {
            recent.note(position, slot("seoul", 1));
        }
        // a slot that changes again takes no more room
        assert_eq!(since(&recent, 0, "seoul"), Some(vec![slot("seoul", 1)]));
        recent.note(6, slot("busan", 1));
        recent.note(7, Changed::Hospital(hospital("busan")));
        assert_eq!((since(&recent, 4, "seoul"), since(&recent, 5, "seoul")), (None, Some(Vec::new())));
        assert_eq!(since(&recent, 5, "busan").map(|changed| changed.len()), Some(2));
        assert_eq!(recent.by_hospital.len(), 1);
    }

    #[test]
    fn each_fact_says_what_it_changed() {
        let name = "hospitals/seoul/slots/2027-01-01".to_owned();
        let closed = Payload::SlotClosed(SlotClosed { slot: name.clone(), ..SlotClosed::default() });
        let reserved = Payload::CapacityReserved(CapacityReserved { slot: name, ..CapacityReserved::default() });
        let hospital_name = "hospitals/seoul".to_owned();
        let started = HospitalDeletionStarted { hospital: hospital_name.clone(), ..HospitalDeletionStarted::default() };
        let started = Payload::HospitalDeletionStarted(started);
        let updated =
            Payload::HospitalUpdated(HospitalUpdated { hospital: hospital_name, ..HospitalUpdated::default() });
        assert_eq!(Changed::by(&closed), Some(slot("seoul", 1)));
        assert_eq!(Changed::by(&reserved), Some(slot("seoul", 1)));
        assert_eq!(Changed::by(&started), Some(Changed::Hospital(hospital("seoul"))));
        assert_eq!(Changed::by(&updated), None);
        for (kind, fact) in [&closed, &reserved, &started].map(domain::event::fact) {
            assert!(FACTS.contains(&(kind, fact)), "{kind} {fact}");
        }
    }
}
