//! One service's database: a connection for the writer and a small pool for reads.
//!
//! SQLite runs in WAL with synchronous=FULL, and every write transaction begins IMMEDIATE. A deferred transaction that
//! upgrades fails at once if another commit came in between, whatever the busy timeout. PostgreSQL runs READ COMMITTED:
//! batch handlers lock rows first and read afterwards, and every statement sees what was committed before it.

mod opening;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, DbErr, Statement};
use tokio::sync::{Mutex, watch};

use crate::connection::{Opening, Pools, Purpose, Reader, Snapshot, connect};
use crate::file::File;
use crate::incarnation::Incarnation;
use crate::location::Location;
use crate::nemesis::Faults;
#[cfg(feature = "testing")]
use crate::nemesis::Nemesis;
use crate::recent::Recent;
use crate::simulation::step;
use crate::transaction::{Transaction, Trust, WritingPool};

pub use opening::Error;

/// A service's database; a cheap handle.
#[derive(Clone)]
pub struct Database {
    location: Arc<Location>,
    reader: Reader,
    pages: Reader,
    commits: Arc<watch::Sender<u64>>,
    /// The newest frames of a file's outbox.
    recent: Arc<Recent>,
    writable: Arc<watch::Sender<bool>>,
    trust: Arc<Trust>,
    /// Held while connections are replaced.
    replacing: Arc<Mutex<()>>,
    faults: Faults,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Database").field("location", &self.location).finish_non_exhaustive()
    }
}

impl Database {
    /// Lets a nemesis inject faults into every later transaction of this handle and its clones.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn with_nemesis(mut self, nemesis: Arc<dyn Nemesis>) -> Self {
        if nemesis.trusts_connections() {
            self.trust.blind();
        }
        self.faults = Faults::by(nemesis);
        self
    }

    /// The file or the server of the database.
    #[must_use]
    pub fn location(&self) -> &Location {
        &self.location
    }

    /// The connections for reads of a few rows outside the writer. Each statement sees the last commit; for several
    /// statements see [`Database::snapshot`].
    #[must_use]
    pub fn reader(&self) -> &Reader {
        &self.reader
    }

    /// The connections for reads of whole pages. They leave some connections to the reads of a few rows, and a page is
    /// refused after a second if too many pages are asked for at once.
    #[must_use]
    pub fn pages(&self) -> &Reader {
        &self.pages
    }

    /// A read transaction, for pages that take several statements: all of them see the same commit.
    ///
    /// # Errors
    /// The error that the database returns; the same refusal as [`Database::pages`] if too many are asked for at once.
    #[boxed]
    pub async fn snapshot(&self) -> Result<Snapshot, DbErr> {
        self.pages.snapshot().await
    }

    /// The database that is known behind this address; `None` for a file.
    #[must_use]
    pub fn incarnation(&self) -> Option<Incarnation> {
        self.trust.incarnations().trusted()
    }

    /// Reports each database found behind this address that is not the known one. From now on only existing connections
    /// read or write, until [`Database::trust`] accepts the new database.
    #[must_use]
    pub fn doubts(&self) -> watch::Receiver<Option<Incarnation>> {
        self.trust.incarnations().doubts()
    }

    /// Accepts this database behind the address.
    pub fn trust(&self, incarnation: Incarnation) {
        self.trust.incarnations().trust(incarnation);
    }

    /// Counts the commits of this handle and its clones. It changes after each commit, once its rows can be read.
    /// Commits of other processes are not counted.
    #[must_use]
    pub fn commits(&self) -> watch::Receiver<u64> {
        self.commits.subscribe()
    }

    /// Whether the storage takes writes, as the writer last found; true at first. See [`crate::writer`].
    #[must_use]
    pub fn writable(&self) -> watch::Receiver<bool> {
        self.writable.subscribe()
    }

    /// Stores what the writer found; returns whether that is a change.
    pub(crate) fn set_writable(&self, writable: bool) -> bool {
        self.writable.send_replace(writable) != writable
    }

    pub(crate) fn is_writable(&self) -> bool {
        *self.writable.borrow()
    }

    /// Whether the database locks single rows and other processes may write too (PostgreSQL).
    pub(crate) fn is_shared(&self) -> bool {
        matches!(*self.location, Location::Postgres(_))
    }

    /// Begins a transaction of the writer.
    #[boxed]
    pub(crate) async fn begin(&self) -> Result<Transaction, DbErr> {
        self.renew_connections().await;
        let writer = self.reader.pools().writer;
        Transaction::begin(&writer, &self.trust, self.faults.clone()).await
    }

    /// Begins a small write outside the writer. If the database locks rows, it does not wait for the writer.
    #[boxed]
    pub(crate) async fn begin_outside_writer(&self) -> Result<Transaction, DbErr> {
        if !self.is_shared() {
            return self.begin().await;
        }
        self.renew_connections().await;
        let turn = self.reader.turn().await?;
        let pool = WritingPool::Server(self.reader.pools().reader);
        let begun = Transaction::begin(&pool, &self.trust, self.faults.clone()).await;
        begun.map(|transaction| transaction.in_turn(turn))
    }

    /// Commits, and notifies those who wait for commits. After an error the outcome is unknown.
    #[boxed]
    pub(crate) async fn commit(&self, transaction: Transaction) -> Result<(), DbErr> {
        let committing = self.recent.committing(transaction.take_appended());
        transaction.commit().await?;
        committing.succeeded();
        self.commits.send_modify(|commits| *commits += 1);
        Ok(())
    }

    /// The newest frames of a file's outbox.
    pub(crate) fn recent(&self) -> &Recent {
        &self.recent
    }

    /// Copies a file's log into the file and truncates the log, on a connection of its own, so that the state of the
    /// writer's connection does not matter. False if a reader still needs the log; as much as possible is then copied.
    #[boxed]
    pub(crate) async fn cut_log(&self) -> Result<bool, DbErr> {
        // Boxed because it is seldom needed; otherwise it would be part of every future that writes.
        step(Box::pin(async {
            let connection = connect(&self.location, Purpose::Fold, Opening::Now(&self.trust)).await?;
            let pragma = Statement::from_string(DbBackend::Sqlite, "PRAGMA wal_checkpoint(TRUNCATE)");
            let cut = connection.query_one_raw(pragma).await;
            connection.close().await?;
            // The first of three columns says whether the checkpoint was blocked.
            cut?.map_or(Ok(false), |row| row.try_get_by_index::<i32>(0).map(|stopped| stopped == 0))
        }))
        .await
    }

    /// Replaces the writing connections if one of them is no longer trusted.
    async fn renew_connections(&self) {
        if !self.trust.is_lost() {
            return;
        }
        let _replacing = self.replacing.lock().await;
        if self.trust.is_lost() {
            self.reconnect().await;
        }
    }

    /// Replaces connections whose state is unknown: a transaction on one of them failed to begin or to end, or its
    /// server stopped answering. (Lost packets do not end a connection, and a pool would go on handing it out.) Later
    /// statements open new connections.
    #[boxed]
    pub(crate) async fn reconnect(&self) {
        let Pools { writer, reader } = self.reader.pools();
        // Files are read by connections that never write, so those stay.
        let fresh = match self.fresh(&reader).await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::warn!(%error, database = %self.location, "cannot connect again yet");
                return;
            }
        };
        self.reader.replace(fresh);
        self.trust.restore();
        // An open transaction ends with its connection. A file has one writer, so a new one would wait for the old one.
        let shared = self.is_shared();
        let parting =
            async { tokio::join!(writer.discard(), async { if shared { reader.close().await } else { Ok(()) } }) };
        // A connection that is not closed in time ends when the server notices.
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, parting).await;
    }

    /// Pools that open their connections when they are needed.
    async fn fresh(&self, reader: &DatabaseConnection) -> Result<Pools, DbErr> {
        Ok(match &*self.location {
            Location::Sqlite(path) => {
                Pools { writer: WritingPool::File(Arc::new(File::at(path.clone()))), reader: reader.clone() }
            }
            Location::Postgres(_) => Pools {
                writer: WritingPool::Server(self.later(Purpose::Write).await?),
                reader: self.later(Purpose::Read).await?,
            },
        })
    }

    /// A pool that opens its connections when they are needed.
    async fn later(&self, purpose: Purpose) -> Result<DatabaseConnection, DbErr> {
        connect(&self.location, purpose, Opening::Later(&self.trust)).await
    }

    /// Closes both pools. SQLite then copies its write-ahead log into the file.
    #[boxed]
    pub async fn close(self) {
        let Pools { writer, reader } = self.reader.pools();
        // SQLite copies the log at the end of the last connection, and only one that may write can do that.
        for closed in [step(reader.close()).await, step(writer.close()).await] {
            if let Err(error) = closed {
                tracing::warn!(%error, "database did not close cleanly");
            }
        }
    }
}

/// How long old connections may take to close before they are dropped.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
