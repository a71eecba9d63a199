//! The service's tables. Names of migrations are recorded in the database and never change.

use store::migration::prelude::*;
use store::migration::schema::{big_integer, boolean, double, integer, string, uuid};
use store::migration::{MigrationTrait, MigratorTrait, SchemaManager, common, create_keyed_table};

use crate::tables::hospitals::hospital;
use crate::tables::sets::{booking, refusal};
use crate::tables::signals::signal;

/// Creates the tables that every service has, and those of this service.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations = common();
        migrations.push(Box::new(Tables));
        migrations.push(Box::new(Waitlists));
        migrations
    }
}

struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &str {
        "marketing_0001_demand"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [hospital_table(), signal_table(), refusal_table()] {
            create_keyed_table(manager, table).await?;
        }
        manager.create_table(booking_table()).await?;
        for index in signal_indexes().into_iter().chain(set_indexes()) {
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

/// Keeps how many bookings wait for a place. Where slots of before have queues, it comes with their next event.
struct Waitlists;

impl MigrationName for Waitlists {
    fn name(&self) -> &str {
        "marketing_0002_waitlists"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Waitlists {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let waiting = integer(signal::Column::Waiting).default(0).to_owned();
        manager.alter_table(Table::alter().table(signal::Entity).add_column(waiting).to_owned()).await
    }
}

fn hospital_table() -> TableCreateStatement {
    use hospital::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(string(Column::Hospital).primary_key())
        .col(string(Column::TimeZone))
        .col(boolean(Column::Gone))
        .to_owned()
}

fn signal_table() -> TableCreateStatement {
    use signal::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(string(Column::Slot).primary_key())
        .col(string(Column::Hospital))
        .col(string(Column::Date))
        .col(big_integer(Column::SlotVersion))
        .col(integer(Column::Capacity))
        .col(integer(Column::Booked))
        .col(double(Column::FillRatio))
        .col(big_integer(Column::EndTime))
        .col(big_integer(Column::UpdateTime))
        .to_owned()
}

fn booking_table() -> TableCreateStatement {
    use booking::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Screening).primary_key())
        .col(string(Column::Slot))
        .col(big_integer(Column::Time))
        .to_owned()
}

fn refusal_table() -> TableCreateStatement {
    use refusal::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::EventId).primary_key())
        .col(string(Column::Slot))
        .col(big_integer(Column::Number))
        .col(big_integer(Column::Time))
        .to_owned()
}

fn index<T: Iden + 'static, C: Iden + Copy + 'static>(name: &str, table: T, columns: &[C]) -> IndexCreateStatement {
    let mut index = Index::create();
    index.name(name).table(table);
    for column in columns {
        index.col(*column);
    }
    index
}

/// Indexes for both orders of the list, over all hospitals and within one hospital.
fn signal_indexes() -> Vec<IndexCreateStatement> {
    use signal::{Column, Entity};
    vec![
        index("signal_by_date", Entity, &[Column::Date, Column::Slot]),
        index("signal_by_fill_ratio", Entity, &[Column::FillRatio, Column::Slot]),
        index("signal_of_hospital_by_date", Entity, &[Column::Hospital, Column::Date, Column::Slot]),
        index("signal_of_hospital_by_fill_ratio", Entity, &[Column::Hospital, Column::FillRatio, Column::Slot]),
    ]
}

/// Indexes for counting per slot, and for removing old rows.
fn set_indexes() -> Vec<IndexCreateStatement> {
    vec![
        index("booking_of_slot", booking::Entity, &[booking::Column::Slot, booking::Column::Time]),
        index("booking_by_time", booking::Entity, &[booking::Column::Time]),
        index("refusal_of_slot", refusal::Entity, &[refusal::Column::Slot, refusal::Column::Time]),
        index("refusal_by_time", refusal::Entity, &[refusal::Column::Time]),
    ]
}
