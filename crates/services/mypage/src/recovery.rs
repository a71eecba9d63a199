//! Tells the recovery of Screening what the pages show of its bookings.

use domain::ids::ScreeningId;
use domain::recovery::KnownBooking;
use domain::screening::Queued;
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};
use store::{Database, DbErr};

use crate::tables::items::{Version, item};
use store::Fetch as _;

/// The names of this service's durable consumers.
pub const CONSUMERS: &[&str] = &[crate::reactions::SCREENINGS];

/// Reads at most `limit` bookings as they are shown, in the order of their ids, after `after`.
///
/// # Errors
/// Fails if the database does.
pub async fn bookings(database: &Database, after: Option<ScreeningId>, limit: u64) -> Result<Vec<KnownBooking>, DbErr> {
    let mut select = item::Entity::find().filter(item::Column::ReplaceTime.is_null());
    if let Some(after) = after {
        select = select.filter(item::Column::Screening.gt(after.0));
    }
    let rows = select.order_by_asc(item::Column::Screening).limit(limit).fetch(database.reader()).await?;
    let rows = rows.into_iter().map(Version::try_from).collect::<Result<Vec<_>, _>>()?;
    let known = |Version { item, waited_in_vain, is_withdrawn: _ }| KnownBooking {
        screening: item.screening,
        version: item.version,
        customer: item.customer,
        date: item.date,
        slot: item.slot,
        generation: None,
        hospital_display_name: item.hospital_display_name,
        time_zone: item.time_zone,
        state: item.state,
        // Until when a booking waits, the claim tells. Of one that waited in vain the events say no more either.
        queued: waited_in_vain.then_some(Queued { position: 0, closes_at: item.update_time }),
        reason: item.reason,
        message: item.message,
        create_time: None,
        update_time: item.update_time,
    };
    Ok(rows.into_iter().map(known).collect())
}
