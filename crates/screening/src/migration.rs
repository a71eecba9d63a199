//! Screening's tables. A migration that was released never changes; the next one changes what it made.

use ::store::migration::prelude::*;
use ::store::migration::{MigrationTrait, MigratorTrait, SchemaManager, common};
use sea_orm_migration::schema::{big_integer, big_integer_null, date, integer, string, string_null, text, uuid};

use crate::store::{refusal, row, watch};

/// Every table, in order.
pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations = common();
        migrations.push(Box::new(Screenings));
        migrations
    }
}
