//! The everyday moves of a test: make a hospital with slots, book, cancel, look.

use contract::google::r#type::Date;
use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use hospital::{CreateHospitalRequest, GetSlotRequest, Hospital, Slot};
use jiff::civil;
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use screening::{CancelScreeningRequest, CreateScreeningRequest, GetScreeningRequest, Screening};
use tonic::Status;

use crate::client::Party;

/// A date some days from today in a time zone.
///
/// # Panics
/// Where the zone is unknown.
#[must_use]
pub fn in_days(zone: &str, days: i32) -> civil::Date {
    let zone = TimeZone::get(zone).expect("a zone of the database");
    Timestamp::now().to_zoned(zone).date() + days.days()
}

/// The contract's form of a date.
#[must_use]
pub fn day_of(date: civil::Date) -> Date {
    Date { year: date.year().into(), month: date.month().into(), day: date.day().into() }
}

/// The name of a hospital's slot on a date.
#[must_use]
pub fn slot_name(hospital: &str, date: civil::Date) -> String {
    format!("{hospital}/slots/{date}")
}

/// What a party does every day, as short calls. The zone is Asia/Seoul unless said otherwise.
#[derive(Debug, Clone)]
pub struct Desk {
    party: Party,
}

impl Desk {
    /// The zone of hospitals made by [`Desk::open`].
    pub const ZONE: &str = "Asia/Seoul";

    /// Works for this party.
    #[must_use]
    pub fn of(party: &Party) -> Self {
        Self { party: party.clone() }
    }

    /// Makes the hospital `hospitals/{id}` with one slot of this capacity on each of these days from today, and returns
    /// the slots' names.
    ///
    /// # Panics
    /// Where it is refused.
    pub async fn open(&self, id: &str, days: &[i32], capacity: i32) -> Vec<String> {
        let dates: Vec<civil::Date> = days.iter().map(|days| in_days(Self::ZONE, *days)).collect();
        let slots = dates.iter().map(|date| Slot { date: Some(day_of(*date)), capacity, ..Slot::default() }).collect();
        let made = self.register(id, Self::ZONE, slots).await.unwrap_or_else(|status| panic!("{id}: {status:?}"));
        dates.into_iter().map(|date| slot_name(&made.name, date)).collect()
    }

    /// Calls CreateHospital.
    ///
    /// # Errors
    /// Its refusal.
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

    /// Calls CreateScreening for `customers/{customer}`, without a request_id where it is empty.
    ///
    /// # Errors
    /// Its refusal.
    pub async fn book(&self, customer: &str, slot: &str, request_id: &str) -> Result<Screening, Status> {
        let request = booking(customer, slot, request_id);
        self.party.screening().create_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Calls CancelScreening.
    ///
    /// # Errors
    /// Its refusal.
    pub async fn cancel(&self, name: &str, request_id: &str) -> Result<Screening, Status> {
        let request = CancelScreeningRequest {
            name: name.to_owned(),
            reason: "changed plans".to_owned(),
            etag: String::new(),
            request_id: request_id.to_owned(),
        };
        self.party.screening().cancel_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Calls GetScreening.
    ///
    /// # Errors
    /// Its refusal.
    pub async fn screening(&self, name: &str) -> Result<Screening, Status> {
        let request = GetScreeningRequest { name: name.to_owned() };
        self.party.screening().get_screening(request).await.map(tonic::Response::into_inner)
    }

    /// Calls GetSlot.
    ///
    /// # Errors
    /// Its refusal.
    pub async fn slot(&self, name: &str) -> Result<Slot, Status> {
        let request = GetSlotRequest { name: name.to_owned() };
        self.party.hospital().get_slot(request).await.map(tonic::Response::into_inner)
    }

    /// How many places of a slot are taken.
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
