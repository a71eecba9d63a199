//! The view's tables. Instants are stored as microseconds since 1970, resources by their names and states by their
//! numbers in the contract.

pub(crate) mod changes;
pub(crate) mod items;
pub(crate) mod pages;

use domain::ids::SlotId;
use sea_orm::DbErr;

/// The error of a row that cannot be read: a defect, or a row of another version.
fn corrupt(what: &str, value: impl std::fmt::Debug) -> DbErr {
    DbErr::Custom(format!("the stored {what} {value:?} cannot be read"))
}

/// Reads the stored name of a slot.
fn slot(name: &str) -> Result<SlotId, DbErr> {
    SlotId::parse(name).map_err(|_| corrupt("slot", name))
}
