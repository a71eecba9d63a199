//! The service's tables. Names of migrations are recorded in the database and never change.

use runtime::entropy::uuid_v4;
use sea_orm::ActiveValue::Set;
use sea_orm::{ColumnTrait, DbBackend, EntityTrait};
use store::migration::prelude::*;
use store::migration::schema::{big_integer, big_integer_null, boolean, integer, string, string_null, text, uuid};
use store::migration::{MigrationTrait, MigratorTrait, SchemaManager, common, create_keyed_table};

use crate::tables::{items, pages};

/// Creates the tables that every service has, and those of this service.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations = common();
        migrations.push(Box::new(Tables));
        migrations.push(Box::new(Slots));
        migrations.push(Box::new(Versions));
        migrations.push(Box::new(Waitlists));
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
        let life = pages::life::ActiveModel { id: Set(pages::LIFE), epoch: Set(uuid_v4()), ..Default::default() };
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
        for table in ["item", "change"] {
            let kept = Table::alter().table(table).add_column(string_null("slot")).to_owned();
            manager.alter_table(kept).await?;
        }
        Ok(())
    }
}

/// Makes a change and what a page shows the same row. Changes of before are not taken over: the positions of a page
/// begin anew with its bookings, and the view gets another epoch, so that streams of before start again.
struct Versions;

impl MigrationName for Versions {
    fn name(&self) -> &str {
        "mypage_0003_item_versions"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Versions {
    // all or nothing, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(version_table()).await?;
        let kept = "hospital_display_name, slot, date, time_zone, state, reason, message, update_time";
        let copy = format!(
            "INSERT INTO item_version (screening, version, customer, position, time, page_update_time, {kept}) \
             SELECT screening, version, customer, row_number() OVER page, update_time, update_time, {kept} FROM item \
             WINDOW page AS (PARTITION BY customer ORDER BY update_time, screening) ORDER BY update_time, screening"
        );
        manager.get_connection().execute_unprepared(&copy).await?;
        for index in version_indexes(manager.get_database_backend()) {
            manager.create_index(index).await?;
        }
        for table in ["item", "page", "change"] {
            manager.drop_table(Table::drop().table(table).to_owned()).await?;
        }
        let horizon = big_integer(pages::life::Column::Horizon).default(0).to_owned();
        manager.alter_table(Table::alter().table(pages::life::Entity).add_column(horizon).to_owned()).await?;
        let epoch = Query::update()
            .table(pages::life::Entity)
            .value(pages::life::Column::Epoch, uuid_v4())
            .and_where(pages::life::Column::Id.eq(pages::LIFE))
            .to_owned();
        manager.execute(epoch).await
    }
}

/// Keeps what is to be known of bookings that wait. No row of before is one.
struct Waitlists;

impl MigrationName for Waitlists {
    fn name(&self) -> &str {
        "mypage_0004_waitlists"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Waitlists {
    // every column or none, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use items::item::{Column, Entity};
        let columns = [
            integer(Column::WaitlistPosition).default(0).to_owned(),
            boolean(Column::Withdrawn).default(false).to_owned(),
            boolean(Column::WaitedInVain).default(false).to_owned(),
        ];
        for column in columns {
            manager.alter_table(Table::alter().table(Entity).add_column(column).to_owned()).await?;
        }
        Ok(())
    }
}

fn item_table() -> TableCreateStatement {
    Table::create()
        .table("item")
        .col(uuid("screening").primary_key())
        .col(string("customer"))
        .col(big_integer("version"))
        .col(string("hospital_display_name"))
        .col(string("date"))
        .col(string("time_zone"))
        .col(integer("state"))
        .col(string("reason"))
        .col(text("message"))
        .col(big_integer("update_time"))
        .to_owned()
}

/// For the order of the list, and for a customer's upcoming bookings.
fn item_index() -> IndexCreateStatement {
    Index::create()
        .name("item_of_customer_by_date")
        .table("item")
        .col("customer")
        .col("date")
        .col("screening")
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
    Table::create()
        .table("page")
        .col(string("customer").primary_key())
        .col(big_integer("position"))
        .col(big_integer("update_time"))
        .to_owned()
}

fn life_table() -> TableCreateStatement {
    use pages::life::{Column, Entity};
    Table::create().table(Entity).col(integer(Column::Id).primary_key()).col(uuid(Column::Epoch)).to_owned()
}

fn change_table() -> TableCreateStatement {
    Table::create()
        .table("change")
        .col(big_integer("id").primary_key().auto_increment())
        .col(string("customer"))
        .col(big_integer("position"))
        .col(big_integer("time"))
        .col(uuid("screening"))
        .col(big_integer("version"))
        .col(string("hospital_display_name"))
        .col(string("date"))
        .col(string("time_zone"))
        .col(integer("state"))
        .col(string("reason"))
        .col(text("message"))
        .col(big_integer("update_time"))
        .to_owned()
}

fn change_index() -> IndexCreateStatement {
    Index::create().name("change_of_customer").table("change").col("customer").col("position").unique().to_owned()
}

fn version_table() -> TableCreateStatement {
    use items::item::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(big_integer(Column::Id).primary_key().auto_increment())
        .col(uuid(Column::Screening))
        .col(big_integer(Column::Version))
        .col(string(Column::Customer))
        .col(big_integer(Column::Position))
        .col(big_integer(Column::Time))
        .col(big_integer(Column::PageUpdateTime))
        .col(big_integer_null(Column::ReplaceTime))
        .col(string(Column::HospitalDisplayName))
        .col(string_null(Column::Slot))
        .col(string(Column::Date))
        .col(string(Column::TimeZone))
        .col(integer(Column::State))
        .col(string(Column::Reason))
        .col(text(Column::Message))
        .col(big_integer(Column::UpdateTime))
        .to_owned()
}

/// One index each for the versions of a booking, for the order of a customer's list, for the changes of the customer's
/// page and its progress, which is read from the index alone, and for the removal of replaced rows.
///
/// On PostgreSQL several replicas may write. There, indexes refuse a second row with the same position, and a second
/// newest version of a booking.
fn version_indexes(backend: DbBackend) -> Vec<IndexCreateStatement> {
    use items::item::{Column, Entity};
    let index = |name: &str, columns: &[Column]| {
        let mut index = Index::create();
        index.name(name).table(Entity);
        for column in columns {
            index.col(*column);
        }
        index
    };
    let mut of_booking = index("item_version_of_booking", &[Column::Screening, Column::Version]);
    of_booking.unique();
    let mut by_date = index("item_version_by_date", &[Column::Customer, Column::Date, Column::Screening]);
    by_date.and_where(Column::ReplaceTime.is_null());
    let mut of_customer = index("item_version_of_customer", &[Column::Customer, Column::Position]);
    let mut replaced = index("item_version_replaced", &[Column::Id]);
    replaced.and_where(Column::ReplaceTime.is_not_null());
    if backend != DbBackend::Postgres {
        of_customer.col(Column::PageUpdateTime);
        return vec![of_booking, by_date, of_customer, replaced];
    }
    of_customer.unique();
    let mut newest = index("item_version_newest", &[Column::Screening]);
    newest.unique().and_where(Column::ReplaceTime.is_null());
    vec![of_booking, by_date, of_customer, replaced, newest]
}
