//! The service's tables. Names of migrations are recorded in the database and never change.

use store::migration::prelude::*;
use store::migration::schema::{big_integer, big_integer_null, integer, string, string_null, text, uuid, uuid_null};
use store::migration::{MigrationTrait, MigratorTrait, SchemaManager, common, create_keyed_table};

use crate::tables::{history, reservation, unregistered};

/// Creates the tables that every service has, and those of this service.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations = common();
        migrations.push(Box::new(Tables));
        migrations.push(Box::new(Requests));
        migrations.push(Box::new(OneIndexOfCustomers));
        migrations.push(Box::new(Registrations));
        migrations
    }
}

struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &str {
        "reservation_0001_ledger"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(reservation_table()).await?;
        manager.create_table(unregistered_table()).await?;
        create_keyed_table(manager, history_table()).await?;
        for index in reservation_indexes() {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

/// Stores the request_id of each change, which Screening needs if it has to recover.
struct Requests;

impl MigrationName for Requests {
    fn name(&self) -> &str {
        "reservation_0002_history_request_id"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Requests {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let kept = Table::alter().table(history::Entity).add_column(uuid_null(history::Column::RequestId)).to_owned();
        manager.alter_table(kept).await
    }
}

/// A customer's reservations are few enough to be sorted, so one index by customer serves both orders. It is the one by
/// date, because a filter may name a date too: without statistics, SQLite would rather read everybody's reservations of
/// that date in order than sort the customer's.
struct OneIndexOfCustomers;

impl MigrationName for OneIndexOfCustomers {
    fn name(&self) -> &str {
        "reservation_0003_one_index_of_customers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for OneIndexOfCustomers {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut by_time = Index::drop();
        by_time.name("reservation_of_customer_by_create_time").table(reservation::Entity);
        manager.drop_index(by_time).await
    }
}

/// Keeps the entry of the history that begins a reservation in the reservation's row. What is there keeps its rows in
/// the history.
struct Registrations;

impl MigrationName for Registrations {
    fn name(&self) -> &str {
        "reservation_0004_registrations"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Registrations {
    // every column or none, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use reservation::{Column, Entity};
        let columns = [
            big_integer_null(Column::RegisteredVersion),
            string_null(Column::RegisteredActor),
            uuid_null(Column::RegisteredEventId),
            big_integer_null(Column::RegisteredTime),
            uuid_null(Column::RegisteredRequestId),
        ];
        for column in columns {
            manager.alter_table(Table::alter().table(Entity).add_column(column).to_owned()).await?;
        }
        Ok(())
    }
}

fn reservation_table() -> TableCreateStatement {
    use reservation::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Screening).primary_key())
        .col(string(Column::Customer))
        .col(string(Column::Hospital))
        .col(string(Column::Slot))
        .col(string(Column::Date))
        .col(integer(Column::State))
        .col(big_integer(Column::ScreeningVersion))
        .col(big_integer(Column::Version))
        .col(big_integer(Column::CreateTime))
        .col(big_integer(Column::UpdateTime))
        .to_owned()
}

/// As the first version made them: indexes for both orders of the list, over all reservations and within one customer,
/// one hospital and one slot.
fn reservation_indexes() -> Vec<IndexCreateStatement> {
    use reservation::{Column, Entity};
    let index = |name: &str, columns: &[Column]| {
        let mut index = Index::create();
        index.name(name).table(Entity);
        for column in columns {
            index.col(*column);
        }
        index
    };
    vec![
        index("reservation_by_create_time", &[Column::CreateTime, Column::Screening]),
        index("reservation_by_date", &[Column::Date, Column::Screening]),
        index("reservation_of_customer_by_create_time", &[Column::Customer, Column::CreateTime, Column::Screening]),
        index("reservation_of_customer_by_date", &[Column::Customer, Column::Date, Column::Screening]),
        index("reservation_of_hospital_by_create_time", &[Column::Hospital, Column::CreateTime, Column::Screening]),
        index("reservation_of_hospital_by_date", &[Column::Hospital, Column::Date, Column::Screening]),
        index("reservation_of_slot_by_create_time", &[Column::Slot, Column::CreateTime, Column::Screening]),
    ]
}

fn unregistered_table() -> TableCreateStatement {
    use unregistered::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Screening).primary_key())
        .col(big_integer(Column::Version))
        .to_owned()
}

fn history_table() -> TableCreateStatement {
    use history::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Screening))
        .col(big_integer(Column::Version))
        .col(integer(Column::State))
        .col(string(Column::Reason))
        .col(text(Column::Message))
        .col(string(Column::Actor))
        .col(uuid(Column::EventId))
        .col(big_integer(Column::OccurTime))
        .primary_key(Index::create().col(Column::Screening).col(Column::Version))
        .to_owned()
}
