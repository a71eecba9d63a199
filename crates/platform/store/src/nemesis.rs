//! Faults of the database that tests inject. Without the feature `testing` there are none.

#[cfg(feature = "testing")]
use std::sync::Arc;

#[cfg(feature = "testing")]
use async_trait::async_trait;
use sea_orm::DbErr;
#[cfg(feature = "testing")]
use sea_orm::RuntimeErr;

#[cfg(feature = "testing")]
use crate::statement::Connection;

/// The effect of a [`Nemesis`] on one commit.
#[cfg(feature = "testing")]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Commits normally.
    Commit,
    /// Rolls back and returns an error.
    Lose,
    /// Commits but returns an error: the unknown outcome of a connection that broke during COMMIT.
    CommitAndFail,
}

/// The steps of a transaction at which the storage can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// BEGIN fails, and no transaction was begun.
    Begin,
    /// A statement fails, and the database has rolled the transaction back by itself, as SQLite does on a full disk or
    /// an I/O error.
    Statement,
    /// COMMIT fails, and the database has rolled back by itself, so the following ROLLBACK fails too.
    Commit,
    /// COMMIT fails and the transaction is still open, as SQLite may leave it without a lock or without room.
    CommitStaysOpen,
    /// ROLLBACK fails, and the transaction may still be open.
    Rollback,
}

/// Decides the outcome of transactions in tests.
#[cfg(feature = "testing")]
#[async_trait]
pub trait Nemesis: Send + Sync {
    /// Called before a transaction is committed or lost. Its rows are written, and nobody else can see them yet.
    async fn before_commit(&self, _transaction: &dyn Connection) {}

    /// The effect on this commit. Called once before each commit.
    fn at_commit(&self) -> Verdict {
        Verdict::Commit
    }

    /// Whether the storage fails here. Called once at each stage that a transaction reaches.
    fn storage_fails(&self, _stage: Stage) -> bool {
        false
    }

    /// A planted bug: whether a connection is used again after a BEGIN, COMMIT or ROLLBACK failed on it.
    fn trusts_connections(&self) -> bool {
        false
    }
}

/// The faults of a database's transactions.
#[derive(Clone, Default)]
pub(crate) struct Faults {
    #[cfg(feature = "testing")]
    nemesis: Option<Arc<dyn Nemesis>>,
}

impl Faults {
    #[cfg(feature = "testing")]
    pub(crate) fn by(nemesis: Arc<dyn Nemesis>) -> Self {
        Self { nemesis: Some(nemesis) }
    }

    #[cfg(feature = "testing")]
    pub(crate) fn nemesis(&self) -> Option<Arc<dyn Nemesis>> {
        self.nemesis.clone()
    }

    /// The error of storage that fails at this stage.
    #[cfg_attr(not(feature = "testing"), expect(unused_variables))]
    pub(crate) fn at(&self, stage: Stage) -> Result<(), DbErr> {
        #[cfg(feature = "testing")]
        if self.nemesis.as_ref().is_some_and(|nemesis| nemesis.storage_fails(stage)) {
            return Err(DbErr::Conn(RuntimeErr::Internal(format!("the nemesis let storage fail at {stage:?}"))));
        }
        Ok(())
    }
}
