//! A transaction of which it is known whether it was committed.
//!
//! After a failed statement the database may have rolled the whole transaction back by itself (SQLite does on a full disk, an I/O
//! error or too little memory), and a statement that follows would then be committed alone. So after a failed statement nothing
//! more runs in a [`Transaction`], and it is not committed. After a failed BEGIN, COMMIT or ROLLBACK the driver's idea of the
//! connection and the database's may differ: what the driver takes for a transaction may be none, and an acknowledged COMMIT a
//! released savepoint. So the connection is used for nothing more: see [`Trust`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_recursion::async_recursion as boxed;
use async_trait::async_trait;
use sea_orm::{
    ConnectionTrait, DatabaseConnection, DatabaseTransaction, DbBackend, DbErr, ExecResult, QueryResult, RuntimeErr,
    Statement, TransactionOptions, TransactionTrait,
};

use crate::incarnation::Incarnations;
use crate::nemesis::{Nemesis, Stage, Verdict};
use crate::sealed::Sealed;
use crate::turns::Turn;

/// Whether the connections of a database that write may be used: not since a BEGIN, COMMIT or ROLLBACK failed, or was given up
/// before its answer came.
#[derive(Debug, Default)]
pub(crate) struct Trust {
    lost: AtomicBool,
    /// A planted bug: trust is never lost.
    blind: AtomicBool,
    incarnations: Incarnations,
}

impl Trust {
    /// Which databases its new connections may find.
    pub(crate) fn incarnations(&self) -> &Incarnations {
        &self.incarnations
    }

    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Every connection was replaced.
    pub(crate) fn restore(&self) {
        self.lost.store(false, Ordering::Release);
    }

    /// Plants the bug that a failed connection is used again.
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

/// Takes the trust away when it is dropped, unless it was settled before: also where whoever waited gave up.
struct Doubt(Option<Arc<Trust>>);

impl Doubt {
    /// What was doubtful went well.
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

/// A write in progress. Dropped without a commit it is rolled back, and its connection with it.
pub struct Transaction {
    inner: Sealed<DatabaseTransaction>,
    /// A statement failed: nothing more is run, and nothing committed.
    broken: AtomicBool,
    nemesis: Option<Arc<dyn Nemesis>>,
    doubt: Doubt,
    /// At a connection that others read with.
    _turn: Option<Turn>,
}

impl std::fmt::Debug for Transaction {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction").field("broken", &self.broken).finish_non_exhaustive()
    }
}

impl Transaction {
    #[boxed]
    pub(crate) async fn begin(
        pool: &DatabaseConnection,
        options: TransactionOptions,
        trust: &Arc<Trust>,
        nemesis: Option<Arc<dyn Nemesis>>,
    ) -> Result<Self, DbErr> {
        let doubt = trust.doubt();
        if fails(nemesis.as_ref(), Stage::Begin) {
            return Err(injected(Stage::Begin));
        }
        match pool.begin_with_options(options).await {
            Ok(inner) => {
                Ok(Self { inner: Sealed::new(inner), broken: AtomicBool::new(false), nemesis, doubt, _turn: None })
            }
            // every connection was busy: none was touched
            Err(error @ DbErr::ConnectionAcquire(_)) => {
                doubt.settle();
                Err(error)
            }
            Err(error) => Err(error),
        }
    }

    /// The same, which keeps a turn to its end.
    pub(crate) fn in_turn(self, turn: Turn) -> Self {
        Self { _turn: Some(turn), ..self }
    }

    /// Commits. After an error nobody knows whether the transaction took place, unless a statement had failed before.
    #[boxed]
    pub(crate) async fn commit(self) -> Result<(), DbErr> {
        if self.broken.load(Ordering::Acquire) {
            drop(self.rollback().await);
            return Err(broken());
        }
        if let Some(nemesis) = self.nemesis.clone() {
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
        if fails(self.nemesis.as_ref(), Stage::CommitStaysOpen) {
            return Err(injected(Stage::CommitStaysOpen));
        }
        if fails(self.nemesis.as_ref(), Stage::Commit) {
            self.roll_back_by_itself().await;
            drop(self.rollback().await);
            return Err(injected(Stage::Commit));
        }
        let Self { inner, doubt, .. } = self;
        inner.take().commit().await?;
        doubt.settle();
        Ok(())
    }

    /// Rolls back. After an error its connection is not used again, and what the transaction wrote is lost with it.
    #[boxed]
    pub(crate) async fn rollback(self) -> Result<(), DbErr> {
        let fails = fails(self.nemesis.as_ref(), Stage::Rollback);
        let Self { inner, doubt, .. } = self;
        if fails {
            return Err(injected(Stage::Rollback));
        }
        inner.take().rollback().await?;
        doubt.settle();
        Ok(())
    }

    /// Runs one statement, unless one failed before.
    async fn run<T>(&self, statement: impl Future<Output = Result<T, DbErr>>) -> Result<T, DbErr> {
        if self.broken.load(Ordering::Acquire) {
            return Err(broken());
        }
        let outcome = if fails(self.nemesis.as_ref(), Stage::Statement) {
            self.roll_back_by_itself().await;
            Err(injected(Stage::Statement))
        } else {
            statement.await
        };
        if outcome.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        outcome
    }

    /// What a database does whose storage fails, behind the driver's back.
    async fn roll_back_by_itself(&self) {
        drop(self.inner.get().execute_unprepared("ROLLBACK").await);
    }
}

fn fails(nemesis: Option<&Arc<dyn Nemesis>>, stage: Stage) -> bool {
    nemesis.is_some_and(|nemesis| nemesis.storage_fails(stage))
}

fn injected(stage: Stage) -> DbErr {
    DbErr::Conn(RuntimeErr::Internal(format!("the nemesis let storage fail at {stage:?}")))
}

/// Not an error of the storage of its own: whoever sees it ignored the one before.
fn broken() -> DbErr {
    DbErr::Custom("a statement of this transaction failed before".into())
}

#[async_trait]
impl ConnectionTrait for Transaction {
    fn get_database_backend(&self) -> DbBackend {
        self.inner.get().get_database_backend()
    }

    async fn execute_raw(&self, statement: Statement) -> Result<ExecResult, DbErr> {
        self.run(self.inner.get().execute_raw(statement)).await
    }

    async fn execute_unprepared(&self, sql: &str) -> Result<ExecResult, DbErr> {
        self.run(self.inner.get().execute_unprepared(sql)).await
    }

    async fn query_one_raw(&self, statement: Statement) -> Result<Option<QueryResult>, DbErr> {
        self.run(self.inner.get().query_one_raw(statement)).await
    }

    async fn query_all_raw(&self, statement: Statement) -> Result<Vec<QueryResult>, DbErr> {
        self.run(self.inner.get().query_all_raw(statement)).await
    }
}
