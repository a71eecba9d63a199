//! The service's tables. Names of migrations are recorded in the database and never change.

use store::migration::prelude::*;
use store::migration::schema::{big_integer, integer, string, text, uuid, uuid_null};
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
        create_keyed_table(manager, reservation_table()).await?;
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

/// Indexes for both orders of the list, over all reservations and within one customer, one hospital and one slot, so
/// that each page is a range of one index.
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
