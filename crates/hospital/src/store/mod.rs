//! The tables, and the rows' way to and from the types of the rules. What is decided about them is not known here.

use domain::ids::{HospitalId, SlotId, parse_date};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{ActiveModelTrait, EntityTrait, IntoActiveModel, Iterable, PrimaryKeyToColumn};

pub(crate) mod capacity_request;
pub(crate) mod claim;
pub(crate) mod hospital;
pub(crate) mod read;
pub(crate) mod revocation;
pub(crate) mod slot;

/// Keys in one `IN` list at most, well inside every database's limit on bound values.
pub(crate) const KEYS: usize = 8_192;

/// Bound values of one statement at most (SQLite refuses 32,767).
const BINDINGS: usize = 32_766;

/// `{hospital}/{date}`: the key of a slot and what claims refer to it by.
pub(crate) fn slot_key(slot: &SlotId) -> String {
    format!("{}/{}", slot.hospital.segment(), slot.date)
}

/// Reads [`slot_key`] back.
pub(crate) fn slot_id(key: &str) -> Result<SlotId, DbErr> {
    let parsed = key.split_once('/').and_then(|(hospital, date)| {
        Some(SlotId { hospital: HospitalId::from_segment(hospital).ok()?, date: parse_date(date)? })
    });
    parsed.ok_or_else(|| corrupt("slot key", key))
}

/// The error of a row that nothing here can have written.
pub(crate) fn corrupt(what: &str, value: impl std::fmt::Display) -> DbErr {
    DbErr::Custom(format!("the database holds the {what} {value}, which no rule allows"))
}

/// Reads the segment of a hospital's name.
pub(crate) fn hospital_id(segment: &str) -> Result<HospitalId, DbErr> {
    HospitalId::from_segment(segment).map_err(|_| corrupt("hospital id", segment))
}

/// Replaces rows that are there, in as few statements as the limit on bound values allows.
pub(crate) async fn replace_all<A>(transaction: &impl ConnectionTrait, rows: Vec<A>) -> Result<(), DbErr>
where
    A: ActiveModelTrait + Send,
    <A::Entity as EntityTrait>::Model: IntoActiveModel<A>,
    <A::Entity as EntityTrait>::PrimaryKey: PrimaryKeyToColumn<Column = <A::Entity as EntityTrait>::Column>,
{
    type Columns<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::Column;
    type Keys<A> = <<A as ActiveModelTrait>::Entity as EntityTrait>::PrimaryKey;
    let most = BINDINGS / Columns::<A>::iter().count();
    let is_key = |column: &Columns<A>| Keys::<A>::from_column(*column).is_some();
    let mut rows = rows.into_iter().peekable();
    while rows.peek().is_some() {
        let chunk: Vec<A> = rows.by_ref().take(most).collect();
        let replace = OnConflict::columns(Columns::<A>::iter().filter(is_key))
            .update_columns(Columns::<A>::iter().filter(|column| !is_key(column)))
            .to_owned();
        A::Entity::insert_many(chunk).on_conflict(replace).exec_without_returning(transaction).await?;
    }
    Ok(())
}
