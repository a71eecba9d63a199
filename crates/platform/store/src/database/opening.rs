//! Opening, reaching and migrating a database, and why that may fail.

use std::fmt;
use std::sync::Arc;

use async_recursion::async_recursion as boxed;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};
use sea_orm_migration::MigratorTrait;
use tokio::sync::watch;

use super::Database;
use crate::connection::{Opening, Pools, Purpose, Reader, connect, have_sessions};
use crate::failure;
use crate::file::File;
use crate::location::Location;
use crate::nemesis::Faults;
use crate::schema::{self, Migrations};
use crate::simulation::step;
use crate::transaction::{Trust, WritingPool};

/// Why a database could not be opened.
#[derive(Debug)]
pub struct Error {
    location: Location,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Database(DbErr),
    /// There is no room on the disk of a file.
    NoRoom(DbErr),
    /// Migrations that are not applied, or whose table is missing.
    Pending(Vec<String>),
    Collation(String),
    /// A pooler between this process and the server shares sessions between its clients.
    Shared,
}

impl Error {
    /// Whether a later try may help, because the server was not reached.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match &self.cause {
            Cause::Database(cause) => !failure::is_content(cause),
            Cause::NoRoom(_) | Cause::Pending(_) | Cause::Collation(_) | Cause::Shared => false,
        }
    }

    /// Whether a file could not be opened because its disk is full. No data is lost.
    #[must_use]
    pub fn is_without_room(&self) -> bool {
        matches!(self.cause, Cause::NoRoom(_))
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let location = &self.location;
        match &self.cause {
            Cause::Database(_) => write!(f, "cannot open the database {location}"),
            Cause::NoRoom(_) => write!(f, "there is no room on the disk to open the database {location}"),
            Cause::Pending(names) => write!(
                f,
                "the database {location} lacks the migrations {}; run `checkup migrate` first",
                names.join(", ")
            ),
            Cause::Collation(found) => write!(
                f,
                "the database {location} has the collation {found}, and lists would come out of order; make it with \
                 `createdb --template template0 --locale C`"
            ),
            Cause::Shared => write!(
                f,
                "the database {location} is behind a pool that shares sessions between clients, and checkup needs sessions of its \
                 own; point it at PostgreSQL itself, or at a pool in session mode (`pool_mode = session` of PgBouncer)"
            ),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match &self.cause {
            Cause::Database(cause) | Cause::NoRoom(cause) => Some(cause),
            Cause::Pending(_) | Cause::Collation(_) | Cause::Shared => None,
        }
    }
}

impl Database {
    /// Opens the database. A file is made and migrated by `M` if needed. A PostgreSQL database must exist, be migrated
    /// by [`Database::migrate`] and be ordered by bytes, because the pages of several selects are merged outside of it.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be reached or does not meet these conditions, or if a migration fails.
    pub fn open<M: MigratorTrait>(location: &Location) -> impl Future<Output = Result<Self, Error>> + Send {
        Self::open_with(location, M::migrations)
    }

    #[boxed]
    async fn open_with(location: &Location, migrations: Migrations) -> Result<Self, Error> {
        let failed = |cause| Error { location: location.clone(), cause };
        let database = |cause| match location {
            Location::Sqlite(file) if failure::is_without_room(file, &cause) => failed(Cause::NoRoom(cause)),
            _ => failed(Cause::Database(cause)),
        };
        let trust = Arc::new(Trust::default());
        let writer = match location {
            Location::Sqlite(path) => {
                let migrating = connect(location, Purpose::Migrate, Opening::Now(&trust)).await.map_err(database)?;
                // a file that a newer version has migrated is opened as it is
                let migrated = step(schema::migrate(migrations, &migrating)).await.map(drop);
                // Opened before the other one is closed: the last connection to a file would copy its log.
                let file = File::at(path.clone()).open().await;
                let closed = step(migrating.close()).await;
                migrated.and(closed).map_err(database)?;
                WritingPool::File(Arc::new(file.map_err(database)?))
            }
            Location::Postgres(_) => {
                let writer = connect(location, Purpose::Write, Opening::Now(&trust)).await.map_err(database)?;
                ensure_sessions(location, &writer).await?;
                let pending = schema::pending(migrations, &writer).await.map_err(database)?;
                if !pending.is_empty() {
                    return Err(failed(Cause::Pending(pending)));
                }
                let collation = collation(&writer).await.map_err(database)?;
                if !matches!(collation.as_str(), "C" | "POSIX" | "C.UTF-8" | "C.utf8") {
                    return Err(failed(Cause::Collation(collation)));
                }
                WritingPool::Server(writer)
            }
        };
        let reader = connect(location, Purpose::Read, Opening::Now(&trust)).await.map_err(database)?;
        let reader = Reader::new(Pools { writer, reader }, Purpose::Read.connections(location));
        Ok(Self {
            location: Arc::new(location.clone()),
            pages: reader.of_pages(),
            reader,
            commits: Arc::new(watch::Sender::new(0)),
            recent: Arc::default(),
            writable: Arc::new(watch::Sender::new(true)),
            trust,
            replacing: Arc::default(),
            faults: Faults::default(),
        })
    }

    /// Checks that the database can be connected to. A file always passes; opening it reports its errors.
    ///
    /// # Errors
    /// [`Error`] if the server cannot be reached.
    #[boxed]
    pub async fn reach(location: &Location) -> Result<(), Error> {
        let failed = |cause| Error { location: location.clone(), cause: Cause::Database(cause) };
        if matches!(location, Location::Postgres(_)) {
            let connection = connect(location, Purpose::Migrate, Opening::Now(&Arc::default())).await;
            connection.map_err(failed)?.close().await.map_err(failed)?;
        }
        Ok(())
    }

    /// Applies pending migrations and returns their names. Several processes may call it at once; on PostgreSQL they
    /// take turns. Migrations that this version does not know are ignored, so an older version may call it too.
    ///
    /// # Errors
    /// [`Error`] if the database cannot be reached, or a migration fails.
    pub fn migrate<M: MigratorTrait>(location: &Location) -> impl Future<Output = Result<Vec<String>, Error>> + Send {
        Self::migrate_with(location, M::migrations)
    }

    #[boxed]
    async fn migrate_with(location: &Location, migrations: Migrations) -> Result<Vec<String>, Error> {
        let failed = |cause| Error { location: location.clone(), cause: Cause::Database(cause) };
        let connection = connect(location, Purpose::Migrate, Opening::Now(&Arc::default())).await.map_err(failed)?;
        if matches!(location, Location::Postgres(_)) {
            ensure_sessions(location, &connection).await?;
        }
        let migrated = step(schema::migrate(migrations, &connection)).await;
        let closed = connection.close().await;
        let applied = migrated.map_err(failed)?;
        closed.map_err(failed)?;
        Ok(applied)
    }
}

/// An error if a pooler between this process and the server shares sessions between its clients.
async fn ensure_sessions(location: &Location, connection: &DatabaseConnection) -> Result<(), Error> {
    let failed = |cause| Error { location: location.clone(), cause };
    let database = |cause| failed(Cause::Database(cause));
    let other = connect(location, Purpose::Migrate, Opening::Now(&Arc::default())).await.map_err(database)?;
    let own = have_sessions(connection, &other).await;
    let closed = other.close().await;
    let own = own.map_err(database)?;
    closed.map_err(database)?;
    if own { Ok(()) } else { Err(failed(Cause::Shared)) }
}

async fn collation(connection: &impl ConnectionTrait) -> Result<String, DbErr> {
    let sql = "SELECT datcollate::text FROM pg_database WHERE datname = current_database()";
    let row = connection.query_one_raw(Statement::from_string(DbBackend::Postgres, sql)).await?;
    row.map_or_else(|| Ok(String::new()), |row| row.try_get_by_index(0))
}
