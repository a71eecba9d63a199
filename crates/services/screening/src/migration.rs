//! Screening's tables. A released migration never changes, except for how SQLite lays out the rows of new files. A
//! later migration changes what it created.

use domain::screening::State;
use sea_orm::{ColumnTrait, DbBackend};
use store::migration::prelude::*;
use store::migration::{MigrationTrait, MigratorTrait, SchemaManager, common, create_keyed_table};

use crate::tables::{limit, refusal, row, watch};

/// Creates the tables of this service's database.
#[derive(Debug)]
pub struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations = common();
        migrations.push(Box::new(Screenings));
        migrations.push(Box::new(OneIndexOfCustomers));
        migrations.push(Box::new(FencedGenerations));
        migrations.push(Box::new(Waitlist));
        migrations.push(Box::new(Limits));
        migrations
    }
}

struct Screenings;

impl MigrationName for Screenings {
    fn name(&self) -> &str {
        "screening_0001_screening_watch_refusal"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Screenings {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(screening_table()).await?;
        for index in screening_indexes() {
            manager.create_index(index).await?;
        }
        create_keyed_table(manager, watch_table()).await?;
        let mut due = Index::create();
        due.name("orphan_watch_by_time").table(watch::Entity).col(watch::Column::SeenTime);
        manager.create_index(due).await?;
        manager.create_table(refusal_table()).await
    }
}

/// Makes the index of the rule that a customer has at most one active booking per date also that of a customer's list,
/// so that a booking enters one index by customer and not two. Active bookings of a customer and a date have the same
/// key, ended ones their own.
struct OneIndexOfCustomers;

impl MigrationName for OneIndexOfCustomers {
    fn name(&self) -> &str {
        "screening_0002_one_index_of_customers"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for OneIndexOfCustomers {
    // one rule at any time, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let key = match manager.get_database_backend() {
            DbBackend::Postgres => {
                "CASE WHEN state IN (1, 3) THEN '00000000-0000-0000-0000-000000000000'::uuid ELSE id END"
            }
            _ => "CASE WHEN state IN (1, 3) THEN x'' ELSE id END",
        };
        let create = format!("CREATE UNIQUE INDEX screening_of_customer ON screening (customer, slot_date, ({key}))");
        manager.get_connection().execute_unprepared(&create).await?;
        for name in ["screening_active_by_customer_date", "screening_by_customer"] {
            manager.drop_index(Index::drop().name(name).table(row::Entity).to_owned()).await?;
        }
        Ok(())
    }
}

/// Keeps with each booking which claims its moves can use no more. Bookings of before have none.
struct FencedGenerations;

impl MigrationName for FencedGenerations {
    fn name(&self) -> &str {
        "screening_0003_fenced_generations"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for FencedGenerations {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut fenced = column(row::Column::FencedGeneration);
        fenced.integer().default(0);
        manager.alter_table(Table::alter().table(row::Entity).add_column(fenced).to_owned()).await
    }
}

/// Keeps with each booking whether and how it waits for a place. Both indexes hold the WAITLISTED rows alone, so a
/// booking that never waits enters none of them.
struct Waitlist;

impl MigrationName for Waitlist {
    fn name(&self) -> &str {
        "screening_0004_waitlist"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Waitlist {
    // all of it or nothing, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        use row::{Column, Entity};
        let (mut joins, mut position) = (column(Column::JoinsWaitlist), column(Column::WaitlistPosition));
        joins.boolean().default(false);
        position.integer().default(0);
        let mut close = ColumnDef::new(Column::PromotionCloseTime);
        close.big_integer().null();
        // SQLite adds one column at a time
        for column in [joins, position, close] {
            manager.alter_table(Table::alter().table(Entity).add_column(column).to_owned()).await?;
        }
        let mut one_a_slot = Index::create();
        one_a_slot.name("screening_waiting_by_customer_slot").table(Entity).unique();
        one_a_slot.col(Column::Customer).col(Column::Hospital).col(Column::SlotDate);
        let mut due = Index::create();
        due.name("screening_waiting_by_close").table(Entity).col(Column::PromotionCloseTime).col(Column::Id);
        for mut index in [one_a_slot, due] {
            index.and_where(Column::State.eq(State::Waitlisted.number()));
            manager.create_index(index).await?;
        }
        Ok(())
    }
}

/// Keeps with each booking how often it moved and may move, and makes the table that serialises bookings of customers
/// whom a hospital limits.
struct Limits;

impl MigrationName for Limits {
    fn name(&self) -> &str {
        "screening_0005_limits"
    }
}

#[async_trait::async_trait]
impl MigrationTrait for Limits {
    // all of it or nothing, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut moves = column(row::Column::RescheduleCount);
        moves.integer().default(0);
        let mut most = ColumnDef::new(row::Column::RescheduleLimit);
        most.integer().null();
        // SQLite adds one column at a time
        for column in [moves, most] {
            manager.alter_table(Table::alter().table(row::Entity).add_column(column).to_owned()).await?;
        }
        use limit::{Column, Entity};
        let mut table = Table::create();
        table.table(Entity).col(column(Column::Customer).string()).col(column(Column::Hospital).string());
        table.primary_key(Index::create().col(Column::Customer).col(Column::Hospital));
        create_keyed_table(manager, table).await
    }
}

fn column<C: IntoIden>(name: C) -> ColumnDef {
    let mut column = ColumnDef::new(name);
    column.not_null();
    column
}

fn screening_table() -> TableCreateStatement {
    use row::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(column(Column::Id).uuid().primary_key())
        .col(ColumnDef::new(Column::Customer).string().null())
        .col(column(Column::CustomerDisplayName).string())
        .col(column(Column::Hospital).string())
        .col(column(Column::SlotDate).string())
        .col(column(Column::HospitalDisplayName).string())
        .col(column(Column::TimeZone).string())
        .col(ColumnDef::new(Column::CancellationCloseTime).big_integer().null())
        .col(column(Column::State).integer())
        .col(column(Column::StateReason).string())
        .col(column(Column::StateMessage).text())
        .col(column(Column::GivenUp).string())
        .col(column(Column::ClaimGeneration).integer())
        .col(column(Column::Version).big_integer())
        .col(column(Column::CreateTime).big_integer())
        .col(column(Column::UpdateTime).big_integer())
        .to_owned()
}

/// As the first version made them: one index for the rule that a customer has at most one active booking per date, one
/// for the PENDING rows, and one for each order of a list over many customers. The rows of one customer are few enough
/// to be sorted.
fn screening_indexes() -> Vec<IndexCreateStatement> {
    use row::{Column, Entity};
    let index = |name: &str, columns: &[Column]| {
        let mut index = Index::create();
        index.name(name).table(Entity);
        for column in columns {
            index.col(*column);
        }
        index
    };
    let active = State::ALL.iter().filter(|state| state.is_active()).map(|state| state.number());
    let mut one_a_date = index("screening_active_by_customer_date", &[Column::Customer, Column::SlotDate]);
    one_a_date.unique().and_where(Column::State.is_in(active));
    let mut pending = index("screening_pending", &[Column::Id]);
    pending.and_where(Column::State.eq(State::Pending.number()));
    vec![
        one_a_date,
        pending,
        index("screening_by_customer", &[Column::Customer, Column::SlotDate, Column::Id]),
        index("screening_by_hospital_date", &[Column::Hospital, Column::SlotDate, Column::Id]),
        index("screening_by_hospital_time", &[Column::Hospital, Column::CreateTime, Column::Id]),
        index("screening_by_date", &[Column::SlotDate, Column::Id]),
        index("screening_by_time", &[Column::CreateTime, Column::Id]),
    ]
}

fn watch_table() -> TableCreateStatement {
    use watch::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(column(Column::Screening).uuid())
        .col(column(Column::Generation).integer())
        .col(column(Column::Hospital).string())
        .col(column(Column::SlotDate).string())
        .col(column(Column::SeenTime).big_integer())
        .col(column(Column::EventId).uuid())
        .col(column(Column::Traceparent).string())
        .primary_key(Index::create().col(Column::Screening).col(Column::Generation))
        .to_owned()
}

fn refusal_table() -> TableCreateStatement {
    use refusal::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(column(Column::Hospital).string())
        .col(column(Column::SlotDate).string())
        .col(column(Column::Version).big_integer())
        .primary_key(Index::create().col(Column::Hospital).col(Column::SlotDate))
        .to_owned()
}
