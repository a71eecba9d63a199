//! A hot slot that all callers book, and the next one once it is full.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use contract::capacity::v1 as capacity;
use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use domain::civil::encode_date;
use domain::window::MAX_WAITLIST;
use fault::Reason;
use jiff::ToSpan;
use runtime::clock::Clock;
use runtime::entropy;
use runtime::status::reason_of;
use tonic::Status;

use crate::Error;
use crate::caller::Caller;
use crate::customers::Customers;
use crate::load::{Answer, Work};

/// The capacity of a slot: the largest that is allowed.
pub(crate) const PLACES: i32 = 100_000;
/// The number of slots, which are used one after the other.
const SLOTS: i64 = 100;
/// Days from today to the first slot.
pub(crate) const AHEAD: i64 = 30;

/// Today's date in the time zone of the measured hospitals.
pub(crate) fn today() -> jiff::civil::Date {
    Clock::system().now().to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// A hospital whose slots are booked one after the other.
#[derive(Debug)]
pub(crate) struct Hot {
    pub(crate) hospital: String,
    slots: Vec<String>,
    /// The index of the slot that all callers book.
    current: AtomicUsize,
    /// The id of the hospital, which is part of the customers' names.
    id: String,
    customers: Customers,
    /// The number of customers so far. Each makes one booking, because a customer has one booking per date.
    came: AtomicU64,
}

impl Hot {
    /// Creates the hospital with this capacity per slot, for these customers.
    pub(crate) async fn open(admin: &Caller, id: &str, places: i32, customers: Customers) -> Result<Arc<Self>, Error> {
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
                booking_policy: Some(hospital::BookingPolicy {
                    waitlist_limit: Some(MAX_WAITLIST),
                    ..Default::default()
                }),
                ..Default::default()
            }),
            hospital_id: id.to_owned(),
            initial_slots: dates.iter().map(slot).collect(),
            request_id: String::new(),
        });
        let made = admin.hospital().create_hospital(request).await.map_err(Error::call("CreateHospital"))?;
        let hospital = made.into_inner().name;
        let slots = dates.iter().map(|date| format!("{hospital}/slots/{date}")).collect();
        let (current, came) = (AtomicUsize::new(0), AtomicU64::new(0));
        Ok(Arc::new(Self { hospital, slots, current, id: id.to_owned(), customers, came }))
    }

    /// Moves to a slot without bookings, so that no measurement depends on an earlier one.
    pub(crate) fn fresh(&self) {
        self.current.fetch_add(1, Ordering::Relaxed);
    }

    /// The slot that all callers book.
    pub(crate) fn slot(&self) -> Result<&str, Status> {
        self.at(self.current.load(Ordering::Relaxed))
    }

    fn at(&self, index: usize) -> Result<&str, Status> {
        let full = || Status::out_of_range("every slot is full; measure for a shorter time");
        self.slots.get(index).map(String::as_str).ok_or_else(full)
    }

    /// The slot at this index, counted round all slots.
    pub(crate) fn any(&self, index: usize) -> &str {
        &self.slots[index % self.slots.len()]
    }

    /// A customer without bookings.
    pub(crate) fn customer(&self) -> String {
        self.customers.name(&self.id, self.came.fetch_add(1, Ordering::Relaxed))
    }

    /// The outcome of a status of a call on slot `on`. A status that must not happen is an error.
    pub(crate) fn judge(&self, on: usize, status: Status) -> Result<Answer, Status> {
        match reason_of(&status) {
            Some(Reason::SlotFull) => {
                // The first caller that sees a full slot moves all callers to the next one.
                let _ = self.current.compare_exchange(on, on + 1, Ordering::Relaxed, Ordering::Relaxed);
                Ok(Answer::Refused)
            }
            Some(Reason::Overloaded | Reason::RateLimited | Reason::HospitalUnavailable | Reason::DeadlineExceeded) => {
                Ok(Answer::Refused)
            }
            _ => Err(status),
        }
    }
}

/// ReserveCapacity, as Screening calls it where nobody else asks for the slot.
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
        let request = self.caller.request(capacity::ReserveCapacityRequest { slot, claim_id, ..Default::default() });
        match self.caller.capacity(caller).reserve_capacity(request).await {
            Ok(_) => Ok(Answer::Done),
            Err(status) => self.hot.judge(on, status),
        }
    }
}

/// How callers make their request_ids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RequestIds {
    /// UUIDs of version 7, which begin with their time.
    Version7,
    /// UUIDs of version 4, which are random. Most client libraries make these.
    Version4,
}

impl RequestIds {
    /// The version of the UUIDs.
    pub(crate) const fn version(self) -> u8 {
        match self {
            Self::Version7 => 7,
            Self::Version4 => 4,
        }
    }

    fn next(self) -> String {
        match self {
            Self::Version7 => entropy::uuid_v7(),
            Self::Version4 => entropy::uuid_v4(),
        }
        .to_string()
    }
}

/// CreateScreening: calls of two services and both their commits.
#[derive(Debug)]
pub(crate) struct Book {
    pub(crate) caller: Caller,
    pub(crate) hot: Arc<Hot>,
    pub(crate) request_ids: RequestIds,
}

impl Book {
    /// Bookings with request_ids of version 7.
    pub(crate) fn new(caller: Caller, hot: Arc<Hot>) -> Self {
        Self { caller, hot, request_ids: RequestIds::Version7 }
    }

    /// The request of the next customer for a place on this slot.
    fn request(&self, slot: String) -> screening::CreateScreeningRequest {
        identified(self.hot.customer(), slot, self.request_ids)
    }
}

impl Work for Book {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let on = self.hot.current.load(Ordering::Relaxed);
        let request = self.caller.request(self.request(self.hot.at(on)?.to_owned()));
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
    /// Makes a booking to read.
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

/// The request for a booking, with a request_id of version 7.
pub(crate) fn booking(customer: String, slot: String) -> screening::CreateScreeningRequest {
    identified(customer, slot, RequestIds::Version7)
}

fn identified(customer: String, slot: String, request_ids: RequestIds) -> screening::CreateScreeningRequest {
    screening::CreateScreeningRequest {
        screening: Some(screening::Screening { customer, slot, ..Default::default() }),
        request_id: request_ids.next(),
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Order;

    fn hot(order: Order, seed: u64) -> Hot {
        let (current, came) = (AtomicUsize::new(0), AtomicU64::new(0));
        let (hospital, slots, id) = (String::new(), Vec::new(), "bench-hot".to_owned());
        Hot { hospital, slots, current, id, customers: Customers { order, seed }, came }
    }

    #[test]
    fn customers_come_in_the_order_that_was_asked_for() {
        let customers = |order, seed| {
            let hot = hot(order, seed);
            (0..100).map(|_| hot.customer()).collect::<Vec<_>>()
        };
        assert!(customers(Order::Sequential, 1).is_sorted_by(|one, next| one < next));
        assert!(!customers(Order::Random, 1).is_sorted());
        assert_eq!(customers(Order::Random, 1), customers(Order::Random, 1));
        assert_ne!(customers(Order::Random, 1), customers(Order::Random, 2));
    }

    #[test]
    fn a_request_id_says_its_version() {
        for (request_ids, version) in [(RequestIds::Version7, '7'), (RequestIds::Version4, '4')] {
            let ids = [(); 2].map(|()| identified(String::new(), String::new(), request_ids).request_id);
            assert!(ids.iter().all(|id| id.len() == 36 && id.chars().nth(14) == Some(version)), "{ids:?}");
            assert_ne!(ids[0], ids[1]);
        }
        assert_eq!(booking(String::new(), String::new()).request_id.chars().nth(14), Some('7'));
    }
}
