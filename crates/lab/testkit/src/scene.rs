//! The common steps of a test: make a hospital with slots, book, wait for a place, move, cancel, read.

use contract::google::r#type::Date;
use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use hospital::{
    BookingPolicy, CreateHospitalRequest, GetSlotRequest, Hospital, SearchAvailabilityResponse, SetSlotCapacityRequest,
    Slot, UpdateHospitalRequest,
};
use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use screening::screening::State;
use screening::{
    CancelScreeningRequest, CreateScreeningRequest, GetScreeningRequest, RescheduleScreeningRequest, Screening,
};
use tonic::Status;

use crate::client::Party;
use crate::wait::eventually;

/// The date `days` days from today in a time zone.
///
/// # Panics
/// If the zone is unknown.
#[must_use]
pub fn in_days(zone: &str, days: i32) -> civil::Date {
    let zone = TimeZone::get(zone).expect("a zone of the database");
    Timestamp::now().to_zoned(zone).date() + days.days()
}

/// Converts a date to the contract's message.
#[must_use]
pub fn day_of(date: civil::Date) -> Date {
    Date { year: date.year().into(), month: date.month().into(), day: date.day().into() }
}

/// The slots of a page of available ones.
#[must_use]
pub fn slots_of(page: SearchAvailabilityResponse) -> Vec<Slot> {
    page.available_slots.into_iter().filter_map(|available| available.slot).collect()
}

/// The name of a hospital's slot on a date.
#[must_use]
pub fn slot_name(hospital: &str, date: civil::Date) -> String {
    format!("{hospital}/slots/{date}")
}

/// The common calls of one party, as short methods.
#[derive(Debug, Clone)]
pub struct Desk {
    party: Party,
}

impl Desk {
    /// The time zone of hospitals made by [`Desk::open`].
    pub const ZONE: &str = "Asia/Seoul";

    /// A desk whose calls this party makes.
    #[must_use]
    pub fn of(party: &Party) -> Self {
        Self { party: party.clone() }
    }

    /// Makes the hospital `hospitals/{id}` with one slot of this capacity on each of these days from today. Returns the
    /// slots' names.
    ///
    /// # Panics
    /// If the call is refused.
    pub async fn open(&self, id: &str, days: &[i32], capacity: i32) -> Vec<String> {
        let dates: Vec<civil::Date> = days.iter().map(|days| in_days(Self::ZONE, *days)).collect();
        let slots = dates.iter().map(|date| Slot { date: Some(day_of(*date)), capacity, ..Slot::default() }).collect();
        let made = self.register(id, Self::ZONE, slots).await.unwrap_or_else(|status| panic!("{id}: {status:?}"));
        dates.into_iter().map(|date| slot_name(&made.name, date)).collect()
    }

    /// Calls CreateHospital without a request_id.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn register(&self, id: &str, zone: &str, slots: Vec<Slot>) -> Result<Hospital, Status> {
        let request = CreateHospitalRequest {
            hospital: Some(Hospital {
                display_name: format!("Hospital {id}"),
                time_zone: zone.to_owned(),
                ..Hospital::default()
            }),
            hospital_id: id.to_owned(),
            initial_slots: slots,
            request_id: String::new(),
        };
        self.party.hospital().create_hospital(request).await.map(tonic::Response::into_inner)
    }

    /// Calls CreateScreening for `customers/{customer}`. An empty request_id sends none.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn book(&self, customer: &str, slot: &str, request_id: &str) -> Result<Screening, Status> {
        let request = booking(customer, slot, request_id);
        self.party.screening().create_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Calls CreateScreening as [`Self::book`] does, and waits for a place where none is left.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn join(&self, customer: &str, slot: &str, request_id: &str) -> Result<Screening, Status> {
        let request = CreateScreeningRequest { join_waitlist: true, ..booking(customer, slot, request_id) };
        self.party.screening().create_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Waits until the booking is in this state, for example promoted to CONFIRMED.
    ///
    /// # Panics
    /// If it does not get there.
    pub async fn becomes(&self, name: &str, state: State) -> Screening {
        eventually(&format!("{name} to be {state:?}"), async || match self.screening(name).await {
            Ok(seen) if seen.state() == state => Ok(seen),
            seen => Err(format!("{seen:?}")),
        })
        .await
    }

    /// Calls UpdateHospital with the fields of the policy that are set.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn set_policy(&self, hospital: &str, policy: BookingPolicy) -> Result<Hospital, Status> {
        let hospital = Hospital { name: hospital.to_owned(), booking_policy: Some(policy), ..Hospital::default() };
        let request = UpdateHospitalRequest { hospital: Some(hospital), update_mask: None };
        self.party.hospital().update_hospital(request).await.map(tonic::Response::into_inner)
    }

    /// Calls SetSlotCapacity to add places, or with a minus sign to take them away.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn add_places(&self, slot: &str, delta: i32) -> Result<Slot, Status> {
        let change = Some(hospital::set_slot_capacity_request::Change::Delta(delta));
        let request = SetSlotCapacityRequest { name: slot.to_owned(), change, ..SetSlotCapacityRequest::default() };
        self.party.hospital().set_slot_capacity(request).await.map(tonic::Response::into_inner)
    }

    /// Calls CancelScreening without an etag. A booking that waits leaves the queue.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn cancel(&self, name: &str, request_id: &str) -> Result<Screening, Status> {
        let request = CancelScreeningRequest {
            name: name.to_owned(),
            reason: "changed plans".to_owned(),
            etag: String::new(),
            request_id: request_id.to_owned(),
        };
        self.party.screening().cancel_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Calls RescheduleScreening without an etag.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn reschedule(&self, name: &str, slot: &str, request_id: &str) -> Result<Screening, Status> {
        let request = RescheduleScreeningRequest {
            name: name.to_owned(),
            slot: slot.to_owned(),
            reason: "another day".to_owned(),
            request_id: request_id.to_owned(),
            ..RescheduleScreeningRequest::default()
        };
        self.party.screening().reschedule_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Calls RescheduleScreening with the etag of the booking as it was seen.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn reschedule_as_seen(&self, seen: &Screening, slot: &str) -> Result<Screening, Status> {
        let request = RescheduleScreeningRequest {
            name: seen.name.clone(),
            slot: slot.to_owned(),
            etag: seen.etag.clone(),
            ..RescheduleScreeningRequest::default()
        };
        self.party.screening().reschedule_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Calls GetScreening.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn screening(&self, name: &str) -> Result<Screening, Status> {
        let request = GetScreeningRequest { name: name.to_owned() };
        self.party.screening().get_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Calls GetSlot.
    ///
    /// # Errors
    /// The status of the refusal.
    pub async fn slot(&self, name: &str) -> Result<Slot, Status> {
        let request = GetSlotRequest { name: name.to_owned() };
        self.party.hospital().get_slot(request).await.map(tonic::Response::into_inner)
    }

    /// The number of taken places of a slot.
    ///
    /// # Errors
    /// The refusal of GetSlot, as text.
    pub async fn booked(&self, name: &str) -> Result<i32, String> {
        self.slot(name).await.map(|slot| slot.booked_count).map_err(|status| format!("{status:?}"))
    }
}

/// The request that [`Desk::book`] sends.
fn booking(customer: &str, slot: &str, request_id: &str) -> CreateScreeningRequest {
    CreateScreeningRequest {
        screening: Some(Screening {
            customer: format!("customers/{customer}"),
            slot: slot.to_owned(),
            ..Screening::default()
        }),
        request_id: request_id.to_owned(),
        ..CreateScreeningRequest::default()
    }
}
