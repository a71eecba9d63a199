//! The tables that every service has, as migrations that come before its own.
//!
//! A service's migrator is [`common`] followed by its own list. The database stores the names, so they never change.

pub use sea_orm_migration::{MigrationTrait, MigratorTrait, SchemaManager, prelude, schema};

use sea_orm::DbBackend;
use sea_orm_migration::prelude::*;
use sea_orm_migration::schema::{
    big_integer, big_integer_null, binary, integer, integer_null, string, text, uuid, uuid_null,
};

use crate::{dead_letter, gap, inbox, lease, outbox, request_record};

/// The migrations of the tables of this crate.
#[must_use]
pub fn common() -> Vec<Box<dyn MigrationTrait>> {
    vec![Box::new(Common), Box::new(Broker), Box::new(Past), Box::new(Frames)]
}

/// Makes a table whose primary key is not a number, with its rows in the order of the key. By default SQLite stores the
/// rows by a number of its own and the key in a separate index, so that each row changes two trees instead of one.
///
/// It is for keys that come in order, and for small tables. Rows with random keys are cheaper by number: each of them
/// dirties a page, and there are far fewer pages of short keys than of whole rows.
///
/// Files that were made before stay as they are.
///
/// # Errors
/// The error that the database returns.
pub async fn create_keyed_table(manager: &SchemaManager<'_>, mut table: TableCreateStatement) -> Result<(), DbErr> {
    if manager.get_database_backend() == DbBackend::Sqlite {
        table.extra("WITHOUT ROWID");
    }
    manager.create_table(table).await
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
        create_keyed_table(manager, inbox_table()).await?;
        create_keyed_table(manager, cursor_table()).await?;
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

/// The additions for publishing through a broker.
struct Broker;

impl MigrationName for Broker {
    fn name(&self) -> &str {
        "common_0002_relay_lease_replay"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Broker {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let published = Table::alter()
            .table(outbox::Entity)
            .add_column(big_integer_null(outbox::Column::StreamSequence))
            .to_owned();
        manager.alter_table(published).await?;
        // A file is read in order by its own process and publishes nothing, so the index would only cost there.
        if manager.get_database_backend() == DbBackend::Postgres {
            let mut waiting = Index::create();
            waiting.name("outbox_unpublished").table(outbox::Entity).col(outbox::Column::Position);
            waiting.and_where(Expr::col(outbox::Column::StreamSequence).is_null());
            manager.create_index(waiting).await?;
        }
        let replay = Table::alter()
            .table(dead_letter::Entity)
            .add_column(big_integer_null(dead_letter::Column::ReplayTime))
            .to_owned();
        manager.alter_table(replay).await?;
        manager.create_table(lease_table()).await?;
        let nobody = Query::insert()
            .into_table(lease::Entity)
            .columns([
                lease::Column::Id,
                lease::Column::Epoch,
                lease::Column::ExpireTime,
                lease::Column::Stream,
                lease::Column::Sequence,
            ])
            .values_panic([lease::ONLY_ROW.into(), 0_i64.into(), 0_i64.into(), "".into(), 0_i64.into()])
            .to_owned();
        manager.execute(nobody).await
    }
}

/// The tables that show whether a log has lost its end.
struct Past;

impl MigrationName for Past {
    fn name(&self) -> &str {
        "common_0003_cursor_event_log_gap"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Past {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let named = Table::alter()
            .table(inbox::cursors::Entity)
            .add_column(uuid_null(inbox::cursors::Column::EventId))
            .to_owned();
        manager.alter_table(named).await?;
        manager.create_table(gap_table()).await
    }
}

/// How much of a frame is applied, where one of its events failed.
struct Frames;

impl MigrationName for Frames {
    fn name(&self) -> &str {
        "common_0004_inbox_cursor_applied"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Frames {
    // both columns or none, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let inbox =
            Table::alter().table(inbox::seen::Entity).add_column(integer_null(inbox::seen::Column::Applied)).to_owned();
        manager.alter_table(inbox).await?;
        let cursor = Table::alter()
            .table(inbox::cursors::Entity)
            .add_column(integer_null(inbox::cursors::Column::Applied))
            .to_owned();
        manager.alter_table(cursor).await
    }
}

fn gap_table() -> TableCreateStatement {
    use gap::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(big_integer(Column::LastPosition).primary_key())
        .col(big_integer(Column::AfterPosition))
        .col(big_integer(Column::CloseTime))
        .to_owned()
}

fn lease_table() -> TableCreateStatement {
    use lease::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(integer(Column::Id).primary_key())
        .col(uuid_null(Column::Holder))
        .col(big_integer(Column::Epoch))
        .col(big_integer(Column::ExpireTime))
        .col(string(Column::Stream))
        .col(big_integer(Column::Sequence))
        .col(uuid_null(Column::EventId))
        .to_owned()
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
