//! The road without a broker: a consumer reads the producers' logs itself, each strictly in order.
//!
//! Nothing is kept here. The consumer's cursor lives in its own database and moves in the transaction of the effect, so an
//! acknowledgement has nothing left to do.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::select_all;
use tokio::sync::watch;

use crate::port::{Delivery, Error, Message, Place, Subscribe, Subscription, matches};

/// One entry of a producer's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// From 1, growing in commit order.
    pub position: i64,
    /// The event.
    pub message: Message,
}

/// A producer's log: what is committed to it, in commit order.
#[async_trait]
pub trait Log: Send + Sync {
    /// The producer's name.
    fn name(&self) -> &str;

    /// At most `limit` entries after `position`, oldest first.
    ///
    /// # Errors
    /// [`Error`].
    async fn read_after(&self, position: i64, limit: usize) -> Result<Vec<Entry>, Error>;

    /// The newest position, 0 where there is none.
    ///
    /// # Errors
    /// [`Error`].
    async fn head(&self) -> Result<i64, Error>;

    /// Changes whenever entries may have been added.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Serves subscriptions from the logs of the producers in this process.
#[derive(Clone, Default)]
pub struct Tailer {
    logs: Vec<Arc<dyn Log>>,
}

impl fmt::Debug for Tailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.logs.iter().map(|log| log.name())).finish()
    }
}

impl Tailer {
    /// Reads these logs.
    #[must_use]
    pub fn new(logs: Vec<Arc<dyn Log>>) -> Self {
        Self { logs }
    }
}

#[async_trait]
impl Subscribe for Tailer {
    async fn subscribe(
        &self,
        _name: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let tails = self.logs.iter().map(|log| Tail {
            position: from.get(log.name()).copied().unwrap_or(0),
            changes: log.changes(),
            unread: true,
            log: Arc::clone(log),
        });
        Ok(Box::new(Tails { tails: tails.collect(), filter: filter.to_vec(), next: 0 }))
    }
}

/// How many entries are read at once while looking for matching ones.
const READ: usize = 512;

struct Tail {
    log: Arc<dyn Log>,
    /// Everything up to here was handed over or did not match.
    position: i64,
    changes: watch::Receiver<u64>,
    unread: bool,
}

struct Tails {
    tails: Vec<Tail>,
    filter: Vec<String>,
    /// Whose turn it is, so that a busy log cannot starve the others.
    next: usize,
}

impl Tails {
    /// Reads the logs round-robin until something matches or all are read to their ends.
    async fn read(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        for _ in 0..self.tails.len() {
            let index = self.next;
            self.next = (index + 1) % self.tails.len();
            let tail = &mut self.tails[index];
            if tail.changes.has_changed().unwrap_or(false) {
                tail.changes.mark_unchanged();
                tail.unread = true;
            }
            while tail.unread {
                let found = tail.read(&self.filter, limit).await?;
                if !found.is_empty() {
                    return Ok(found);
                }
            }
        }
        Ok(Vec::new())
    }

    async fn wait(&mut self) {
        let changes = self.tails.iter_mut().map(|tail| {
            Box::pin(async {
                match tail.changes.changed().await {
                    Ok(()) => tail.unread = true,
                    // A producer that is gone adds nothing any more.
                    Err(_) => std::future::pending().await,
                }
            })
        });
        let changes: Vec<_> = changes.collect();
        if changes.is_empty() {
            std::future::pending::<()>().await;
        }
        select_all(changes).await;
    }
}

impl Tail {
    async fn read(&mut self, filter: &[String], limit: usize) -> Result<Vec<Delivery>, Error> {
        let entries = self.log.read_after(self.position, READ).await?;
        self.unread = entries.len() == READ;
        let mut found = Vec::new();
        for Entry { position, message } in entries {
            if found.len() == limit {
                self.unread = true;
                break;
            }
            self.position = position;
            if filter.iter().any(|filter| matches(filter, &message.subject)) {
                let place = Place::Ordered { source: self.log.name().to_owned(), position };
                found.push(Delivery { message, place });
            }
        }
        Ok(found)
    }
}

#[async_trait]
impl Subscription for Tails {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        loop {
            let found = self.read(limit.max(1)).await?;
            if !found.is_empty() {
                return Ok(found);
            }
            self.wait().await;
        }
    }

    async fn acknowledge(&mut self, _deliveries: &[Delivery]) -> Result<(), Error> {
        Ok(())
    }

    async fn postpone(&mut self, _deliveries: &[Delivery], _pause: Duration) -> Result<(), Error> {
        Err(Error::new("a producer's log", "it is read in order: nothing can be put off"))
    }

    async fn lag(&mut self) -> Result<u64, Error> {
        let mut lag = 0;
        for tail in &self.tails {
            lag += u64::try_from(tail.log.head().await? - tail.position).unwrap_or(0);
        }
        Ok(lag)
    }
}
