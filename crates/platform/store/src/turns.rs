//! Turns at the reading connections, one per connection. So a holder of a turn waits for no busy connection: if the
//! pool still has none for it, none can be opened.
//!
//! Whole pages take only a part of the turns, so that reads of a few rows are still answered in a rush of lists, and
//! they wait less long. A wait that ends in vain reports an overload if other statements were answered meanwhile;
//! otherwise it reports that the database does not answer. The latter is reported at once when a holder of a turn has
//! found it out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sea_orm::error::ConnAcquireErr;
use sea_orm::{DbErr, RuntimeErr};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// The size of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// One row, or a few.
    Rows,
    /// A whole page of a list.
    Page,
}

impl Size {
    /// How long a read waits for a turn; well below the time that callers have.
    const fn longest_wait(self) -> Duration {
        match self {
            Self::Rows => Duration::from_secs(3),
            Self::Page => Duration::from_secs(1),
        }
    }
}

/// The turns of one database.
#[derive(Debug)]
pub(crate) struct Turns {
    all: Arc<Semaphore>,
    pages: Arc<Semaphore>,
    /// How many statements were answered.
    answered: AtomicU64,
    /// Shared with each turn that a transaction keeps; the beginning of the transaction was answered.
    kept: Arc<()>,
    /// Notified when a holder of a turn got no connection.
    silence: Notify,
}

/// The right to use one connection.
#[derive(Debug)]
pub(crate) struct Turn {
    _one: OwnedSemaphorePermit,
    _page: Option<OwnedSemaphorePermit>,
    _kept: Option<Arc<()>>,
}

impl Turns {
    /// One turn per connection. Pages may take at most three quarters of them, and at least one.
    pub(crate) fn new(connections: u32) -> Self {
        let all = connections as usize;
        let pages = all - all.div_ceil(4);
        Self {
            all: Arc::new(Semaphore::new(all)),
            pages: Arc::new(Semaphore::new(pages.max(1))),
            answered: AtomicU64::new(0),
            kept: Arc::new(()),
            silence: Notify::new(),
        }
    }

    /// Waits for a turn. Fails if there is none in time, or if the database does not answer.
    pub(crate) async fn take(&self, size: Size) -> Result<Turn, DbErr> {
        let before = self.answered.load(Ordering::Relaxed);
        let taking = async {
            let page = match size {
                Size::Rows => None,
                Size::Page => Some(permit(&self.pages).await?),
            };
            Ok(Turn { _one: permit(&self.all).await?, _page: page, _kept: None })
        };
        tokio::select! {
            biased;
            () = self.silence.notified() => return Err(silent()),
            taken = timeout(size.longest_wait(), taking) => if let Ok(turn) = taken { return turn },
        }
        let busy = Arc::strong_count(&self.kept) > 1 || self.answered.load(Ordering::Relaxed) != before;
        Err(if busy { DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) } else { silent() })
    }

    /// Records the outcome of a statement that was run in a turn.
    pub(crate) fn record<A>(&self, outcome: Result<A, DbErr>) -> Result<A, DbErr> {
        match outcome {
            Err(DbErr::ConnectionAcquire(ConnAcquireErr::Timeout)) => {
                self.silence.notify_waiters();
                Err(silent())
            }
            Err(error) => Err(error),
            Ok(answer) => {
                self.answered.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
        }
    }

    /// Marks the turn as kept by a transaction that has begun.
    pub(crate) fn keep(&self, turn: Turn) -> Turn {
        Turn { _kept: Some(Arc::clone(&self.kept)), ..turn }
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, DbErr> {
    // The semaphore is never closed.
    Arc::clone(semaphore).acquire_owned().await.map_err(|closed| DbErr::Custom(closed.to_string()))
}

/// The error for a database that does not answer. It does not blame an overload.
fn silent() -> DbErr {
    DbErr::Conn(RuntimeErr::Internal("the database opens no connection and answers no statement in time".to_owned()))
}
