//! The table of screenings.

use ::store::query::insert_all;
use ::store::{micros, timestamp};
use domain::ids::{CustomerId, HospitalId, Malformed, ScreeningId, SlotId, parse_date};
use domain::screening::{Screening, State, Terms};
use fault::Reason;
use jiff::civil::Date;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Alias, Expr, ExprTrait, Query, TableRef, ValueTuple};
use sea_orm::{DbErr, IntoActiveModel};

/// One screening. Columns hold the last segments of resource names.
#[sea_orm::model]
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "screening")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub(crate) id: Uuid,
    /// NULL for a fence.
    pub(crate) customer: Option<String>,
    pub(crate) customer_display_name: String,
    pub(crate) hospital: String,
    /// YYYY-MM-DD.
    pub(crate) slot_date: String,
    pub(crate) hospital_display_name: String,
    pub(crate) time_zone: String,
    pub(crate) cancellation_close_time: Option<i64>,
    /// The contract's number.
    pub(crate) state: i32,
    pub(crate) state_reason: String,
    pub(crate) state_message: String,
    /// The name of a reason, or empty.
    pub(crate) given_up: String,
    pub(crate) claim_generation: i32,
    pub(crate) version: i64,
    pub(crate) create_time: i64,
    pub(crate) update_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

/// The error of a row that nothing here could have written.
fn broken(what: &str) -> DbErr {
    DbErr::Custom(format!("a stored screening has a malformed {what}"))
}

/// Reads a stored customer.
pub(crate) fn customer(segment: &str) -> Result<CustomerId, DbErr> {
    CustomerId::from_segment(segment).map_err(|Malformed(_)| broken("customer"))
}

/// Reads a stored date.
pub(crate) fn date(text: &str) -> Result<Date, DbErr> {
    parse_date(text).ok_or_else(|| broken("date"))
}

/// Reads a stored slot.
pub(crate) fn slot(hospital: &str, slot_date: &str) -> Result<SlotId, DbErr> {
    let hospital = HospitalId::from_segment(hospital).map_err(|Malformed(_)| broken("hospital"))?;
    Ok(SlotId { hospital, date: date(slot_date)? })
}

impl Model {
    /// The value it stores.
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
            },
            state: State::from_number(self.state).ok_or_else(|| broken("state"))?,
            state_reason: self.state_reason,
            state_message: self.state_message,
            given_up,
            generation: self.claim_generation,
            version: self.version,
            create_time: timestamp(self.create_time),
            update_time: timestamp(self.update_time),
        })
    }
}

impl From<&Screening> for Model {
    fn from(screening: &Screening) -> Self {
        Self {
            id: screening.id.0,
            customer: screening.customer.as_ref().map(|customer| customer.segment().to_owned()),
            customer_display_name: screening.customer_display_name.clone(),
            hospital: screening.slot.hospital.segment().to_owned(),
            slot_date: screening.slot.date.to_string(),
            hospital_display_name: screening.terms.hospital_display_name.clone(),
            time_zone: screening.terms.time_zone.clone(),
            cancellation_close_time: screening.terms.cancellation_close_time.map(micros),
            state: screening.state.number(),
            state_reason: screening.state_reason.clone(),
            state_message: screening.state_message.clone(),
            given_up: screening.given_up.map(Reason::name).unwrap_or_default().to_owned(),
            claim_generation: screening.generation,
            version: screening.version,
            create_time: micros(screening.create_time),
            update_time: micros(screening.update_time),
        }
    }
}

/// Inserts rows that were not there. It never overwrites: a row that came in between is an error, and the batch is decided
/// again with it in view.
pub(crate) async fn insert(transaction: &impl ConnectionTrait, rows: &[&Screening]) -> Result<(), DbErr> {
    let rows = rows.iter().map(|row| Model::from(*row).into_active_model().reset_all());
    insert_all(transaction, rows.collect()).await
}

/// The columns a transition can change, after the id they are found by.
const CHANGING: [Column; 8] = [
    Column::State,
    Column::StateReason,
    Column::StateMessage,
    Column::GivenUp,
    Column::HospitalDisplayName,
    Column::TimeZone,
    Column::CancellationCloseTime,
    Column::Version,
];

/// Rows one statement changes at most, well below the limits on bound values.
const CHUNK: usize = 1_000;

/// Writes rows that were there, in one statement for many.
pub(crate) async fn update(transaction: &impl ConnectionTrait, rows: &[&Screening]) -> Result<(), DbErr> {
    let changed = Alias::new("changed");
    let field = |index: usize| Expr::col((changed.clone(), Alias::new(format!("column{index}"))));
    for chunk in rows.chunks(CHUNK) {
        let values = chunk.iter().map(|row| {
            let Model {
                id,
                customer: _,
                customer_display_name: _,
                hospital: _,
                slot_date: _,
                hospital_display_name,
                time_zone,
                cancellation_close_time,
                state,
                state_reason,
                state_message,
                given_up,
                claim_generation: _,
                version,
                create_time: _,
                update_time,
            } = Model::from(*row);
            ValueTuple::Many(vec![
                id.into(),
                state.into(),
                state_reason.into(),
                state_message.into(),
                given_up.into(),
                hospital_display_name.into(),
                time_zone.into(),
                cancellation_close_time.into(),
                version.into(),
                update_time.into(),
            ])
        });
        let mut statement = Query::update();
        statement.table(Entity).from(TableRef::ValuesList(values.collect(), changed.clone().into()));
        for (index, column) in (2..).zip(CHANGING.into_iter().chain([Column::UpdateTime])) {
            statement.value(column, field(index));
        }
        statement.and_where(Expr::col((Entity, Column::Id)).eq(field(1)));
        transaction.execute(&statement).await?;
    }
    Ok(())
}
