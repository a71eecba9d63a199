//! Reads the slots all the time, during faults too: no read may show a slot that is booked beyond its capacity.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use contract::hospital::v1::ListSlotsRequest;
use contract::screening::v1::ListScreeningsRequest;
use testkit::Party;
use tokio::task::JoinHandle;
use tokio::time::{MissedTickBehavior, interval};

use crate::observed::{Observed, Slot};
use crate::pool::Pool;

const SAMPLE_INTERVAL: Duration = Duration::from_millis(50);
const SAMPLE_TIMEOUT: Duration = Duration::from_secs(1);

/// The reading tasks. Dropping this aborts them.
#[derive(Debug)]
pub(crate) struct Sampler {
    looks: Arc<AtomicU64>,
    reading: [JoinHandle<()>; 2],
}

impl Drop for Sampler {
    fn drop(&mut self) {
        self.reading.iter().for_each(JoinHandle::abort);
    }
}

impl Sampler {
    /// Starts to read every slot of this hospital from Hospital, and the confirmed bookings of the first slot from
    /// Screening.
    pub(crate) fn start(
        hospital: &Pool,
        screening: &Pool,
        auditor: &str,
        parent: &str,
        observed: &Arc<Observed>,
    ) -> Self {
        let looks = Arc::new(AtomicU64::new(0));
        let slots =
            SamplingTask { observed: Arc::clone(observed), looks: Arc::clone(&looks), auditor: auditor.to_owned() };
        let bookings =
            SamplingTask { observed: Arc::clone(observed), looks: Arc::clone(&looks), auditor: auditor.to_owned() };
        let reading = [
            tokio::spawn(slots.at_slots(hospital.clone(), parent.to_owned())),
            tokio::spawn(bookings.at_bookings(screening.clone())),
        ];
        Self { looks, reading }
    }

    /// The number of reads that were answered.
    pub(crate) fn looks(&self) -> u64 {
        self.looks.load(Ordering::Relaxed)
    }
}

struct SamplingTask {
    observed: Arc<Observed>,
    looks: Arc<AtomicU64>,
    auditor: String,
}

impl SamplingTask {
    async fn at_slots(self, pool: Pool, parent: String) {
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let request = ListSlotsRequest { parent: parent.clone(), page_size: 1_000, ..ListSlotsRequest::default() };
            let party = self.party(&pool);
            let Ok(answer) = party.hospital().list_slots(request).await else { continue };
            self.looks.fetch_add(1, Ordering::Relaxed);
            for slot in answer.into_inner().slots.into_iter().filter(|slot| slot.booked_count > slot.capacity) {
                self.oversold(format!("{} shows {} of {}", slot.name, slot.booked_count, slot.capacity));
            }
        }
    }

    async fn at_bookings(self, pool: Pool) {
        let Some(Slot { name, capacity }) = self.observed.slots().first().cloned() else { return };
        let mut ticks = interval(SAMPLE_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            let filter = format!("slot=\"{name}\" AND state=CONFIRMED");
            let request = ListScreeningsRequest { page_size: 1_000, filter, ..ListScreeningsRequest::default() };
            let party = self.party(&pool);
            let Ok(answer) = party.screening().list_screenings(request).await else { continue };
            self.looks.fetch_add(1, Ordering::Relaxed);
            let confirmed = answer.into_inner().screenings.len();
            if confirmed > usize::try_from(capacity).unwrap_or(0) {
                self.oversold(format!("{name} shows {confirmed} confirmed bookings of {capacity}"));
            }
        }
    }

    fn party(&self, pool: &Pool) -> Party {
        Party::new(pool.next(), Some(&self.auditor)).with_deadline(SAMPLE_TIMEOUT)
    }

    fn oversold(&self, what: String) {
        self.observed.oversold.fetch_add(1, Ordering::Relaxed);
        self.observed.complain(what);
    }
}
