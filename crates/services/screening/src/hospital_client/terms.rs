//! Remembers the names and time zones of hospitals from their answers, for bookings that have to be PENDING.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use domain::ids::HospitalId;
use domain::screening::Terms;

/// The most hospitals to remember. When there are more, an arbitrary one is forgotten.
const MAX_HOSPITALS: usize = 1_024;

#[derive(Debug, Default)]
pub(super) struct KnownHospitals(Mutex<HashMap<HospitalId, Terms>>);

impl KnownHospitals {
    /// Remembers a hospital. The time when cancelling closes is left out, because it depends on the date.
    pub(super) fn put(&self, hospital: &HospitalId, terms: &Terms) {
        let terms = Terms { cancellation_close_time: None, ..terms.clone() };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.get(hospital) == Some(&terms) {
            return;
        }
        if known.len() >= MAX_HOSPITALS
            && !known.contains_key(hospital)
            && let Some(other) = known.keys().next().cloned()
        {
            known.remove(&other);
        }
        known.insert(hospital.clone(), terms);
    }

    /// What is remembered of a hospital; empty if nothing is.
    pub(super) fn get(&self, hospital: &HospitalId) -> Terms {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(hospital).cloned().unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_memory_is_bounded_and_keeps_the_newest() {
        let known = KnownHospitals::default();
        let hospital = |i: usize| HospitalId::from_segment(&format!("hospital-{i}")).unwrap();
        let terms = |name: &str| Terms { hospital_display_name: name.into(), ..Terms::default() };
        for i in 0..MAX_HOSPITALS + 10 {
            known.put(&hospital(i), &terms("old"));
        }
        known.put(&hospital(MAX_HOSPITALS + 9), &terms("new"));
        assert_eq!(known.0.lock().unwrap().len(), MAX_HOSPITALS);
        assert_eq!(known.get(&hospital(MAX_HOSPITALS + 9)).hospital_display_name, "new");
    }
}
