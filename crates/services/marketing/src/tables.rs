//! The service's tables. Instants are stored as microseconds since 1970, resources by their names in the contract.

pub(crate) mod hospitals;
pub(crate) mod sets;
pub(crate) mod signals;

use sea_orm::entity::prelude::{ColumnTrait, DbErr, EntityTrait, QueryFilter};
use sea_orm::{QueryOrder, QuerySelect, Value};
use store::statement::Cell;
use store::{Connection, Fetch as _, Run as _};

/// The error of a row that cannot be read: a defect, or a row of another version.
pub(crate) fn corrupt(what: &str, value: impl std::fmt::Debug) -> DbErr {
    DbErr::Custom(format!("the stored {what} {value:?} cannot be read"))
}

/// How many rows one transaction removes. Rows with the same time or date as the last one are removed too.
const ROWS_PER_PRUNE: u64 = 1_000;

/// Removes a chunk of the oldest rows whose `column` is before `limit`. Returns whether there may be more.
async fn prune<E, T>(transaction: &dyn Connection, column: E::Column, limit: T) -> Result<bool, DbErr>
where
    E: EntityTrait,
    T: Into<Value> + Cell + Clone + Send,
{
    let last: Option<T> = E::find()
        .select_only()
        .column(column)
        .filter(column.lt(limit.clone()))
        .order_by_asc(column)
        .offset(ROWS_PER_PRUNE - 1)
        .limit(1)
        .fetch_value(transaction)
        .await?;
    let more = last.is_some();
    let removed = last.map_or_else(|| column.lt(limit), |last| column.lte(last));
    E::delete_many().filter(removed).run(transaction).await?;
    Ok(more)
}
