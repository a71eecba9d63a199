//! Coalesced reads. While one read of the database runs, arriving queries form the next batch, so that a rush costs a
//! few statements per batch and not per query. A single query never waits for others.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use fault::Fault;
use sea_orm::DbErr;
use tokio::sync::{mpsc, oneshot};

use crate::database::Database;
use crate::file::ReadingFile;
use crate::location::Location;
use crate::read::failed;
use crate::statement::Connection;
use crate::thread;
use crate::writer::{gather, overloaded};

/// The reads that a service coalesces.
#[async_trait]
pub trait Lookup: Send + Sync + 'static {
    /// One query, for example an id.
    type Query: Send + Sync + 'static;
    /// The answer to one query.
    type Answer: Send + 'static;

    /// Answers each query, in order. The answers include everything that was committed before the first query was
    /// asked.
    async fn look_up(&self, connection: &dyn Connection, queries: &[&Self::Query]) -> Result<Vec<Self::Answer>, DbErr>;
}

/// The most queries that one batch answers.
const MAX_QUERIES: usize = 256;
/// The most queries that may wait, the same as a writer's commands.
const QUEUE_CAPACITY: usize = 4_096;

struct Asked<L: Lookup> {
    query: L::Query,
    answer: oneshot::Sender<Result<L::Answer, Fault>>,
}

/// The handle for asking queries.
pub struct Lookups<L: Lookup> {
    queue: mpsc::Sender<Asked<L>>,
}

impl<L: Lookup> fmt::Debug for Lookups<L> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookups").field("free", &self.queue.capacity()).finish()
    }
}

impl<L: Lookup> Lookups<L> {
    /// Makes a handle and the loop that serves it. The loop ends when the handle is dropped.
    pub fn new(lookup: L, database: Database) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, mut waiting) = mpsc::channel::<Asked<L>>(QUEUE_CAPACITY);
        let lookup = Arc::new(lookup);
        let connection: Box<dyn Connection> = match database.location() {
            Location::Sqlite(path) => Box::new(ReadingFile::at(path.clone())),
            Location::Postgres(_) => Box::new(database.reader().clone()),
        };
        let blocks = !database.is_shared();
        let answering = async move {
            let mut asked = Vec::with_capacity(MAX_QUERIES);
            while gather(&mut waiting, &mut asked, MAX_QUERIES).await > 0 {
                asked.retain(|asked| !asked.answer.is_closed());
                let queries: Vec<&L::Query> = asked.iter().map(|asked| &asked.query).collect();
                let found = match lookup.look_up(&*connection, &queries).await {
                    Ok(answers) if answers.len() == asked.len() => Ok(answers),
                    Ok(_) => Err(Fault::internal("a lookup did not answer every query")),
                    Err(cause) => Err(failed(cause)),
                };
                answer(&mut asked, found);
            }
        };
        (Self { queue }, thread::run("lookup", blocks, answering))
    }

    /// Asks a query and waits for the answer.
    ///
    /// # Errors
    /// STORAGE_UNAVAILABLE if the database does not answer, OVERLOADED if too many queries wait.
    pub async fn ask(&self, query: L::Query) -> Result<L::Answer, Fault> {
        let (answer, answered) = oneshot::channel();
        self.queue.try_send(Asked { query, answer }).map_err(|refused| match refused {
            mpsc::error::TrySendError::Full(_) => overloaded(),
            mpsc::error::TrySendError::Closed(_) => stopped(),
        })?;
        answered.await.unwrap_or_else(|_| Err(stopped()))
    }
}

/// Sends the answers. A caller that stopped waiting has dropped its receiver.
fn answer<L: Lookup>(asked: &mut Vec<Asked<L>>, found: Result<Vec<L::Answer>, Fault>) {
    match found {
        Ok(answers) => {
            for (asked, answer) in asked.drain(..).zip(answers) {
                drop(asked.answer.send(Ok(answer)));
            }
        }
        Err(fault) => {
            for asked in asked.drain(..) {
                drop(asked.answer.send(Err(fault.clone())));
            }
        }
    }
}

fn stopped() -> Fault {
    failed(DbErr::Custom("the service is stopping".to_owned()))
}
