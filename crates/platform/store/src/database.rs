//! One service's database: a writing connection of its own and a small pool that reads.
//!
//! SQLite runs in WAL with synchronous=FULL, and every write transaction begins IMMEDIATE: a deferred one that upgrades
//! fails at once when another commit came in between, whatever the busy timeout. PostgreSQL runs READ COMMITTED: batch
//! handlers lock rows first and read afterwards, and every statement sees what was committed before it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DbBackend, DbErr, SqliteTransactionMode, Statement, TransactionOptions,
};
use sea_orm_migration::MigratorTrait;
use tokio::sync::{Mutex, watch};

use crate::connection::{Opening, Pools, Purpose, Reader, Snapshot, connect, have_sessions};
use crate::incarnation::Incarnation;
use crate::location::Location;
use crate::migration::{self, Migrations};
use crate::nemesis::Nemesis;
use crate::room;
use crate::simulation::step;
use crate::transaction::{Transaction, Trust};

/// Why a database could not be opened.
#[derive(Debug)]
pub struct Error {
    location: Location,
    cause: Cause,
}

#[derive(Debug)]
enum Cause {
    Database(DbErr),
    /// A file's disk is full.
    NoRoom(DbErr),
    /// Migrations that have not been applied, or whose table is not there.
    Pending(Vec<String>),
    Collation(String),
    /// Sessions are shared by a pool between us and the server.
    Shared,
}

impl Error {
    /// Whether trying again later may help: the server was not reached.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        match &self.cause {
            Cause::Database(cause) => !crate::failure::is_content(cause),
            Cause::NoRoom(_) | Cause::Pending(_) | Cause::Collation(_) | Cause::Shared => false,
        }
    }

    /// Whether a file could not be opened because there is no room on its disk. Nothing of it is lost.
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

/// A cheap handle.
#[derive(Clone)]
pub struct Database {
    location: Arc<Location>,
    reader: Reader,
    pages: Reader,
    commits: Arc<watch::Sender<u64>>,
    writable: Arc<watch::Sender<bool>>,
    trust: Arc<Trust>,
    /// Held while connections are replaced.
    replacing: Arc<Mutex<()>>,
    nemesis: Option<Arc<dyn Nemesis>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the database. A file is made and migrated by `M` where needed; a PostgreSQL database has to be there, migrated by
    /// [`Database::migrate`] and ordered by bytes, because pages of several lists are merged outside of it.
    ///
    /// # Errors
    /// [`Error`] where it cannot be reached, is not as it has to be, or a migration fails.
    pub fn open<M: MigratorTrait>(location: &Location) -> impl Future<Output = Result<Self, Error>> + Send {
        Self::open_with(location, M::migrations)
    }

    #[boxed]
    async fn open_with(location: &Location, migrations: Migrations) -> Result<Self, Error> {
        let failed = |cause| Error { location: location.clone(), cause };
        let database = |cause| match location {
            Location::Sqlite(file) if room::is_missing(file, &cause) => failed(Cause::NoRoom(cause)),
            _ => failed(Cause::Database(cause)),
        };
        let trust = Arc::new(Trust::default());
        let writer = connect(location, Purpose::Write, Opening::Now(&trust)).await.map_err(database)?;
        if matches!(location, Location::Postgres(_)) {
            ensure_sessions(location, &writer).await?;
        }
        match location {
            Location::Sqlite(_) => step(migration::up(migrations, &writer)).await.map_err(database)?,
            Location::Postgres(_) => {
                let pending = migration::pending(migrations, &writer).await.map_err(database)?;
                if !pending.is_empty() {
                    return Err(failed(Cause::Pending(pending)));
                }
                let collation = collation(&writer).await.map_err(database)?;
                if !matches!(collation.as_str(), "C" | "POSIX" | "C.UTF-8" | "C.utf8") {
                    return Err(failed(Cause::Collation(collation)));
                }
            }
        }
        let reader = connect(location, Purpose::Read, Opening::Now(&trust)).await.map_err(database)?;
        let reader = Reader::new(Pools { writer, reader }, Purpose::Read.connections(location));
        Ok(Self {
            location: Arc::new(location.clone()),
            pages: reader.of_pages(),
            reader,
            commits: Arc::new(watch::Sender::new(0)),
            writable: Arc::new(watch::Sender::new(true)),
            trust,
            replacing: Arc::default(),
            nemesis: None,
        })
    }

    /// Whether the database can be connected to; a file always can, or else opening it says why not.
    ///
    /// # Errors
    /// [`Error`] where it cannot.
    #[boxed]
    pub async fn reach(location: &Location) -> Result<(), Error> {
        let failed = |cause| Error { location: location.clone(), cause: Cause::Database(cause) };
        if matches!(location, Location::Postgres(_)) {
            let connection = connect(location, Purpose::Migrate, Opening::Now(&Arc::default())).await;
            connection.map_err(failed)?.close().await.map_err(failed)?;
        }
        Ok(())
    }

    /// Brings the schema up to date and says which migrations that took. Several processes may do so at once: on PostgreSQL they
    /// take turns. Migrations that this version does not know are left alone, so an older version may run it too.
    ///
    /// # Errors
    /// [`Error`] where it cannot be reached, or a migration fails.
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
        let migrated = step(migration::migrate(migrations, &connection)).await;
        let closed = connection.close().await;
        let applied = migrated.map_err(failed)?;
        closed.map_err(failed)?;
        Ok(applied)
    }

    /// Puts every later transaction of this handle and its clones under a nemesis.
    #[must_use]
    pub fn with_nemesis(mut self, nemesis: Arc<dyn Nemesis>) -> Self {
        if nemesis.trusts_connections() {
            self.trust.blind();
        }
        self.nemesis = Some(nemesis);
        self
    }

    /// Where it is.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// For reads of a few rows outside of the writer. Each statement sees the last commit; see [`Database::snapshot`].
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The same for whole pages, which leave connections to the reads of a few rows and are refused after a second where too many are
    /// asked for at once.
    #[must_use]
    pub fn pages(&self) -> &Reader {
        &self.pages
    }

    /// A reading transaction, for pages made of several statements: all of them see the same commit.
    ///
    /// # Errors
    /// What the database says; as [`Database::pages`] where too many are asked for.
    #[boxed]
    pub async fn snapshot(&self) -> Result<Snapshot, DbErr> {
        self.pages.snapshot().await
    }

    /// The database that is known behind this address; `None` of a file.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.trust.incarnations().trusted()
    }

    /// Tells whenever another database is found behind this address than the one that is known. From now on nothing is read or written
    /// there until [`Database::trust`] says that it may be, but by connections from before.
    #[must_use]
    pub fn doubts(&self) -> watch::Receiver<Option<Incarnation>> {
        self.trust.incarnations().doubts()
    }

    /// Lets the database behind this address be used.
    pub fn trust(&self, incarnation: Incarnation) {
        self.trust.incarnations().trust(incarnation);
    }

    /// Counts the commits of this handle and its clones; it changes after each of them, and never before its rows can be read.
    /// Other processes on the same database commit unheard.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Whether the storage takes writes, as far as the writer has found out; true at first. See [`crate::writer`].
    #[must_use]
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    /// Keeps what the writer has found out; true where that is a change.
    pub(crate) fn set_writable(&self, writable: bool) -> bool {
        self.writable.send_replace(writable) != writable
    }

    pub(crate) fn is_writable(&self) -> bool {
        *self.writable.borrow()
    }

    /// Whether rows are locked one by one, and other processes may write as well.
    pub(crate) fn is_shared(&self) -> bool {
        matches!(*self.location, Location::Postgres(_))
    }

    /// Begins a write of the writer.
    #[boxed]
    pub(crate) async fn begin(&self) -> Result<Transaction, DbErr> {
        self.renew_connections().await;
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        Transaction::begin(&self.reader.pools().writer, options, &self.trust, self.nemesis.clone()).await
    }

    /// Begins a small write beside the writer, which need not wait for it where the database locks rows.
    #[boxed]
    pub(crate) async fn begin_outside_writer(&self) -> Result<Transaction, DbErr> {
        if !self.is_shared() {
            return self.begin().await;
        }
        self.renew_connections().await;
        let turn = self.reader.turn().await?;
        let options = TransactionOptions::default();
        let begun = Transaction::begin(&self.reader.pools().reader, options, &self.trust, self.nemesis.clone()).await;
        begun.map(|transaction| transaction.in_turn(turn))
    }

    /// Commits, and tells those who wait for commits. After an error the outcome is unknown.
    #[boxed]
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<(), DbErr> {
        transaction.commit().await?;
        self.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }

    /// Copies the log of a file into the file and cuts it off, on a connection of its own, so that the writer's state does not matter. False
    /// where somebody still reads from the log; it is copied as far as that allows.
    #[boxed]
    pub(crate) async fn cut_log(&self) -> Result<bool, DbErr> {
        // seldom needed, and so not a part of every future that writes
        step(Box::pin(async {
            let connection = connect(&self.location, Purpose::Fold, Opening::Now(&self.trust)).await?;
            let pragma = Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint(TRUNCATE)");
            let cut = connection.query_one_raw(pragma).await;
            connection.close().await?;
            // the first of three columns: whether it had to stop for somebody
            cut?.map_or(Ok(false), |row| row.try_get_by_index::<i32>(0).map(|stopped| stopped == 0))
        }))
        .await
    }

    /// Replaces the connections that write where one of them is not trusted any more.
    async fn renew_connections(&self) {
        if !self.trust.is_lost() {
            return;
        }
        let _replacing = self.replacing.lock().await;
        if self.trust.is_lost() {
            self.reconnect().await;
        }
    }

    /// Turns away from connections whose state is not known: a transaction on one of them failed to begin or to end, or its server
    /// stopped answering (packets that vanish end no connection by themselves, and a pool goes on handing them out). Later
    /// statements open new ones.
    #[boxed]
    pub(crate) async fn reconnect(&self) {
        let Pools { writer, reader } = self.reader.pools();
        // Files are read by connections that never write.
        let fresh_reader = if self.is_shared() { Some(self.later(Purpose::Read).await) } else { None };
        let fresh = match (self.later(Purpose::Write).await, fresh_reader.transpose()) {
            (Ok(writer), Ok(fresh_reader)) => Pools { writer, reader: fresh_reader.unwrap_or_else(|| reader.clone()) },
            (Err(error), _) | (_, Err(error)) => {
                tracing::warn!(%error, database = %self.location, "cannot connect again yet");
                return;
            }
        };
        self.reader.replace(fresh);
        self.trust.restore();
        // An open transaction ends with its connection, and a file has one writer: it would wait for its own predecessor.
        let shared = self.is_shared();
        let parting =
            async { tokio::join!(writer.close(), async { if shared { reader.close().await } else { Ok(()) } }) };
        // what does not end by itself ends when the server notices
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, parting).await;
    }

    /// A pool whose connections are opened when they are needed.
    async fn later(&self, purpose: Purpose) -> Result<sea_orm::DatabaseConnection, DbErr> {
        connect(&self.location, purpose, Opening::Later(&self.trust)).await
    }

    /// Closes both pools; SQLite then folds its write-ahead log into the file.
    #[boxed]
    pub async fn close(self) {
        let Pools { writer, reader } = self.reader.pools();
        for pool in [reader, writer] {
            if let Err(error) = step(pool.close()).await {
                tracing::warn!(%error, "database did not close cleanly");
            }
        }
    }
}

/// How long old connections may take to say good-bye before they are just dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// An error where a pool between us and the server shares sessions between its clients.
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
