//! The migrations that a database has, and applying those that it lacks.
//!
//! Migrations that this version does not know belong to a newer version and are ignored: versions run side by side
//! during a rollout, and from version 1.0 on migrations only add.

use std::collections::BTreeSet;

use sea_orm::{DatabaseConnection, DbBackend, DbErr, EntityTrait, QuerySelect, Statement};
use sea_orm_migration::prelude::*;
use sea_orm_migration::{MigratorTraitSelf, seaql_migrations};

use crate::simulation::step;

/// The migrations of a service, in order.
pub(crate) type Migrations = fn() -> Vec<Box<dyn MigrationTrait>>;

/// One type for the migrations of all services, so that the code that applies them is compiled once.
struct Migrator(Migrations);

impl MigratorTraitSelf for Migrator {
    fn migrations(&self) -> Vec<Box<dyn MigrationTrait>> {
        (self.0)()
    }
}

/// Applies the migrations that the database lacks.
async fn up(migrations: Migrations, connection: &DatabaseConnection) -> Result<(), DbErr> {
    Migrator(migrations).up(connection, None).await
}

/// The key of the lock by which processes take turns. Nothing else in the database may use this number.
const MIGRATION_LOCK: i64 = 0x63_6865_636b_7570;

/// The migrations that the database lacks, in order.
pub(crate) async fn pending(migrations: Migrations, connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    step(async {
        let manager = SchemaManager::new(connection);
        let applied = if manager.has_table("seaql_migrations").await? {
            let names = seaql_migrations::Entity::find().select_only().column(seaql_migrations::Column::Version);
            names.into_tuple::<String>().all(connection).await?
        } else {
            Vec::new()
        };
        let applied: BTreeSet<String> = applied.into_iter().collect();
        let names = migrations().iter().map(|migration| migration.name().to_owned()).collect::<Vec<_>>();
        Ok(names.into_iter().filter(|name| !applied.contains(name)).collect())
    })
    .await
}

/// Applies pending migrations and returns their names. The connection must be the only one of its pool, because the
/// lock belongs to it and ends with it.
pub(crate) async fn migrate(migrations: Migrations, connection: &DatabaseConnection) -> Result<Vec<String>, DbErr> {
    if connection.get_database_backend() == DbBackend::Postgres {
        let turn =
            Statement::from_sql_and_values(DbBackend::Postgres, "SELECT pg_advisory_lock($1)", [MIGRATION_LOCK.into()]);
        connection.execute_raw(turn).await?;
    }
    let pending = pending(migrations, connection).await?;
    if !pending.is_empty() {
        up(migrations, connection).await?;
    }
    Ok(pending)
}
