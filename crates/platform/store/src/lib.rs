//! The common part of every service's database: opening it, the coalescing writer, outbox, inbox, request records, dead
//! letters and keyset pages.
//!
//! It knows no service's tables and no rule. SQL is portable: the same code runs on SQLite and on PostgreSQL, except a
//! few statements about many rows that have a special form on PostgreSQL.
//!
//! An async function is compiled where it is awaited. So public async functions here are `boxed`: each is one future
//! that is compiled here; otherwise each crate above would compile the driver again.

pub mod backup;
mod connection;
pub mod database;
pub mod dead_letter;
mod failure;
mod file;
mod gap;
pub mod inbox;
mod incarnation;
pub mod lease;
mod location;
pub mod lookup;
pub mod migration;
mod nemesis;
pub mod outbox;
pub mod past;
pub mod query;
pub mod read;
mod recent;
pub mod request_record;
mod room;
pub mod rows;
mod schema;
mod sealed;
mod settings;
pub mod simulation;
pub mod statement;
pub mod stored;
mod thread;
pub mod time;
mod transaction;
mod turns;
pub mod writer;

pub use sea_orm::DbErr;

pub use connection::{Reader, Snapshot};
pub use database::{Database, Error};
pub use incarnation::Incarnation;
pub use location::{Location, LocationError};
pub use lookup::{Lookup, Lookups};
pub use nemesis::Stage;
#[cfg(feature = "testing")]
pub use nemesis::{Nemesis, Verdict};
pub use statement::{Connection, Fetch, Run};
pub use time::{micros, timestamp};
pub use transaction::Transaction;
pub use writer::{BatchHandler, Writer, WriterOptions};
