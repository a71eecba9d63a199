//! Faults of the database that tests inject. Production has none.

use async_trait::async_trait;

use crate::transaction::Transaction;

/// What a [`Nemesis`] does to one commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing.
    Commit,
    /// Rolls back and reports an error.
    Lose,
    /// Commits and reports an error all the same: the unknown outcome of a connection that broke at the wrong moment.
    CommitAndFail,
}

/// The steps of a transaction at which storage can fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// BEGIN: nothing was begun.
    Begin,
    /// A statement: the database has rolled the transaction back by itself, as SQLite does on a full disk or an I/O error.
    Statement,
    /// COMMIT: likewise, so the ROLLBACK that follows fails too.
    Commit,
    /// COMMIT, and the transaction is still open, as SQLite may leave it where a lock or room was wanting.
    CommitStaysOpen,
    /// ROLLBACK: the transaction may still be open.
    Rollback,
}

/// Decides the fate of transactions in tests.
#[async_trait]
pub trait Nemesis: Send + Sync {
    /// Looks at a transaction that is about to be committed, or not: its rows are in it, and nobody else can see them.
    async fn before_commit(&self, _transaction: &Transaction) {}

    /// Called once before each commit.
    fn at_commit(&self) -> Verdict {
        Verdict::Commit
    }

    /// Whether storage fails here. Called once at each stage that a transaction reaches.
    fn storage_fails(&self, _stage: Stage) -> bool {
        false
    }

    /// A planted bug: whether a connection is used again although a BEGIN, COMMIT or ROLLBACK failed on it.
    fn trusts_connections(&self) -> bool {
        false
    }
}
