//! The transport without a broker: a consumer reads the producers' logs itself, each strictly in order.
//!
//! Nothing is stored here. The consumer's cursor lives in its own database and moves in the transaction of the effect,
//! so acknowledging does nothing. The consumers of a process share their reads of a log: see `shared`.

mod shared;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::future::select_all;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

use self::shared::{Rest, SharedLog};
use crate::port::{Delivery, Error, Filter, Follow, Message, Position, Subscribe, Subscription};

/// One message in a producer's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The position in the log, from 1, growing in commit order.
    pub position: i64,
    /// The message; all readers of the log share it.
    pub message: Arc<Message>,
}

/// A producer's log: its committed events, in commit order.
#[async_trait]
pub trait Log: Send + Sync {
    /// The producer's name, which is the source of its positions.
    fn name(&self) -> &str;

    /// At most `limit` entries after `position`, oldest first.
    ///
    /// # Errors
    /// [`Error`] if the log cannot be read.
    async fn read_after(&self, position: i64, limit: usize) -> Result<Vec<Entry>, Error>;

    /// The newest position; 0 for an empty log.
    ///
    /// # Errors
    /// [`Error`] if the log cannot be read.
    async fn head(&self) -> Result<i64, Error>;

    /// Changes whenever entries may have been added.
    fn changes(&self) -> watch::Receiver<u64>;
}

/// Serves subscriptions from the logs of the producers in this process.
#[derive(Clone, Default)]
pub struct Tailer {
    logs: Vec<Arc<SharedLog>>,
}

impl fmt::Debug for Tailer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.logs.iter().map(|log| log.name())).finish()
    }
}

impl Tailer {
    /// A transport that reads these logs.
    #[must_use]
    pub fn new(logs: Vec<Arc<dyn Log>>) -> Self {
        Self { logs: logs.into_iter().map(|log| Arc::new(SharedLog::new(log))).collect() }
    }

    /// A transport that reads the log of this producer alone. It shares its reads with this one.
    #[must_use]
    pub fn only(&self, producer: &str) -> Self {
        Self { logs: self.logs.iter().filter(|log| log.name() == producer).cloned().collect() }
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
            source: log.name().into(),
            position: from.get(log.name()).copied().unwrap_or(0),
            changes: log.changes(),
            unread: true,
            log: Arc::clone(log),
        });
        Ok(Box::new(Tails { tails: tails.collect(), filter: Filter::new(filter), next: 0 }))
    }
}

#[async_trait]
impl Follow for Tailer {
    async fn head(&self, producer: &str) -> Result<(String, i64), Error> {
        let log = self.logs.iter().find(|log| log.name() == producer);
        let log = log.ok_or_else(|| Error::new(producer, "its log is not in this process"))?;
        Ok((producer.to_owned(), log.head().await?))
    }
}

struct Tail {
    log: Arc<SharedLog>,
    source: Arc<str>,
    /// Every entry up to here was handed over or did not match.
    position: i64,
    changes: watch::Receiver<u64>,
    unread: bool,
}

struct Tails {
    tails: Vec<Tail>,
    filter: Filter,
    /// The log to read next, so that a busy log cannot starve the others.
    next: usize,
}

/// The outcome of one read.
enum Step {
    Found(Vec<Delivery>),
    /// Every entry was read.
    Ended,
    /// There may be more entries, but the log is not read before this instant.
    NotBefore(Instant),
}

impl Tails {
    /// Reads the logs round-robin until something matches, or all of them have ended or may not be read yet.
    async fn read(&mut self, limit: usize) -> Result<Step, Error> {
        let mut due: Option<Instant> = None;
        for _ in 0..self.tails.len() {
            let index = self.next;
            self.next = (index + 1) % self.tails.len();
            match self.tails[index].read(&self.filter, limit).await? {
                Step::Ended => {}
                Step::NotBefore(at) => due = Some(due.map_or(at, |due| due.min(at))),
                found @ Step::Found(_) => return Ok(found),
            }
        }
        Ok(due.map_or(Step::Ended, Step::NotBefore))
    }

    /// Waits until one of the logs has changed, or until `due`.
    async fn wait(&mut self, due: Option<Instant>) {
        if let Some(due) = due {
            // A change meanwhile is seen at the next read.
            return sleep_until(due).await;
        }
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
    async fn read(&mut self, filter: &Filter, limit: usize) -> Result<Step, Error> {
        if self.changes.has_changed().unwrap_or(false) {
            self.changes.mark_unchanged();
            self.unread = true;
        }
        while self.unread {
            let wanted = |message: &Message| filter.matches(&message.subject);
            let walk = self.log.walk(self.position, wanted, limit).await?;
            self.position = walk.position;
            self.unread = !matches!(walk.rest, Rest::Ended);
            if !walk.found.is_empty() {
                let delivery = |Entry { position, message }| {
                    let position = Position::Ordered { source: Arc::clone(&self.source), position };
                    Delivery { message, position }
                };
                return Ok(Step::Found(walk.found.into_iter().map(delivery).collect()));
            }
            if let Rest::NotBefore(due) = walk.rest {
                return Ok(Step::NotBefore(due));
            }
        }
        Ok(Step::Ended)
    }
}

#[async_trait]
impl Subscription for Tails {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        loop {
            match self.read(limit.max(1)).await? {
                Step::Found(found) => return Ok(found),
                Step::Ended => self.wait(None).await,
                Step::NotBefore(due) => self.wait(Some(due)).await,
            }
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
