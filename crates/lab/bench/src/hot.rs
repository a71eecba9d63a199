//! A hot slot: everybody wants the same date. And the next one, once it is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use domain::civil::encode_date;
use fault::Reason;
use jiff::ToSpan;
use runtime::clock::Clock;
use runtime::entropy;
use runtime::status::reason_of;
use tonic::Status;

use crate::Error;
use crate::caller::Caller;
use crate::load::{Answer, Work};

/// Places of a slot: the most there can be.
pub(crate) const PLACES: i32 = 100_000;
/// Slots to go on with when one is full.
const SLOTS: i64 = 100;
/// Days from now to the first of them.
pub(crate) const AHEAD: i64 = 30;

/// The date, where hospitals of the measurements are.
pub(crate) fn today() -> jiff::civil::Date {
    Clock::system().now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// A hospital of its own with slots to be booked one after the other.
#[derive(Debug)]
pub(crate) struct Hot {
    pub(crate) hospital: String,
    slots: Vec<String>,
    /// The slot all callers are on.
    current: AtomicUsize,
    run: String,
    /// Numbers customers: one has one booking a date.
    customers: AtomicUsize,
}

impl Hot {
    /// Has an admin make it, with so many places a slot.
    pub(crate) async fn open(admin: &Caller, id: &str, places: i32) -> Result<Arc<Self>, Error> {
        let begin = today() + AHEAD.days();
        let dates: Vec<jiff::civil::Date> = (0..SLOTS).map(|offset| begin + offset.days()).collect();
        let slot = |date: &jiff::civil::Date| hospital::Slot {
            date: Some(encode_date(*date)),
            capacity: places,
            ..Default::default()
        };
        let request = admin.request(hospital::CreateHospitalRequest {
            hospital: Some(hospital::Hospital {
                display_name: "Bench".to_owned(),
                time_zone: "UTC".to_owned(),
                ..Default::default()
            }),
            hospital_id: id.to_owned(),
            initial_slots: dates.iter().map(slot).collect(),
            request_id: String::new(),
        });
        let made = admin.hospital().create_hospital(request).await.map_err(Error::call("CreateHospital"))?;
        let hospital = made.into_inner().name;
        let slots = dates.iter().map(|date| format!("{hospital}/slots/{date}")).collect();
        let (current, customers) = (AtomicUsize::new(0), AtomicUsize::new(0));
        Ok(Arc::new(Self { hospital, slots, current, customers, run: id.to_owned() }))
    }

    /// Goes on to a slot nobody has booked yet: what an earlier measurement took is not the next one's.
    pub(crate) fn fresh(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// The slot everybody is on.
    pub(crate) fn slot(&self) -> Result<&str, Status> {
        self.at(self.current.load(Ordering::Relaxed))
    }

    fn at(&self, index: usize) -> Result<&str, Status> {
        let full = || Status::out_of_range("every slot is full; measure for a shorter time");
        self.slots.get(index).map(String::as_str).ok_or_else(full)
    }

    /// One slot after the other.
    pub(crate) fn any(&self, index: usize) -> &str {
        &self.slots[index % self.slots.len()]
    }

    /// Somebody who has booked nothing yet.
    pub(crate) fn customer(&self) -> String {
        format!("customers/{}-{}", self.run, self.customers.fetch_add(1, Ordering::Relaxed))
    }

    /// What a status of a call on this slot means; an error where it must not happen.
    fn judge(&self, on: usize, status: Status) -> Result<Answer, Status> {
        match reason_of(&status) {
            Some(Reason::SlotFull) => {
                // whoever sees it first moves everybody on
                let _ = self.current.compare_exchange(on, on + 1, Ordering::Relaxed, Ordering::Relaxed);
                Ok(Answer::Refused)
            }
            Some(Reason::Overloaded | Reason::HospitalUnavailable | Reason::DeadlineExceeded) => Ok(Answer::Refused),
            _ => Err(status),
        }
    }
}

/// ReserveCapacity, as Screening calls it.
#[derive(Debug)]
pub(crate) struct Reserve {
    pub(crate) caller: Caller,
    pub(crate) hot: Arc<Hot>,
}

impl Work for Reserve {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let on = self.hot.current.load(Ordering::Relaxed);
        let slot = self.hot.at(on)?.to_owned();
        let claim_id = format!("{}.1", entropy::uuid_v7());
        let request = self.caller.request(hospital::ReserveCapacityRequest { slot, claim_id });
        match self.caller.capacity(caller).reserve_capacity(request).await {
            Ok(_) => Ok(Answer::Done),
            Err(status) => self.hot.judge(on, status),
        }
    }
}

/// CreateScreening: both services, both commits.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) caller: Caller,
    pub(crate) hot: Arc<Hot>,
}

impl Work for Book {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let on = self.hot.current.load(Ordering::Relaxed);
        let request = self.caller.request(booking(self.hot.customer(), self.hot.at(on)?.to_owned()));
        match self.caller.screening(caller).create_screening(request).await {
            Ok(_) => Ok(Answer::Done),
            Err(status) => self.hot.judge(on, status),
        }
    }
}

/// GetScreening: a read of one row.
#[derive(Debug)]
pub(crate) struct ReadOne {
    caller: Caller,
    name: String,
}

impl ReadOne {
    /// Of a booking that is made for it.
    pub(crate) async fn of(book: &Book) -> Result<Arc<Self>, Error> {
        let slot = book.hot.slot().map_err(Error::call("the first slot"))?.to_owned();
        let request = book.caller.request(booking(book.hot.customer(), slot));
        let made = book.caller.screening(0).create_screening(request).await.map_err(Error::call("CreateScreening"))?;
        Ok(Arc::new(Self { caller: book.caller.clone(), name: made.into_inner().name }))
    }
}

impl Work for ReadOne {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let request = self.caller.request(screening::GetScreeningRequest { name: self.name.clone() });
        self.caller.screening(caller).get_screening(request).await.map(|_| Answer::Done)
    }
}

/// The request of a booking.
pub(crate) fn booking(customer: String, slot: String) -> screening::CreateScreeningRequest {
    screening::CreateScreeningRequest {
        screening: Some(screening::Screening { customer, slot, ..Default::default() }),
        request_id: entropy::uuid_v7().to_string(),
        ..Default::default()
    }
}
