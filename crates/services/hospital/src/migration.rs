//! The service's tables, created after the tables that every service has.
//!
//! Names of migrations are recorded in the database and never change. A constraint repeats the one rule that a single
//! row can show: a slot's count of bookings.

use async_trait::async_trait;
use contract::capacity::v1::capacity_claim::State;
use domain::window::BookingPolicy;
use sea_orm::DbErr;
use sea_orm::sea_query::{Expr, ExprTrait, Index, IntoIden, Table, TableCreateStatement};
use store::migration::prelude::{ConditionalStatement as _, MigrationName};
use store::migration::schema::{big_integer, big_integer_null, integer, integer_null, string, text, uuid, uuid_null};
use store::migration::{MigrationTrait, MigratorTrait, SchemaManager, create_keyed_table};

use crate::tables::{capacity_request, claim, hospital, revocation, slot};

/// Creates the tables of this service's database.
#[derive(Debug)]
pub struct Migrator;

#[async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut migrations = store::migration::common();
        migrations.push(Box::new(Capacity));
        migrations.push(Box::new(Queues));
        migrations.push(Box::new(Limits));
        migrations
    }
}

struct Capacity;

impl MigrationName for Capacity {
    fn name(&self) -> &str {
        "hospital_0001_hospitals_slots_claims"
    }
}

#[async_trait]
impl MigrationTrait for Capacity {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.create_table(hospitals()).await?;
        create_keyed_table(manager, slots()).await?;
        manager.create_table(claims()).await?;
        manager.create_table(capacity_requests()).await?;
        manager.create_table(revocations()).await?;
        let mut by_hospital = Index::create();
        by_hospital.name("slot_by_hospital").table(slot::Entity);
        by_hospital.col(slot::Column::Hospital).col(slot::Column::Date).unique();
        manager.create_index(by_hospital).await?;
        let mut by_date = Index::create();
        by_date.name("slot_by_date").table(slot::Entity);
        by_date.col(slot::Column::Date).col(slot::Column::Hospital);
        manager.create_index(by_date).await?;
        let mut by_slot = Index::create();
        by_slot.name("claim_by_slot").table(claim::Entity);
        by_slot.col(claim::Column::Slot).col(claim::Column::Screening).col(claim::Column::Generation);
        manager.create_index(by_slot).await?;
        let mut by_hospital = Index::create();
        by_hospital.name("capacity_request_by_hospital").table(capacity_request::Entity);
        by_hospital.col(capacity_request::Column::Hospital).col(capacity_request::Column::Uid);
        manager.create_index(by_hospital).await
    }
}

/// Queues: claims that wait, how many of them a slot has, and what a policy says of them. A replica of the version
/// before writes rows without these columns.
struct Queues;

impl MigrationName for Queues {
    fn name(&self) -> &str {
        "hospital_0002_queues"
    }
}

#[async_trait]
impl MigrationTrait for Queues {
    // all of it or nothing, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let policy = BookingPolicy::default();
        let notice = hospital::nanos(policy.promotion_min_notice);
        // one statement a column, because SQLite alters no more than one at once
        for (table, column) in [
            (hospital::Entity.into_iden(), integer(hospital::Column::WaitlistLimit).default(policy.waitlist_limit)),
            (hospital::Entity.into_iden(), big_integer(hospital::Column::PromotionMinNotice).default(notice)),
            (slot::Entity.into_iden(), integer(slot::Column::WaitlistedCount).default(0)),
            (claim::Entity.into_iden(), &mut big_integer_null(claim::Column::WaitlistTicket)),
            (claim::Entity.into_iden(), &mut big_integer_null(claim::Column::PromotionCloseTime)),
        ] {
            manager.alter_table(Table::alter().table(table).add_column(column).to_owned()).await?;
        }
        let mut queue = Index::create();
        queue.name("claim_queue").table(claim::Entity).col(claim::Column::Slot).col(claim::Column::WaitlistTicket);
        queue.unique().and_where(Expr::col(claim::Column::State).eq(State::Waiting as i32));
        manager.create_index(queue).await
    }
}

/// What a policy says of limits. A replica of the version before writes rows without these columns.
struct Limits;

impl MigrationName for Limits {
    fn name(&self) -> &str {
        "hospital_0003_limits"
    }
}

#[async_trait]
impl MigrationTrait for Limits {
    // all of it or nothing, also on SQLite
    fn use_transaction(&self) -> Option<bool> {
        Some(true)
    }

    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let mut moves = integer(hospital::Column::RescheduleLimit);
        moves.default(BookingPolicy::default().reschedule_limit);
        for column in [moves, integer_null(hospital::Column::CustomerLimit)] {
            manager.alter_table(Table::alter().table(hospital::Entity).add_column(column).to_owned()).await?;
        }
        Ok(())
    }
}

fn hospitals() -> TableCreateStatement {
    use hospital::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(string(Column::Id).primary_key())
        .col(uuid(Column::Uid))
        .col(text(Column::DisplayName))
        .col(string(Column::TimeZone))
        .col(big_integer(Column::MinNotice))
        .col(big_integer(Column::MaxAdvance))
        .col(big_integer(Column::CancellationCutoff))
        .col(integer(Column::State))
        .col(big_integer_null(Column::DeleteTime))
        .col(big_integer(Column::ClaimsToRevoke))
        .col(big_integer(Column::Version))
        .col(big_integer(Column::CreateTime))
        .col(big_integer(Column::UpdateTime))
        .to_owned()
}

fn slots() -> TableCreateStatement {
    use slot::{Column, Entity};
    let booked = || Expr::col(Column::BookedCount);
    Table::create()
        .table(Entity)
        .col(string(Column::Id).primary_key())
        .col(string(Column::Hospital))
        .col(string(Column::Date))
        .col(integer(Column::Capacity))
        .col(integer(Column::BookedCount))
        .col(integer(Column::State))
        .col(big_integer(Column::Version))
        .col(big_integer(Column::AdminVersion))
        .col(big_integer(Column::CreateTime))
        .col(big_integer(Column::UpdateTime))
        .check(booked().gte(0).and(booked().lte(Expr::col(Column::Capacity))))
        .to_owned()
}

fn claims() -> TableCreateStatement {
    use claim::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Screening))
        .col(integer(Column::Generation))
        .col(string(Column::Slot))
        .col(integer(Column::State))
        .col(integer(Column::RevokeReason))
        .col(big_integer(Column::SlotVersion))
        .col(big_integer(Column::Version))
        .col(big_integer(Column::UpdateTime))
        .primary_key(Index::create().col(Column::Screening).col(Column::Generation))
        .to_owned()
}

fn capacity_requests() -> TableCreateStatement {
    use capacity_request::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(uuid(Column::Uid).primary_key())
        .col(string(Column::Hospital))
        .col(string(Column::Slot))
        .col(integer(Column::AdditionalCapacity))
        .col(text(Column::Justification))
        .col(integer(Column::State))
        .col(text(Column::DecisionNote))
        .col(big_integer(Column::Version))
        .col(big_integer(Column::CreateTime))
        .col(big_integer(Column::ExpireTime))
        .to_owned()
}

fn revocations() -> TableCreateStatement {
    use revocation::{Column, Entity};
    Table::create()
        .table(Entity)
        .col(string(Column::Target).primary_key())
        .col(text(Column::Message))
        .col(big_integer(Column::Revoked))
        .col(text(Column::CursorSlot))
        .col(uuid_null(Column::CursorScreening))
        .col(integer_null(Column::CursorGeneration))
        .col(string(Column::Actor))
        .col(string(Column::RequestId))
        .col(string(Column::Traceparent))
        .to_owned()
}
