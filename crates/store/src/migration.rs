//! The tables every service has, as migrations that come before its own.
//!
//! A slice's migrator is [`common`] followed by its own list. Names are recorded in the database and never change.

pub use sea_orm_migration::{MigrationTrait, MigratorTrait, SchemaManager, prelude, schema};

use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{big_integer, binary, integer, string, text, uuid};

use crate::{dead_letter, inbox, outbox, request_record};

/// The migrations of the tables of this crate.
#[must_use]
pub fn common() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(Common)]
}

struct Common;

impl MigrationName for Common {
    fn name(&self) -> &str {
        "common_0001_outbox_inbox_request"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Common {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(outbox_table()).await?;
        manager.create_table(inbox_table()).await?;
        manager.create_table(cursor_table()).await?;
        manager.create_table(ignored_table()).await?;
        manager.create_table(dead_letter_table()).await?;
        manager.create_table(request_table()).await?;
        manager
            .create_index(
                Index::create()
                    .name("request_by_time")
                    .table(request_record::Entity)
                    .col(request_record::Column::CreateTime)
                    .to_owned(),
            )
            .await
    }
}

fn outbox_table() -> TableCreateStatement {
    use outbox::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(big_integer(Column::Position).primary_key().auto_increment())
        .col(uuid(Column::EventId))
        .col(string(Column::Subject))
        .col(binary(Column::Payload))
        .col(big_integer(Column::OccurTime))
        .to_owned()
}

fn inbox_table() -> TableCreateStatement {
    use inbox::seen::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(string(Column::Consumer))
        .col(uuid(Column::EventId))
        .primary_key(Index::create().col(Column::Consumer).col(Column::EventId))
        .to_owned()
}

fn cursor_table() -> TableCreateStatement {
    use inbox::cursors::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(string(Column::Consumer))
        .col(string(Column::Source))
        .col(big_integer(Column::Position))
        .primary_key(Index::create().col(Column::Consumer).col(Column::Source))
        .to_owned()
}

fn ignored_table() -> TableCreateStatement {
    use inbox::ignored::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::EventId).primary_key())
        .col(string(Column::Aggregate))
        .col(text(Column::Reason))
        .col(big_integer(Column::IgnoreTime))
        .to_owned()
}

fn dead_letter_table() -> TableCreateStatement {
    use dead_letter::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(big_integer(Column::Id).primary_key().auto_increment())
        .col(string(Column::Consumer))
        .col(string(Column::EventId))
        .col(string(Column::Subject))
        .col(binary(Column::Payload))
        .col(text(Column::Error))
        .col(integer(Column::Attempts))
        .col(big_integer(Column::BuryTime))
        .to_owned()
}

fn request_table() -> TableCreateStatement {
    use request_record::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Id))
        .col(string(Column::Caller))
        .col(string(Column::Method))
        .col(binary(Column::Fingerprint))
        .col(string(Column::Resource))
        .col(big_integer(Column::CreateTime))
        .primary_key(Index::create().col(Column::Id).col(Column::Caller).col(Column::Method))
        .to_owned()
}
