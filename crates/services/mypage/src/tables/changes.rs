//! The changes of pages, for streams that follow or resume. A change is a row of [`super::items`].
//!
//! Positions count the changes of one customer without gaps, so a reader notices when its next change has been removed.

use domain::ids::CustomerId;
use sea_orm::entity::prelude::{ColumnTrait, DbErr, EntityTrait, QueryFilter, Select};
use sea_orm::sea_query::{Expr, ExprTrait, SimpleExpr};
use sea_orm::{QueryOrder, QuerySelect, QueryTrait};
use store::{Connection, Fetch as _, Run as _};

use super::items::Change;
use super::items::item::{Column, Entity};
use super::pages::{LIFE, life};

/// The next changes of a customer's page after a position, at most `limit`. Those that are forgotten are missing, which
/// the same statement decides: no later one can be missing behind the first.
pub(crate) async fn read_after(
    connection: &dyn Connection,
    customer: &CustomerId,
    position: i64,
    limit: u64,
) -> Result<Vec<Change>, DbErr> {
    let rows = Entity::find()
        .filter(Column::Id.into_expr().gt(horizon().into_query()))
        .filter(Column::Customer.eq(customer.to_string()))
        .filter(Column::Position.gt(position))
        .order_by_asc(Column::Position)
        .limit(limit)
        .fetch(connection)
        .await?;
    rows.into_iter().map(Change::try_from).collect()
}

/// The most changes that one transaction forgets or removes.
const CHANGES_PER_PRUNE: u64 = 1_000;

/// The id up to which changes are forgotten: a stream cannot resume before any of them, whether or not it has a row.
fn horizon() -> Select<life::Entity> {
    life::Entity::find().select_only().column(life::Column::Horizon).filter(life::Column::Id.eq(LIFE))
}

/// Forgets the oldest changes that were applied before `older_than` or are not among the newest `keep`, and removes the
/// rows of those that newer ones have replaced; some of them at once. Returns whether there may be more.
pub(crate) async fn prune(transaction: &dyn Connection, older_than: i64, keep: u64) -> Result<bool, DbErr> {
    let newest = Entity::find().select_only().column(Column::Id).order_by_desc(Column::Id);
    let newest: Option<i64> = newest.fetch_value(transaction).await?;
    let surplus = newest.unwrap_or(0).saturating_sub(i64::try_from(keep).unwrap_or(i64::MAX));
    let before: i64 = horizon().fetch_value(transaction).await?.unwrap_or(0);
    let oldest: Vec<(i64, i64)> = Entity::find()
        .select_only()
        .columns([Column::Id, Column::Time])
        .filter(Column::Id.gt(before))
        .order_by_asc(Column::Id)
        .limit(CHANGES_PER_PRUNE)
        .fetch_values(transaction)
        .await?;
    let expired: Vec<i64> =
        oldest.iter().take_while(|(id, time)| *id <= surplus || *time < older_than).map(|(id, _)| *id).collect();
    let horizon = expired.last().copied().unwrap_or(before);
    if horizon > before {
        life::Entity::update_many()
            .col_expr(life::Column::Horizon, Expr::val(horizon))
            .filter(life::Column::Id.eq(LIFE))
            // another replica may have forgotten more in the meantime
            .filter(life::Column::Horizon.lt(horizon))
            .run(transaction)
            .await?;
    }
    let replaced = Entity::find().select_only().column(Column::Id).filter(is_removable(horizon));
    let removed: Vec<i64> =
        replaced.order_by_asc(Column::Id).limit(CHANGES_PER_PRUNE).fetch_values(transaction).await?;
    if let Some(last) = removed.last() {
        Entity::delete_many().filter(is_removable(*last)).run(transaction).await?;
    }
    Ok(expired.len().max(removed.len()) as u64 == CHANGES_PER_PRUNE)
}

fn is_removable(until: i64) -> SimpleExpr {
    Column::ReplaceTime.is_not_null().and(Column::Id.lte(until))
}
