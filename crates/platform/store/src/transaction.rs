//! A transaction whose outcome is known unless COMMIT itself fails.
//!
//! After a failed statement the database may have rolled back the whole transaction by itself (SQLite does so on a full
//! disk, an I/O error or too little memory). A following statement would then be committed alone. So after a failed
//! statement a [`Transaction`] runs nothing more and is not committed.
//!
//! After a failed BEGIN, COMMIT or ROLLBACK, the driver's view of the connection and the database's may differ: there
//! may be no transaction although the driver believes so, or an acknowledged COMMIT may only have released a savepoint.
//! So the connection is not used again: see [`Trust`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use async_recursion::async_recursion as boxed;
use async_trait::async_trait;
use domain::frame::Frame;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, Statement, TransactionTrait, Value,
};

use crate::file::{File, Writing};
use crate::incarnation::Incarnations;
#[cfg(feature = "testing")]
use crate::nemesis::Verdict;
use crate::nemesis::{Faults, Stage};
use crate::recent::Entry;
use crate::sealed::Sealed;
use crate::statement::{Connection, Row};
use crate::turns::Turn;

/// Whether the writing connections of a database may be used. They may not after a BEGIN, COMMIT or ROLLBACK failed, or
/// was dropped before its answer arrived.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    lost: AtomicBool,
    /// A planted bug: trust is never lost.
    blind: AtomicBool,
    incarnations: Incarnations,
}

impl Trust {
    /// The databases that new connections may find behind the address.
    pub(crate) fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Restores trust after every connection was replaced.
    pub(crate) fn restore(&self) {
        self.lost.store(false, Ordering::Release);
    }

    /// Plants the bug that a failed connection is used again.
    #[cfg(feature = "testing")]
    pub(crate) fn blind(&self) {
        self.blind.store(true, Ordering::Release);
    }

    pub(crate) fn is_blind(&self) -> bool {
        self.blind.load(Ordering::Acquire)
    }

    fn doubt(self: &Arc<Self>) -> Doubt {
        Doubt(Some(Arc::clone(self)))
    }
}

/// Takes the trust away when it is dropped without being settled, also if the waiting future was dropped.
struct Doubt(Option<Arc<Trust>>);

impl Doubt {
    /// Settles the doubt: the operation succeeded.
    fn settle(mut self) {
        self.0 = None;
    }
}

impl Drop for Doubt {
    fn drop(&mut self) {
        if let Some(trust) = self.0.take().filter(|trust| !trust.is_blind()) {
            trust.lost.store(true, Ordering::Release);
        }
    }
}

/// A write in progress. If it is dropped without a commit, it is rolled back and its connection is not used again.
pub struct Transaction {
    begun: Begun,
    /// Whether a statement failed. Nothing more is then run or committed.
    broken: AtomicBool,
    faults: Faults,
    doubt: Doubt,
    /// The frames that it added to the outbox of a file.
    appended: Mutex<Vec<Entry>>,
    /// The turn at a connection that is also used for reads.
    _turn: Option<Turn>,
}

/// A transaction of a server or of a file.
enum Begun {
    Server(Sealed<DatabaseTransaction>),
    File(Sealed<Writing>),
}

/// Where transactions begin: a pool of a server, or the writing connection of a file.
#[derive(Clone)]
pub(crate) enum WritingPool {
    Server(DatabaseConnection),
    File(Arc<File>),
}

impl WritingPool {
    /// Closes it at the end of the process. A file's log is then copied into the file.
    pub(crate) async fn close(self) -> Result<(), DbErr> {
        match self {
            Self::Server(pool) => pool.close().await,
            Self::File(file) => file.close().await,
        }
    }

    /// Closes it because it is not trusted.
    pub(crate) async fn discard(self) -> Result<(), DbErr> {
        match self {
            Self::Server(pool) => pool.close().await,
            Self::File(file) => file.discard().await,
        }
    }
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Transaction {
    #[boxed]
    pub(crate) async fn begin(pool: &WritingPool, trust: &Arc<Trust>, faults: Faults) -> Result<Self, DbErr> {
        let doubt = trust.doubt();
        faults.at(Stage::Begin)?;
        let begun = match pool {
            WritingPool::Server(pool) => pool.begin().await.map(|begun| Begun::Server(Sealed::new(begun))),
            WritingPool::File(file) => file.begin(trust.is_blind()).await.map(|begun| Begun::File(Sealed::new(begun))),
        };
        match begun {
            Ok(begun) => Ok(Self {
                begun,
                broken: AtomicBool::new(false),
                faults,
                doubt,
                appended: Mutex::default(),
                _turn: None,
            }),
            // Every connection was busy, so none was touched.
            Err(error @ DbErr::ConnectionAcquire(_)) => {
                doubt.settle();
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// Keeps a turn until the transaction ends.
    pub(crate) fn in_turn(self, turn: Turn) -> Self {
        Self { _turn: Some(turn), ..self }
    }

    /// Takes the frames that it added to the outbox of a file.
    pub(crate) fn take_appended(&self) -> Vec<Entry> {
        std::mem::take(&mut *self.appended.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Commits. After an error the outcome is unknown, unless a statement had failed before.
    #[boxed]
    pub(crate) async fn commit(self) -> Result<(), DbErr> {
        if self.broken.load(Ordering::Acquire) {
            drop(self.rollback().await);
            return Err(broken());
        }
        #[cfg(feature = "testing")]
        if let Some(nemesis) = self.faults.nemesis() {
            nemesis.before_commit(&self).await;
            match nemesis.at_commit() {
                Verdict::Commit => {}
                Verdict::Lose => {
                    self.rollback().await?;
                    return Err(DbErr::Custom("the commit was lost by the nemesis".into()));
                }
                Verdict::CommitAndFail => {
                    self.finish().await?;
                    return Err(DbErr::Custom("the answer to the commit was lost by the nemesis".into()));
                }
            }
        }
        self.finish().await
    }

    async fn finish(self) -> Result<(), DbErr> {
        self.faults.at(Stage::CommitStaysOpen)?;
        if let Err(injected) = self.faults.at(Stage::Commit) {
            self.roll_back_by_itself().await;
            drop(self.rollback().await);
            return Err(injected);
        }
        let Self { begun, doubt, .. } = self;
        match begun {
            Begun::Server(begun) => begun.take().commit().await?,
            Begun::File(writing) => writing.take().commit().await?,
        }
        doubt.settle();
        Ok(())
    }

    /// Rolls back. After an error the connection is not used again; its writes are lost with it.
    #[boxed]
    pub(crate) async fn rollback(self) -> Result<(), DbErr> {
        self.faults.at(Stage::Rollback)?;
        let Self { begun, doubt, .. } = self;
        match begun {
            Begun::Server(begun) => begun.take().rollback().await?,
            Begun::File(writing) => writing.take().roll_back().await?,
        }
        doubt.settle();
        Ok(())
    }

    /// Runs one statement, unless an earlier one failed.
    async fn run<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        if self.broken.load(Ordering::Acquire) {
            return Err(broken());
        }
        let outcome = match self.faults.at(Stage::Statement) {
            Ok(()) => statement.await,
            Err(injected) => {
                self.roll_back_by_itself().await;
                Err(injected)
            }
        };
        if outcome.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        outcome
    }

    /// Runs a text without values, also after a failed statement.
    async fn run_text(&self, sql: &'static str) -> Result<(), DbErr> {
        match &self.begun {
            Begun::Server(begun) => begun.get().execute_unprepared(sql).await.map(drop),
            Begun::File(writing) => writing.get().batch(sql).await,
        }
    }

    /// Runs a text without values.
    pub(crate) async fn execute_text(&self, sql: &'static str) -> Result<(), DbErr> {
        self.run(self.run_text(sql)).await
    }

    /// Rolls back without the driver's knowledge, as a database does whose storage fails.
    async fn roll_back_by_itself(&self) {
        drop(self.run_text("ROLLBACK").await);
    }
}

/// The error of a statement or commit after a failed statement. It blames the content, because the caller ignored the
/// first error.
fn broken() -> DbErr {
    DbErr::Custom("a statement of this transaction failed before".into())
}

#[async_trait]
impl Connection for Transaction {
    fn backend(&self) -> DbBackend {
        match self.begun {
            Begun::Server(_) => DbBackend::Postgres,
            Begun::File(_) => DbBackend::Sqlite,
        }
    }

    async fn query(&self, statement: Statement) -> Result<Vec<Row>, DbErr> {
        match &self.begun {
            Begun::Server(begun) => {
                let rows = self.run(begun.get().query_all_raw(statement)).await?;
                Ok(rows.into_iter().map(Row::from).collect())
            }
            Begun::File(writing) => self.run(writing.get().query(statement)).await,
        }
    }

    async fn execute(&self, statement: Statement) -> Result<u64, DbErr> {
        match &self.begun {
            Begun::Server(begun) => Ok(self.run(begun.get().execute_raw(statement)).await?.rows_affected()),
            Begun::File(writing) => self.run(writing.get().execute(statement)).await,
        }
    }

    async fn appended(&self, frames: &[Frame]) -> Result<(), DbErr> {
        if matches!(self.begun, Begun::Server(_)) {
            return Ok(());
        }
        let newest = Statement::from_string(DbBackend::Sqlite, "SELECT last_insert_rowid()");
        let newest: i64 = self.query(newest).await?.pop().map_or(Ok(0), |mut row| row.take(0))?;
        // The only writer of a file gets positions without a gap.
        let oldest = newest - i64::try_from(frames.len()).unwrap_or(i64::MAX) + 1;
        let entries = (oldest..).zip(frames).map(|(position, frame)| Entry::new(position, frame));
        self.appended.lock().unwrap_or_else(PoisonError::into_inner).extend(entries);
        Ok(())
    }

    async fn execute_each(&self, sql: String, width: usize, values: Vec<Value>) -> Result<(), DbErr> {
        match &self.begun {
            Begun::Server(_) => Err(DbErr::Custom("a server gets all rows in one statement".to_owned())),
            Begun::File(writing) => self.run(writing.get().execute_each(sql, width, values)).await,
        }
    }
}
