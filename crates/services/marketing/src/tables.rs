//! The demand's tables. Instants are microseconds since 1970, names are those of the contract.

pub(crate) mod hospitals;
pub(crate) mod sets;
pub(crate) mod signals;

use sea_orm::entity::prelude::{ColumnTrait, ConnectionTrait, DbErr, EntityTrait, QueryFilter};
use sea_orm::{QueryOrder, QuerySelect, TryGetable, Value};

/// What is stored and cannot be read: a defect, or another version's row.
pub(crate) fn corrupt(what: &str, value: impl std::fmt::Debug) -> DbErr {
    DbErr::Custom(format!("the stored {what} {value:?} cannot be read"))
}

/// Rows one transaction removes, but for those of the very same time as the last one.
const ROWS_PER_PRUNE: u64 = 1_000;

/// Removes the oldest rows whose time or date in `column` is before `limit`, a chunk of them; whether there may be more.
async fn prune<E, T>(transaction: &impl ConnectionTrait, column: E::Column, limit: T) -> Result<bool, DbErr>
where
    E: EntityTrait,
    T: Into<Value> + TryGetable + Clone + Send,
{
    let last: Option<T> = E::find()
        .select_only()
        .column(column)
        .filter(column.lt(limit.clone()))
        .order_by_asc(column)
        .offset(ROWS_PER_PRUNE - 1)
        .limit(1)
        .into_tuple()
        .one(transaction)
        .await?;
    let more = last.is_some();
    let removed = last.map_or_else(|| column.lt(limit), |last| column.lte(last));
    E::delete_many().filter(removed).exec(transaction).await?;
    Ok(more)
}
