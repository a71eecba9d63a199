//! The fold: bookings and places from events that may come twice, late, and in any order.

use std::collections::{BTreeMap, BTreeSet};

use prost::Message;
use serde::{Deserialize, Serialize};

use crate::contract::checkup::event::v1::event_envelope::Payload;
use crate::contract::checkup::event::v1::{EventEnvelope, EventFrame, ScreeningSnapshot};

/// A booking at its greatest version.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Booking {
    version: i64,
    state: String,
    customer: String,
    slot: String,
}

/// The counts of a slot at its greatest slot_version, and whether it is on sale.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Slot {
    slot_version: i64,
    capacity: i32,
    booked_count: i32,
    on_sale: bool,
    /// The version of the slot that `on_sale` is from.
    sale_version: i64,
}

/// Everything that is kept. Versions are in it, so no list of events that were seen is needed.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct State {
    bookings: BTreeMap<String, Booking>,
    slots: BTreeMap<String, Slot>,
    /// The ids of events with a fact of a later version.
    unknown: BTreeSet<String>,
}

impl State {
    /// Applies all events of a message, or none if one of them cannot be decoded.
    pub fn apply(&mut self, message: &[u8]) -> Result<(), prost::DecodeError> {
        for event in events(message)? {
            self.apply_event(event);
        }
        Ok(())
    }

    /// The state in the form of proto/conformance/state.json.
    pub fn public(&self) -> serde_json::Value {
        let slot = |slot: &Slot| {
            let Slot { slot_version, capacity, booked_count, on_sale, sale_version: _ } = slot;
            serde_json::json!({"slot_version": slot_version, "capacity": capacity, "booked_count": booked_count, "on_sale": on_sale})
        };
        let slots: BTreeMap<_, _> = self.slots.iter().map(|(name, found)| (name, slot(found))).collect();
        serde_json::json!({"bookings": self.bookings, "slots": slots, "unknown_facts": self.unknown.len()})
    }

    fn apply_event(&mut self, event: EventEnvelope) {
        let version = event.aggregate_version;
        let Some(fact) = event.payload else {
            self.unknown.insert(event.event_id);
            return;
        };
        match fact {
            Payload::ScreeningPending(fact) => self.booking(version, "PENDING", fact.screening),
            Payload::ScreeningConfirmed(fact) => self.booking(version, "CONFIRMED", fact.screening),
            Payload::ScreeningRejected(fact) => self.booking(version, "REJECTED", fact.screening),
            Payload::ScreeningCancelled(fact) => self.booking(version, "CANCELLED", fact.screening),
            Payload::ScreeningForceCancelled(fact) => self.booking(version, "FORCE_CANCELLED", fact.screening),
            Payload::ScreeningWaitlisted(fact) => self.booking(version, "WAITLISTED", fact.screening),
            Payload::ScreeningWaitlistEnded(fact) => self.booking(version, &fact.state, fact.screening),
            Payload::ScreeningAttendanceRecorded(fact) => {
                self.booking(version, if fact.attended { "COMPLETED" } else { "NO_SHOW" }, fact.screening);
            }
            Payload::SlotOpened(fact) => {
                self.sale(&fact.slot, version, true);
                self.place(fact.slot, fact.slot_version, fact.capacity, fact.booked_count);
            }
            Payload::SlotClosed(fact) => {
                self.sale(&fact.slot, version, false);
                self.place(fact.slot, fact.slot_version, fact.capacity, fact.booked_count);
            }
            Payload::SlotCapacityChanged(fact) => {
                if let Some(on_sale) = fact.on_sale {
                    self.sale(&fact.slot, version, on_sale);
                }
                self.place(fact.slot, fact.slot_version, fact.new_capacity, fact.booked_count);
            }
            Payload::CapacityReserved(fact) => {
                self.place(fact.slot, fact.slot_version, fact.capacity, fact.booked_count)
            }
            Payload::CapacityWaitlisted(fact) => {
                self.place(fact.slot, fact.slot_version, fact.capacity, fact.booked_count)
            }
            Payload::CapacityReleased(fact) => {
                self.place(fact.slot, fact.slot_version, fact.capacity, fact.booked_count)
            }
            Payload::CapacityRevoked(fact) => {
                self.place(fact.slot, fact.slot_version, fact.capacity, fact.booked_count)
            }
            // Known facts that this team does not need.
            _ => {}
        }
    }

    fn booking(&mut self, version: i64, state: &str, snapshot: Option<ScreeningSnapshot>) {
        // Without a customer it is a fence, which is shown to nobody.
        let Some(snapshot) = snapshot.filter(|snapshot| !snapshot.customer.is_empty()) else { return };
        let held = self.bookings.get(&snapshot.screening).map_or(0, |booking| booking.version);
        if version > held {
            let (customer, slot) = (snapshot.customer, snapshot.slot);
            let booking = Booking { version, state: state.to_owned(), customer, slot };
            self.bookings.insert(snapshot.screening, booking);
        }
    }

    /// Bookings change a slot through its claims, so its counts have a version of their own.
    fn place(&mut self, name: String, slot_version: i64, capacity: i32, booked_count: i32) {
        let slot = self.slots.entry(name).or_default();
        if slot_version > slot.slot_version {
            (slot.slot_version, slot.capacity, slot.booked_count) = (slot_version, capacity, booked_count);
        }
    }

    fn sale(&mut self, name: &str, version: i64, on_sale: bool) {
        let slot = self.slots.entry(name.to_owned()).or_default();
        if version > slot.sale_version {
            (slot.sale_version, slot.on_sale) = (version, on_sale);
        }
    }
}

/// The events of a message: of a frame, or the one that is the message itself, as earlier versions published.
fn events(message: &[u8]) -> Result<Vec<EventEnvelope>, prost::DecodeError> {
    let frame = EventFrame::decode(message)?;
    if frame.events.is_empty() { Ok(vec![EventEnvelope::decode(message)?]) } else { Ok(frame.events) }
}
