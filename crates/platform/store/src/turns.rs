//! Turns at the connections that read. There is one for each, so whoever has a turn waits for no busy connection: where the pool has none
//! even so, none can be opened.
//!
//! Whole pages take some of the turns at most, so that in a rush of lists a read of a row or two is still answered, and they wait less
//! long. Who waits in vain is told to back off where others are answered, and that the database does not answer where nobody is; that
//! they hear as soon as somebody with a turn has found it out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use sea_orm::error::ConnAcquireErr;
use sea_orm::{DbErr, RuntimeErr};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

/// What is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Size {
    /// A row, or a few.
    Rows,
    /// A whole page of a list.
    Page,
}

impl Size {
    /// How long a turn is waited for; well below the time that callers have.
    const fn patience(self) -> Duration {
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
    /// Statements that were answered.
    answered: AtomicU64,
    /// Shared with each turn that is kept by a transaction, whose beginning was answered.
    kept: Arc<()>,
    /// Told where a turn was of no use.
    silence: Notify,
}

/// A right to use one connection.
#[derive(Debug)]
pub(crate) struct Turn {
    _one: OwnedSemaphorePermit,
    _page: Option<OwnedSemaphorePermit>,
    _kept: Option<Arc<()>>,
}

impl Turns {
    /// A turn for each of these connections; pages take all but a fourth of them, and one where there are few.
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

    /// Waits for a turn.
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
            taken = timeout(size.patience(), taking) => if let Ok(turn) = taken { return turn },
        }
        let busy = Arc::strong_count(&self.kept) > 1 || self.answered.load(Ordering::Relaxed) != before;
        Err(if busy { DbErr::ConnectionAcquire(ConnAcquireErr::Timeout) } else { silent() })
    }

    /// Takes note of what a statement came to that was run in a turn.
    pub(crate) fn heard<A>(&self, outcome: Result<A, DbErr>) -> Result<A, DbErr> {
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

    /// The same turn, kept by a transaction that has begun.
    pub(crate) fn keep(&self, turn: Turn) -> Turn {
        Turn { _kept: Some(Arc::clone(&self.kept)), ..turn }
    }
}

async fn permit(semaphore: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, DbErr> {
    // it is never closed
    Arc::clone(semaphore).acquire_owned().await.map_err(|closed| DbErr::Custom(closed.to_string()))
}

/// Nobody can be blamed for being too many.
fn silent() -> DbErr {
    DbErr::Conn(RuntimeErr::Internal("the database opens no connection and answers no statement in time".to_owned()))
}
