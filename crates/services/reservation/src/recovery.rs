//! Tells the recovery of Screening what the ledger knows of its bookings.

use std::collections::HashMap;

use domain::ids::ScreeningId;
use domain::recovery::{Answered, KnownBooking};
use domain::reservation::{Entry, Reservation, State};
use domain::screening;
use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};
use store::{Database, DbErr};

use crate::tables::{history, reservation};
use store::Fetch as _;

/// The names of this service's durable consumers.
pub const CONSUMERS: &[&str] = &[crate::reactions::SCREENINGS];

/// The state of the screening that a reservation in this state follows.
const fn followed(state: State) -> screening::State {
    match state {
        State::Registered => screening::State::Confirmed,
        State::Cancelled => screening::State::Cancelled,
        State::ForceCancelled => screening::State::ForceCancelled,
        State::Completed => screening::State::Completed,
        State::NoShow => screening::State::NoShow,
    }
}

/// Reads at most `limit` changes that were made at or after `since`, in the order of screening ids and versions, after
/// `after`. `None` if there are no more.
///
/// # Errors
/// Fails if the database does.
pub async fn answered(
    database: &Database,
    since: Timestamp,
    after: Option<(ScreeningId, i64)>,
    limit: u64,
) -> Result<Option<Answers>, DbErr> {
    let rows = history::since(database.reader(), since, after, limit).await?;
    let Some(last) = rows.last().map(|row| (row.screening, row.version)) else { return Ok(None) };
    let answered = |row: &Entry| {
        let state = (followed(row.state), row.reason.as_str());
        Answered::of(row.screening, state, &row.actor, row.request_id, row.occur_time)
    };
    Ok(Some(Answers { calls: rows.iter().filter_map(answered).collect(), last }))
}

/// A part of the calls that led to changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answers {
    /// The calls of this part that had a request_id.
    pub calls: Vec<Answered>,
    /// The screening and the version that this part ends with.
    pub last: (ScreeningId, i64),
}

/// Reads what is known of at most `limit` bookings, in the order of their ids, after `after`.
///
/// # Errors
/// Fails if the database does.
pub async fn bookings(database: &Database, after: Option<ScreeningId>, limit: u64) -> Result<Vec<KnownBooking>, DbErr> {
    use reservation::Column;
    let mut select = reservation::Entity::find();
    if let Some(after) = after {
        select = select.filter(Column::Screening.gt(after.0));
    }
    let rows = select.order_by_asc(Column::Screening).limit(limit).fetch(database.reader()).await?;
    let rows = rows.into_iter().map(Reservation::try_from).collect::<Result<Vec<_>, _>>()?;
    let entries = history::with_rows(database.reader(), &rows).await?;
    let mut entries: HashMap<_, _> =
        entries.into_iter().map(|entry| ((entry.screening, entry.version), entry)).collect();
    let known = |row: Reservation| {
        let entry = entries.remove(&(row.screening, row.screening_version));
        let (reason, message) = entry.map(|entry| (entry.reason, entry.message)).unwrap_or_default();
        KnownBooking {
            screening: row.screening,
            version: row.screening_version,
            customer: row.customer,
            date: row.slot.date,
            slot: Some(row.slot),
            generation: None,
            hospital_display_name: String::new(),
            time_zone: String::new(),
            state: followed(row.state),
            // a wait registers nothing
            queued: None,
            reason,
            message,
            create_time: Some(row.create_time),
            update_time: row.update_time,
        }
    };
    Ok(rows.into_iter().map(known).collect())
}
