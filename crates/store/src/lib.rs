//! What every service's database needs, below its own tables: opening it, the coalescing writer, outbox, inbox, request
//! records, dead letters and keyset pages.
//!
//! It knows no service's tables and no rule. SQL is portable: the same code will run on PostgreSQL.

pub mod database;
pub mod dead_letter;
pub mod inbox;
pub mod migration;
pub mod outbox;
pub mod query;
pub mod read;
pub mod request_record;
pub mod time;
pub mod writer;

pub use database::{Database, Error, Location, Nemesis, Verdict};
pub use time::{micros, timestamp};
pub use writer::{Unit, Writer, WriterOptions};
