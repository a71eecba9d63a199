//! The table of screenings.

use domain::ids::{CustomerId, HospitalId, Malformed, ScreeningId, SlotId, parse_date};
use domain::screening::{Queued, Screening, State, Terms};
use fault::Reason;
use jiff::civil::Date;
use sea_orm::ActiveValue::Set;
use sea_orm::DbErr;
use sea_orm::entity::prelude::*;
use store::Connection;
use store::rows::NoRelation as Relation;
use store::rows::{insert_all, replace_all, set_unless_unchanged};
use store::{micros, timestamp};

/// One screening. Columns store the last segments of resource names.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "screening")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Uuid,
    pub(crate) customer: Option<String>,
    pub(crate) customer_display_name: String,
    pub(crate) hospital: String,
    pub(crate) slot_date: String,
    pub(crate) hospital_display_name: String,
    pub(crate) time_zone: String,
    pub(crate) cancellation_close_time: Option<i64>,
    /// The number in the contract.
    pub(crate) state: i32,
    pub(crate) state_reason: String,
    pub(crate) state_message: String,
    /// The name of a reason; empty if the booking was not given up.
    pub(crate) given_up: String,
    /// Whether a PENDING booking waits for a place if none is left.
    pub(crate) joins_waitlist: bool,
    /// How many bookings waited in front of it, and itself; 0 if it never waited, or got a place.
    pub(crate) waitlist_position: i32,
    /// The instant from which it gets no place any more; `None` if it never waited, or got a place.
    pub(crate) promotion_close_time: Option<i64>,
    pub(crate) claim_generation: i32,
    /// The greatest generation that no move can use any more; 0 if there is none.
    pub(crate) fenced_generation: i32,
    /// How often it was moved to another slot.
    pub(crate) reschedule_count: i32,
    /// How often its customer may move it; `None`: as often as they like.
    pub(crate) reschedule_limit: Option<i32>,
    pub(crate) version: i64,
    pub(crate) create_time: i64,
    pub(crate) update_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// The error of a row that this code cannot have written.
fn broken(what: &str) -> DbErr {
    DbErr::Custom(format!("a stored screening has a malformed {what}"))
}

pub(crate) fn customer(segment: &str) -> Result<CustomerId, DbErr> {
    CustomerId::from_segment(segment).map_err(|Malformed(_)| broken("customer"))
}

/// The date of a `slot_date`, which ends with the program of a slot that has one.
pub(crate) fn date(text: &str) -> Result<Date, DbErr> {
    text.split('~').next().and_then(parse_date).ok_or_else(|| broken("date"))
}

pub(crate) fn slot(hospital: &str, slot_date: &str) -> Result<SlotId, DbErr> {
    let hospital = HospitalId::from_segment(hospital).map_err(|Malformed(_)| broken("hospital"))?;
    SlotId::from_segment(hospital, slot_date).ok_or_else(|| broken("date"))
}

impl Model {
    pub(crate) fn into_domain(self) -> Result<Screening, DbErr> {
        let given_up = if self.given_up.is_empty() {
            None
        } else {
            Some(Reason::from_name(&self.given_up).ok_or_else(|| broken("reason"))?)
        };
        Ok(Screening {
            id: ScreeningId(self.id),
            customer: self.customer.as_deref().map(customer).transpose()?,
            customer_display_name: self.customer_display_name,
            slot: slot(&self.hospital, &self.slot_date)?,
            terms: Terms {
                hospital_display_name: self.hospital_display_name,
                time_zone: self.time_zone,
                cancellation_close_time: self.cancellation_close_time.map(timestamp),
                reschedule_limit: self.reschedule_limit,
                customer_limit: None,
            },
            state: State::from_number(self.state).ok_or_else(|| broken("state"))?,
            state_reason: self.state_reason,
            state_message: self.state_message,
            given_up,
            joins_waitlist: self.joins_waitlist,
            queued: self
                .promotion_close_time
                .map(|time| Queued { position: self.waitlist_position, closes_at: timestamp(time) }),
            generation: self.claim_generation,
            fenced_generation: self.fenced_generation,
            reschedule_count: self.reschedule_count,
            version: self.version,
            create_time: timestamp(self.create_time),
            update_time: timestamp(self.update_time),
        })
    }
}

impl ActiveModel {
    /// The row of a screening. `before` is the stored row, if there is one. Columns that an index covers are left
    /// `Unchanged` if their values are the same, so that SQLite rewrites no index.
    fn new(screening: Screening, before: Option<&Screening>) -> Self {
        let fixed = before.is_some_and(|before| {
            let Screening { customer, slot, create_time, .. } = before;
            (customer, slot, create_time) == (&screening.customer, &screening.slot, &screening.create_time)
        });
        let close = |row: &Screening| row.queued.map(|queued| micros(queued.closes_at));
        let (position, closes_at) = (screening.queued.map_or(0, |queued| queued.position), close(&screening));
        let waits_as_before = before.is_some_and(|before| close(before) == closes_at);
        let Screening {
            id,
            customer,
            customer_display_name,
            slot,
            terms,
            state,
            state_reason,
            state_message,
            given_up,
            joins_waitlist,
            queued: _,
            generation,
            fenced_generation,
            reschedule_count,
            version,
            create_time,
            update_time,
        } = screening;
        Self {
            id: Set(id.0),
            customer: set_unless_unchanged(fixed, customer.map(|customer| customer.segment().to_owned())),
            customer_display_name: Set(customer_display_name),
            hospital: set_unless_unchanged(fixed, slot.hospital.segment().to_owned()),
            slot_date: set_unless_unchanged(fixed, slot.segment()),
            hospital_display_name: Set(terms.hospital_display_name),
            time_zone: Set(terms.time_zone),
            cancellation_close_time: Set(terms.cancellation_close_time.map(micros)),
            state: Set(state.number()),
            state_reason: Set(state_reason),
            state_message: Set(state_message),
            given_up: Set(given_up.map(Reason::name).unwrap_or_default().to_owned()),
            joins_waitlist: Set(joins_waitlist),
            waitlist_position: Set(position),
            promotion_close_time: set_unless_unchanged(waits_as_before, closes_at),
            claim_generation: Set(generation),
            fenced_generation: Set(fenced_generation),
            reschedule_count: Set(reschedule_count),
            reschedule_limit: Set(terms.reschedule_limit),
            version: Set(version),
            create_time: set_unless_unchanged(fixed, micros(create_time)),
            update_time: Set(micros(update_time)),
        }
    }
}

/// Inserts new rows and never overwrites one. If a row was inserted meanwhile, this is an error, and the batch is
/// decided again with that row loaded.
pub(crate) async fn insert(transaction: &dyn Connection, rows: Vec<Screening>) -> Result<(), DbErr> {
    insert_all(transaction, rows.into_iter().map(|row| ActiveModel::new(row, None)).collect()).await
}

/// Replaces stored rows. Each pair is a row as it was and as it is now.
pub(crate) async fn update(transaction: &dyn Connection, rows: Vec<(Screening, Screening)>) -> Result<(), DbErr> {
    let rows = rows.into_iter().map(|(before, row)| ActiveModel::new(row, Some(&before)));
    replace_all(transaction, rows.collect()).await
}
