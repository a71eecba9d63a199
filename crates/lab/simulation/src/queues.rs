//! Judges the queues of slots by Hospital's events: who got a place, in which order, and what readers of events saw
//! meanwhile.

use std::collections::BTreeMap;

use contract::event::v1::EventEnvelope;
use contract::event::v1::event_envelope::Payload;
use domain::civil::decode_time;
use domain::frame::Opened;
use jiff::Timestamp;
use store::{Database, outbox};

use crate::site::Site;

/// More rows than a run makes.
const ROWS: u64 = 10_000;

/// What the events of a run say of its queues.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// How many bookings got a place from a queue.
    pub(crate) promoted: usize,
    /// What is wrong; `None` if nothing is.
    pub(crate) wrong: Option<String>,
}

/// Reads Hospital's events.
///
/// # Errors
/// The error of a database that cannot be read.
pub(crate) async fn judge(site: &Site) -> Result<Report, Box<dyn std::error::Error>> {
    let database = Database::open::<hospital::Migrator>(&site.location(hospital::NAME)).await?;
    let mut slots: BTreeMap<String, BTreeMap<i64, Fact>> = BTreeMap::new();
    for row in outbox::read_after(database.reader(), 0, ROWS).await? {
        for event in Opened::new(&row.payload).decode()? {
            if let Some((slot, fact)) = Fact::of(event) {
                slots.entry(slot).or_default().insert(fact.version, fact);
            }
        }
    }
    let promoted = slots.values().flat_map(BTreeMap::values).filter(|fact| fact.change.is_promotion()).count();
    // A recovery makes claims without an event for each.
    let judged = if site.plan.goes_back() { BTreeMap::new() } else { slots };
    let wrong = judged.iter().find_map(|(slot, facts)| Some(format!("{slot} {}", wrong_of(facts)?)));
    Ok(Report { promoted, wrong })
}

/// What is wrong with the queue of a slot; `None` if nothing is. Events are judged as far as none is missing: producers
/// remove old ones, and a deletion of the hospital is not an event of the slot.
fn wrong_of(facts: &BTreeMap<i64, Fact>) -> Option<String> {
    let mut queue = Queue::default();
    let known = (1..).zip(facts).take_while(|(version, (found, _))| version == *found);
    let mut wrong = known.map(|(version, (_, fact))| {
        let next = facts.get(&(version + 1)).filter(|next| next.change.is_promotion());
        (version, queue.read(fact).or_else(|| queue.judge_places(fact, next)))
    });
    wrong.find_map(|(version, wrong)| Some(format!("v{version} {}", wrong?)))
}

/// A change of a slot, as one event reports it.
#[derive(Debug)]
struct Fact {
    at: Timestamp,
    version: i64,
    /// The places left.
    places: i32,
    /// The bookings that wait.
    waiting: i32,
    change: Change,
}

#[derive(Debug)]
enum Change {
    /// An admin changed the slot, which is now on sale or not.
    OnSale(bool),
    Joined {
        claim: String,
        ticket: i64,
        closes_at: Timestamp,
    },
    Taken {
        claim: String,
        from_waitlist: bool,
    },
    Ended {
        claim: String,
    },
}

impl Change {
    fn is_promotion(&self) -> bool {
        matches!(self, Self::Taken { from_waitlist: true, .. })
    }
}

impl Fact {
    /// The slot and its change; `None` for an event that reports none.
    fn of(event: EventEnvelope) -> Option<(String, Self)> {
        let at = event.occur_time.as_ref().and_then(decode_time)?;
        let (slot, version, places, waiting, change) = match event.payload? {
            Payload::SlotOpened(it) => {
                let left = it.capacity - it.booked_count;
                (it.slot, it.slot_version, left, it.waitlisted_count, Change::OnSale(true))
            }
            Payload::SlotCapacityChanged(it) => {
                let (left, change) = (it.new_capacity - it.booked_count, Change::OnSale(it.on_sale?));
                (it.slot, it.slot_version, left, it.waitlisted_count, change)
            }
            Payload::SlotClosed(it) => {
                let left = it.capacity - it.booked_count;
                (it.slot, it.slot_version, left, it.waitlisted_count, Change::OnSale(false))
            }
            Payload::CapacityWaitlisted(it) => {
                let closes_at = it.promotion_close_time.as_ref().and_then(decode_time)?;
                let change = Change::Joined { claim: it.claim_id, ticket: it.waitlist_ticket, closes_at };
                (it.slot, it.slot_version, it.remaining_count, it.waitlisted_count, change)
            }
            Payload::CapacityReserved(it) => {
                let change = Change::Taken { claim: it.claim_id, from_waitlist: it.from_waitlist };
                (it.slot, it.slot_version, it.remaining_count, it.waitlisted_count, change)
            }
            // The first event of a claim that was never taken changes no slot.
            Payload::CapacityReleased(it) if event.aggregate_version > 1 => {
                let change = Change::Ended { claim: it.claim_id };
                (it.slot, it.slot_version, it.remaining_count, it.waitlisted_count, change)
            }
            Payload::CapacityRevoked(it) => {
                let change = Change::Ended { claim: it.claim_id };
                (it.slot, it.slot_version, it.remaining_count, it.waitlisted_count, change)
            }
            _ => return None,
        };
        Some((slot, Self { at, version, places, waiting, change }))
    }
}

/// The queue of a slot as the events up to one say.
#[derive(Debug, Default)]
struct Queue {
    on_sale: bool,
    /// The claims that wait, by their tickets, and until when each may get a place.
    tickets: BTreeMap<i64, (String, Timestamp)>,
}

impl Queue {
    /// The claim that gets the next place, if one may.
    fn first(&self, at: Timestamp) -> Option<&str> {
        let next = self.tickets.values().find(|(_, closes_at)| at < *closes_at).filter(|_| self.on_sale);
        next.map(|(claim, _)| claim.as_str())
    }

    /// Applies an event. Returns what is wrong with it.
    fn read(&mut self, fact: &Fact) -> Option<String> {
        let first = self.first(fact.at).map(str::to_owned);
        let ended = match &fact.change {
            Change::OnSale(on_sale) => {
                self.on_sale = *on_sale;
                None
            }
            Change::Joined { claim, ticket, closes_at } => {
                let last = self.tickets.last_key_value().map(|(last, _)| *last);
                self.tickets.insert(*ticket, (claim.clone(), *closes_at));
                if last.is_some_and(|last| last >= *ticket) {
                    return Some(format!("gives {claim} ticket {ticket} after {last:?}"));
                }
                None
            }
            Change::Taken { claim, from_waitlist: true } if first.as_ref() != Some(claim) => {
                return Some(format!("promotes {claim}, and the first of its queue is {first:?}"));
            }
            Change::Taken { claim, from_waitlist: false } if first.is_some() => {
                return Some(format!("gives {claim} a place that {first:?} waits for"));
            }
            Change::Taken { claim, .. } | Change::Ended { claim } => Some(claim),
        };
        self.tickets.retain(|_, (claim, _)| Some(&*claim) != ended);
        let differs = usize::try_from(fact.waiting) != Ok(self.tickets.len());
        differs.then(|| format!("counts {} who wait, and there are {:?}", fact.waiting, self.tickets))
    }

    /// Judges the places that an event shows. They are the same where a promotion follows: its place was never free.
    fn judge_places(&self, fact: &Fact, promotion: Option<&Fact>) -> Option<String> {
        let places = fact.places;
        match (promotion, self.first(fact.at)) {
            (Some(promotion), _) if promotion.places != places => {
                Some(format!("shows {places} places, and the promotion after it {}", promotion.places))
            }
            (None, Some(first)) if places > 0 => Some(format!("shows {places} places that {first} waits for")),
            _ => None,
        }
    }
}
