//! Faults of the database that tests inject. Production has no nemesis.

use async_trait::async_trait;

use crate::statement::Connection;

/// The effect of a [`Nemesis`] on one commit.
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
