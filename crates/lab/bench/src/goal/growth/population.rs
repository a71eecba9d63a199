//! The population of the growth measurement: hospitals, customers who book repeatedly, and hospitals to delete.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use contract::hospital::v1::{self as hospital, BatchCreateSlotsRequest, CreateHospitalRequest, CreateSlotRequest};
use domain::civil::encode_date;
use jiff::ToSpan;
use jiff::civil::Date;
use tokio::time::sleep;
use tonic::Status;

use crate::caller::{Caller, Token};
use crate::customers::Customers;
use crate::goal::deletion::Fill;
use crate::hot::{Hot, booking, today};
use crate::load::{Answer, Work};
use crate::testbed::Testbed;
use crate::{Error, Plan, Sizes};

/// The most dates that a hospital can be created with. The others are added later.
const INITIAL: usize = 366;
/// How many dates can be booked on the first day: as far as the default policy looks ahead.
const BOOKABLE: usize = 300;
/// The capacity of a slot: more than is ever booked.
const PLACES: i32 = 1_000;
/// The number of bookings of one customer.
const BOOKINGS_PER_CUSTOMER: usize = 10;
/// How many times a booking is repeated that was not answered or was put off.
const MAX_TRIES: u32 = 10;
/// The pause before the first repetition. Each further pause is longer by the same time.
const FIRST_RETRY_PAUSE: Duration = Duration::from_millis(200);
/// The number of customers who book in turn. When each has made all bookings, other customers follow.
const CUSTOMERS_IN_TURN: usize = 1_000;

/// A number of calls to make.
pub(super) struct Calls<W> {
    pub(super) work: Arc<W>,
    pub(super) calls: usize,
}

/// How much has been made so far.
pub(super) struct Population {
    sizes: Sizes,
    dates: Arc<[Date]>,
    customers: Caller,
    /// The customers of the hospitals to delete.
    doomed: Customers,
    opened: usize,
    /// The number of bookings, without those of deleted hospitals.
    pub(super) booked: usize,
    went: usize,
}

impl Population {
    pub(super) fn new(testbed: &Testbed, plan: &Plan) -> Result<Self, Error> {
        let (sizes, doomed) = (plan.sizes, plan.customers());
        // Not tomorrow: every date must stay bookable until the measurement is over, even past midnight.
        let begin = today() + 2.days();
        let dates = (0_i64..).take(sizes.dates).map(|offset| begin + offset.days()).collect();
        let customers = testbed.caller("screening", Token::admin(&testbed.signer)?)?;
        Ok(Self { sizes, dates, customers, doomed, opened: 0, booked: 0, went: 0 })
    }

    /// The first date that is booked.
    pub(super) fn begin(&self) -> Date {
        self.dates[0]
    }

    /// The calls that make hospitals until there are `until`.
    pub(super) fn hospitals(&mut self, admin: &Caller, until: usize) -> Calls<Opening> {
        let calls = until.saturating_sub(self.opened);
        let opening =
            Opening { admin: admin.clone(), dates: Arc::clone(&self.dates), next: AtomicUsize::new(self.opened) };
        self.opened = until;
        Calls { work: Arc::new(opening), calls }
    }

    /// The calls that make `count` more bookings, spread over all hospitals.
    pub(super) fn bookings(&mut self, count: usize) -> Arc<Booking> {
        let next = AtomicUsize::new(self.booked);
        self.booked += count;
        Arc::new(Booking {
            caller: self.customers.clone(),
            dates: Arc::clone(&self.dates),
            hospitals: self.opened,
            next,
        })
    }

    /// Makes a hospital to delete. Returns its name, and the calls that book all its slots.
    pub(super) async fn doomed(&mut self, admin: &Caller) -> Result<(String, Calls<Fill>), Error> {
        self.went += 1;
        let hot = Hot::open(admin, &format!("bench-doomed-{}", self.went), PLACES, self.doomed).await?;
        let calls = self.sizes.doomed;
        Ok((hot.hospital.clone(), Calls { work: Arc::new(Fill::new(self.customers.clone(), hot)), calls }))
    }
}

fn id_of(index: usize) -> String {
    format!("grown-{index}")
}

pub(super) fn hospital_name(index: usize) -> String {
    format!("hospitals/{}", id_of(index))
}

pub(super) fn customer_name(index: usize) -> String {
    format!("customers/{}", id_of(index))
}

/// An admin who makes one hospital after the other, each with all dates.
pub(super) struct Opening {
    admin: Caller,
    dates: Arc<[Date]>,
    next: AtomicUsize,
}

impl Work for Opening {
    async fn call(&self, _: usize) -> Result<Answer, Status> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let (initial, others) = self.dates.split_at(INITIAL.min(self.dates.len()));
        let request = self.admin.request(CreateHospitalRequest {
            hospital: Some(hospital::Hospital {
                display_name: format!("Grown {index}"),
                time_zone: "UTC".to_owned(),
                ..Default::default()
            }),
            hospital_id: id_of(index),
            initial_slots: initial.iter().map(slot).collect(),
            request_id: String::new(),
        });
        let parent = self.admin.hospital().create_hospital(request).await?.into_inner().name;
        if !others.is_empty() {
            let create =
                |date| CreateSlotRequest { parent: parent.clone(), slot: Some(slot(date)), ..Default::default() };
            let requests = others.iter().map(create).collect();
            let request = BatchCreateSlotsRequest { parent: parent.clone(), requests, ..Default::default() };
            self.admin.hospital().batch_create_slots(self.admin.request(request)).await?;
        }
        Ok(Answer::Done)
    }
}

fn slot(date: &Date) -> hospital::Slot {
    hospital::Slot { date: Some(encode_date(*date)), capacity: PLACES, ..Default::default() }
}

/// Whether the same request may be sent again.
fn may_come_again(status: &Status) -> bool {
    use tonic::Code::{Aborted, Cancelled, DeadlineExceeded, ResourceExhausted, Unavailable};
    matches!(status.code(), Aborted | Cancelled | DeadlineExceeded | ResourceExhausted | Unavailable)
}

/// Customers who book, each on another date every time.
pub(super) struct Booking {
    caller: Caller,
    dates: Arc<[Date]>,
    hospitals: usize,
    next: AtomicUsize,
}

impl Work for Booking {
    async fn call(&self, caller: usize) -> Result<Answer, Status> {
        let index = self.next.fetch_add(1, Ordering::Relaxed);
        let (customer, round) = (
            index / (CUSTOMERS_IN_TURN * BOOKINGS_PER_CUSTOMER) * CUSTOMERS_IN_TURN + index % CUSTOMERS_IN_TURN,
            index / CUSTOMERS_IN_TURN % BOOKINGS_PER_CUSTOMER,
        );
        let date = self.dates[(customer * 7 + round) % self.dates.len().min(BOOKABLE)];
        // Multiplying by a prime spreads consecutive bookings over all hospitals.
        let hospital = hospital_name(index.wrapping_mul(7_919) % self.hospitals);
        let request = booking(customer_name(customer), format!("{hospital}/slots/{date}"));
        let mut tries = 0;
        // A long run meets temporary failures. The same request is sent again, as a customer's client does.
        loop {
            let asked = self.caller.request(request.clone());
            match self.caller.screening(caller).create_screening(asked).await {
                Ok(_) => return Ok(Answer::Done),
                Err(status) if tries < MAX_TRIES && may_come_again(&status) => tries += 1,
                Err(status) => return Err(status),
            }
            sleep(FIRST_RETRY_PAUSE * tries).await;
        }
    }
}
