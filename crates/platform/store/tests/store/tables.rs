//! A table of accounts that may hold at most ten, and a batch handler that writes to it.

use async_trait::async_trait;
use fault::Fault;
use sea_orm::ActiveValue::Set;
use sea_orm::sea_query::{Expr, ExprTrait, OnConflict};
use sea_orm::{DbErr, EntityTrait};
use store::migration::{MigrationTrait, MigratorTrait, common, prelude};
use store::{BatchHandler, Database, Fetch as _, Location, Run as _, Transaction};
use tempfile::TempDir;
use tokio::sync::Semaphore;

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod account {
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "account")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub id: i64,
        pub amount: i64,
        pub label: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

pub(crate) struct TestDatabase {
    pub(crate) name: &'static str,
    pub(crate) database: Database,
    pub(crate) location: Location,
    /// The folder is removed with the test.
    pub(crate) _folder: Option<TempDir>,
}

pub(crate) struct Migrator;

impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let mut all = common();
        all.push(Box::new(Accounts));
        all
    }
}

struct Accounts;

impl prelude::MigrationName for Accounts {
    fn name(&self) -> &str {
        "test_0001_account"
    }
}

#[async_trait]
impl MigrationTrait for Accounts {
    async fn up(&self, manager: &prelude::SchemaManager) -> Result<(), DbErr> {
        use prelude::{ColumnDef, Table};
        let table = Table::create()
            .table(account::Entity)
            .col(ColumnDef::new(account::Column::Id).big_integer().not_null().primary_key())
            .col(ColumnDef::new(account::Column::Amount).big_integer().not_null())
            .col(ColumnDef::new(account::Column::Label).string().not_null())
            .check(Expr::col(account::Column::Amount).between(0, MAX_AMOUNT))
            .to_owned();
        manager.create_table(table).await
    }
}

pub(crate) const MAX_AMOUNT: i64 = 1_000;

/// A command of the batch handler.
#[derive(Debug)]
pub(crate) enum Command {
    /// Sets an account to an amount; an amount above [`MAX_AMOUNT`] breaks the table's rule.
    Put(i64, i64),
    /// Reads an account, and inserts it if it does not exist.
    Insert(i64),
    /// Makes an account with this label.
    Label(i64, &'static str),
    /// Sets an account to an amount, then holds the transaction open until the gate opens.
    Hold(i64, i64, &'static Gate),
    /// Panics in the batch handler.
    Panic,
    /// Holds the writer until the gate opens.
    Wait(&'static Gate),
}

/// Reports that the writer has arrived, and lets it continue.
#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) arrived: Semaphore,
    pub(crate) open: Semaphore,
}

impl Gate {
    pub(crate) const fn new() -> Self {
        Self { arrived: Semaphore::const_new(0), open: Semaphore::const_new(0) }
    }
}

pub(crate) struct Accountant;

#[async_trait]
impl BatchHandler for Accountant {
    type Command = Command;
    type Answer = Result<usize, Fault>;

    async fn execute(&self, transaction: &Transaction, batch: &[&Command]) -> Result<Vec<Result<usize, Fault>>, DbErr> {
        let mut answers = Vec::new();
        for command in batch {
            match command {
                Command::Put(id, amount) => put(transaction, *id, *amount).await?,
                Command::Insert(id) => {
                    if account::Entity::find_by_id(*id).fetch_one(transaction).await?.is_none() {
                        let row = account::ActiveModel { id: Set(*id), amount: Set(1), label: Set(String::new()) };
                        account::Entity::insert(row).run(transaction).await?;
                    }
                }
                Command::Label(id, label) => {
                    let row = account::ActiveModel { id: Set(*id), amount: Set(1), label: Set((*label).to_owned()) };
                    account::Entity::insert(row).run(transaction).await?;
                }
                Command::Hold(id, amount, gate) => {
                    put(transaction, *id, *amount).await?;
                    gate.arrived.add_permits(1);
                    if let Ok(permit) = gate.open.acquire().await {
                        permit.forget();
                    }
                }
                Command::Panic => panic!("asked to"),
                Command::Wait(gate) => {
                    gate.arrived.add_permits(1);
                    if let Ok(permit) = gate.open.acquire().await {
                        permit.forget();
                    }
                }
            }
            answers.push(Ok(batch.len()));
        }
        Ok(answers)
    }
}

async fn put(transaction: &Transaction, id: i64, amount: i64) -> Result<(), DbErr> {
    let row = account::ActiveModel { id: Set(id), amount: Set(amount), label: Set("x".repeat(200)) };
    let replace = OnConflict::column(account::Column::Id).update_column(account::Column::Amount).to_owned();
    account::Entity::insert(row).on_conflict(replace).run(transaction).await.map(drop)
}

pub(crate) async fn amounts(database: &Database) -> Vec<(i64, i64)> {
    use sea_orm::QueryOrder;
    let rows =
        account::Entity::find().order_by_asc(account::Column::Id).all(database.reader()).await.expect("accounts");
    rows.into_iter().map(|row| (row.id, row.amount)).collect()
}
