//! The service's tables. Names of migrations are recorded in the database and never change.

use runtime::entropy::uuid_v4;
use sea_orm::ActiveValue::Set;
use sea_orm::EntityTrait;
use store::migration::prelude::*;
use store::migration::schema::{big_integer, integer, string, string_null, text, uuid};
use store::migration::{MigrationTrait, MigratorTrait, SchemaManager, common, create_keyed_table};

use crate::tables::{changes, items, pages};

/// Creates the tables that every service has, and those of this service.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations = common();
        migrations.push(Box::new(Tables));
        migrations.push(Box::new(Slots));
        migrations
    }
}

struct Tables;

impl MigrationName for Tables {
    fn name(&self) -> &str {
        "mypage_0001_view"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Tables {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [item_table(), hidden_table(), page_table()] {
            create_keyed_table(manager, table).await?;
        }
        for table in [change_table(), life_table()] {
            manager.create_table(table).await?;
        }
        manager.create_index(item_index()).await?;
        manager.create_index(change_index()).await?;
        // a rebuilt view gets another epoch, so that it recognises resume tokens of the old one
        let life = pages::life::ActiveModel { id: Set(pages::LIFE), epoch: Set(uuid_v4()) };
        pages::life::Entity::insert(life).exec_without_returning(manager.get_connection()).await?;
        Ok(())
    }
}

/// Keeps the slot of each item. Rows of before have none.
struct Slots;

impl MigrationName for Slots {
    fn name(&self) -> &str {
        "mypage_0002_slot"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Slots {
    // both columns or none, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use changes::change;
        use items::item;
        let items = Table::alter().table(item::Entity).add_column(string_null(item::Column::Slot)).to_owned();
        manager.alter_table(items).await?;
        let changes = Table::alter().table(change::Entity).add_column(string_null(change::Column::Slot)).to_owned();
        manager.alter_table(changes).await
    }
}

fn item_table() -> TableCreateStatement {
    use items::item::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Screening).primary_key())
        .col(string(Column::Customer))
        .col(big_integer(Column::Version))
        .col(string(Column::HospitalDisplayName))
        .col(string(Column::Date))
        .col(string(Column::TimeZone))
        .col(integer(Column::State))
        .col(string(Column::Reason))
        .col(text(Column::Message))
        .col(big_integer(Column::UpdateTime))
        .to_owned()
}

/// For the order of the list, and for a customer's upcoming bookings.
fn item_index() -> IndexCreateStatement {
    use items::item::{Column, Entity};
    Index::create()
        .name("item_of_customer_by_date")
        .table(Entity)
        .col(Column::Customer)
        .col(Column::Date)
        .col(Column::Screening)
        .to_owned()
}

fn hidden_table() -> TableCreateStatement {
    use items::hidden::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Screening).primary_key())
        .col(big_integer(Column::Version))
        .to_owned()
}

fn page_table() -> TableCreateStatement {
    use pages::page::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(string(Column::Customer).primary_key())
        .col(big_integer(Column::Position))
        .col(big_integer(Column::UpdateTime))
        .to_owned()
}

fn life_table() -> TableCreateStatement {
    use pages::life::{Column, Entity};
    Table::create().table(Entity).col(integer(Column::Id).primary_key()).col(uuid(Column::Epoch)).to_owned()
}

fn change_table() -> TableCreateStatement {
    use changes::change::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(big_integer(Column::Id).primary_key().auto_increment())
        .col(string(Column::Customer))
        .col(big_integer(Column::Position))
        .col(big_integer(Column::Time))
        .col(uuid(Column::Screening))
        .col(big_integer(Column::Version))
        .col(string(Column::HospitalDisplayName))
        .col(string(Column::Date))
        .col(string(Column::TimeZone))
        .col(integer(Column::State))
        .col(string(Column::Reason))
        .col(text(Column::Message))
        .col(big_integer(Column::UpdateTime))
        .to_owned()
}

fn change_index() -> IndexCreateStatement {
    use changes::change::{Column, Entity};
    Index::create()
        .name("change_of_customer")
        .table(Entity)
        .col(Column::Customer)
        .col(Column::Position)
        .unique()
        .to_owned()
}
