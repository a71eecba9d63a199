//! The view's tables. Instants are microseconds since 1970, names are those of the contract, states its numbers.

pub(crate) mod changes;
pub(crate) mod items;
pub(crate) mod pages;

use sea_orm::DbErr;

/// What is stored and cannot be read: a defect, or another version's row.
fn corrupt(what: &str, value: impl std::fmt::Debug) -> DbErr {
    DbErr::Custom(format!("the stored {what} {value:?} cannot be read"))
}
