//! Finds the bookings that new ones meet, for several callers in one statement per table.

use async_trait::async_trait;
use domain::ids::{HospitalId, ScreeningId, SlotId};
use domain::request::RequestKey;
use domain::screening::{CustomerBookings, Screening};
use sea_orm::DbErr;
use store::request_record::{self, Record};
use store::{Connection, Lookup};

use super::{CustomerDate, active, by_ids, limit, waiting};

/// What a call has to know before it asks for a place.
#[derive(Debug)]
pub(crate) struct BookingQuery {
    /// The call, if its caller chose a request_id.
    pub(crate) key: Option<RequestKey>,
    /// The id that the booking is to get.
    pub(crate) id: ScreeningId,
    /// The customer and the date of the booking.
    pub(crate) customer_date: CustomerDate,
    /// The slot, if the booking is to wait for a place there where none is left.
    pub(crate) queue: Option<SlotId>,
    /// The hospital, if the customer's bookings there matter because it limits them.
    pub(crate) limited: Option<HospitalId>,
}

/// The bookings that a new one meets.
#[derive(Debug)]
pub(crate) struct ExistingBookings {
    /// The record of this call if it was answered before, and the booking that it made, as it is now.
    pub(crate) answered: Option<(Record, Option<Screening>)>,
    /// The row that has the wanted id already. It may be a fence.
    pub(crate) own: Option<Screening>,
    /// Another booking of the customer that is active on that date or waits in the same queue.
    pub(crate) other: Option<ScreeningId>,
    /// The bookings of the customer that count against the limit of the hospital; none if it was not asked for.
    pub(crate) held: CustomerBookings,
}

#[derive(Debug)]
pub(crate) struct BookingLookup;

#[async_trait]
impl Lookup for BookingLookup {
    type Query = BookingQuery;
    type Answer = ExistingBookings;

    async fn look_up(
        &self,
        connection: &dyn Connection,
        queries: &[&BookingQuery],
    ) -> Result<Vec<ExistingBookings>, DbErr> {
        let keys: Vec<&RequestKey> = queries.iter().filter_map(|query| query.key.as_ref()).collect();
        // records first: a record becomes visible together with its row, so every record that is read has its row
        let records = request_record::find(connection, &keys).await?;
        let made = |record: &Record| ScreeningId::parse(&record.resource).ok();
        let ids = queries.iter().map(|query| query.id).chain(records.values().filter_map(made));
        let rows = by_ids(connection, ids).await?;
        let active = active(connection, queries.iter().map(|query| &query.customer_date.0)).await?;
        let joining = queries.iter().filter(|query| query.queue.is_some());
        let waiting = waiting(connection, joining.map(|query| &query.customer_date.0)).await?;
        let limited = queries.iter().filter_map(|query| Some((&query.customer_date.0, query.limited.as_ref()?)));
        let held = limit::held(connection, limited.collect()).await?;
        let existing = queries.iter().map(|query| {
            let record = query.key.as_ref().and_then(|key| records.get(key)).cloned();
            let answered = record.map(|record| {
                let row = made(&record).and_then(|id| rows.get(&id).cloned());
                (record, row)
            });
            let in_queue = query.queue.clone().and_then(|slot| waiting.get(&(query.customer_date.0.clone(), slot)));
            let others = active.get(&query.customer_date).into_iter().chain(in_queue);
            let other = others.copied().find(|other| *other != query.id);
            let key = query.limited.clone().map(|hospital| (query.customer_date.0.clone(), hospital));
            let held = key.and_then(|key| held.get(&key).cloned()).unwrap_or_default();
            ExistingBookings { answered, own: rows.get(&query.id).cloned(), other, held }
        });
        Ok(existing.collect())
    }
}
