//! Generations of the view. One is in use. Another can be built beside it from the first event on, and replace it.
//!
//! A call holds the generation that was in use when it began until it ends, so a replaced generation is closed only
//! after its last reader. Each generation has its own database, writer and streams, and its own epoch: a position of
//! one generation means nothing in another.

use std::future::Future;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use domain::token::ConsistencyToken;
use fault::Fault;
use jiff::SignedDuration;
use relay::{Consumer, Projector};
use runtime::Process;
use runtime::lifecycle::{Drain, DrainTrigger, drain_pair};
use runtime::tasks::Kind;
use store::{Database, DbErr, Error, Location};
use tokio::time::{Instant, timeout};

use crate::app::Pages;
use crate::hub::Hub;
use crate::migration::Migrator;
use crate::projection::MyPageProjection;
use crate::tables::items;
use crate::{MIN_INTERVAL, NAME, Options, reactions};

/// What calls read from.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) pages: Pages,
    pub(crate) hub: Hub,
    retired: Drain,
    /// Dropped with the last call that holds this generation.
    _held: DrainTrigger,
}

impl Generation {
    /// Waits until another generation is in use.
    pub(crate) async fn retired(&self) {
        self.retired.requested().await;
    }

    /// Whether another generation is in use.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.is_requested()
    }
}

/// One generation of the view. If it is dropped without [`View::close`], its work ends and its database stays open.
#[derive(Debug)]
pub struct View {
    generation: Arc<Generation>,
    consumer: Consumer,
    retire: DrainTrigger,
    /// Requested once no call holds the generation.
    unused: Drain,
    /// Requested once the writer has ended.
    written: Drain,
}

impl View {
    async fn open(options: Options, process: &Process, location: &Location) -> Result<Self, Error> {
        let database = Database::open::<Migrator>(location).await?;
        Ok(Self::over(options, process, database))
    }

    fn over(options: Options, process: &Process, database: Database) -> Self {
        let Options { heartbeat: _, change_age, change_count, prune_interval } = options;
        let (retire, retired) = drain_pair();
        let (held, unused) = drain_pair();
        let (writing, written) = drain_pair();

        let hub = Hub::default();
        let fold = MyPageProjection {
            clock: process.clock,
            hub: hub.clone(),
            change_age: SignedDuration::try_from(change_age).unwrap_or(SignedDuration::MAX),
            change_count,
        };
        let (projector, run) = Projector::new(NAME, fold, database.clone(), process.clock);
        let writer_task = async move {
            run.await;
            drop(writing);
        };
        spawn(process, Kind::Essential, "mypage-writer", writer_task, &retired);
        process.ready_while_writable(NAME, database.writable());
        let consumer = reactions::consumer(&projector);
        let pruning = projector.prune_every(prune_interval.max(MIN_INTERVAL), "old changes were not removed");
        let replaced = retired.clone();
        let pruner_task = async move {
            tokio::select! {
                () = pruning => {}
                () = replaced.requested() => {}
            }
        };
        spawn(process, Kind::Loop, "mypage-prune", pruner_task, &retired);

        let pages = Pages::new(database, process.clock);
        let generation = Arc::new(Generation { pages, hub, retired, _held: held });
        Self { generation, consumer, retire, unused, written }
    }

    /// The consumer that feeds this view. Its transport has to stop before the view is closed.
    #[must_use]
    pub fn consumer(&self) -> Consumer {
        self.consumer.clone()
    }

    /// How many bookings the view shows, of all customers together.
    ///
    /// # Errors
    /// Fails if the database does.
    pub async fn bookings(&self) -> Result<u64, DbErr> {
        items::count(self.consumer.database.reader()).await
    }

    /// Ends the view and closes its database. Streams end with CURSOR_EXPIRED. Other work ends after the calls under
    /// way; they are waited for at most `limit`.
    pub async fn close(self, limit: Duration) {
        let Self { generation, consumer, retire, unused, written } = self;
        let database = consumer.database.clone();
        retire.request();
        drop((generation, consumer));
        let over = async {
            unused.requested().await;
            written.requested().await;
        };
        if timeout(limit, over).await.is_err() {
            // such as a stream whose client has stopped reading; it ends when the client reads on
            tracing::warn!(view = %database.location(), "closing a view that is still held");
        }
        database.close().await;
    }
}

/// The view in use, and how it is replaced. Clones are cheap.
#[derive(Debug, Clone)]
pub struct Views {
    options: Options,
    process: Process,
    current: Arc<RwLock<View>>,
}

impl Views {
    /// Uses the view in this database.
    pub(crate) fn begin(options: Options, process: Process, database: Database) -> Self {
        let first = View::over(options, &process, database);
        Self { options, process, current: Arc::new(RwLock::new(first)) }
    }

    /// Opens another view beside the one in use. No call reads it before it is [put in place](Views::replace).
    ///
    /// # Errors
    /// Fails if the database cannot be opened or migrated.
    pub async fn open(&self, location: &Location) -> Result<View, Error> {
        View::open(self.options, &self.process, location).await
    }

    /// Puts a view in the place of the one in use. Returns the old one, which has to be closed. Calls under way finish
    /// on the old view, except that calls waiting for an event go on waiting on the new one. Streams of the old view
    /// end with CURSOR_EXPIRED. Its resume tokens are refused with the same reason, because the new view has another
    /// epoch.
    #[must_use]
    pub fn replace(&self, next: View) -> View {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, next);
        drop(current);
        // last, so that every stream that it ends finds the new view
        old.retire.request();
        old
    }

    /// The consumer that feeds the view in use.
    #[must_use]
    pub fn consumer(&self) -> Consumer {
        // a poisoned lock is harmless: the view is replaced in one assignment
        self.current.read().unwrap_or_else(PoisonError::into_inner).consumer()
    }

    /// How many bookings the view in use shows, of all customers together.
    ///
    /// # Errors
    /// Fails if the database does.
    pub async fn bookings(&self) -> Result<u64, DbErr> {
        items::count(self.database().reader()).await
    }

    /// The database of the view in use.
    #[must_use]
    pub fn database(&self) -> Database {
        self.consumer().database
    }

    /// The generation in use, to be held for one call.
    pub(crate) fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).generation)
    }

    /// The generation in use, once it has applied the write that the token names. If it is replaced meanwhile, it gets
    /// no more events, and the wait goes on at the new one.
    pub(crate) async fn not_before(
        &self,
        token: Option<ConsistencyToken>,
        deadline: Instant,
    ) -> Result<Arc<Generation>, Fault> {
        loop {
            let generation = self.current();
            let Some(token) = token else { return Ok(generation) };
            let seen = tokio::select! {
                biased;
                seen = generation.pages.wait_for(token, deadline) => Some(seen),
                () = generation.retired() => None,
            };
            if let Some(seen) = seen {
                return seen.map(|()| generation);
            }
        }
    }
}

/// Starts a task of one generation. If the task ends while its generation is in use, that stops the process. After the
/// generation was replaced, the task waits for the end of the process without holding anything.
fn spawn(
    process: &Process,
    kind: Kind,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
    retired: &Drain,
) {
    let (retired, end) = (retired.clone(), process.drain.clone());
    // boxed, so that its resources are dropped before the wait
    let work = Box::pin(work);
    process.tasks.spawn(kind, name, async move {
        work.await;
        if retired.is_requested() {
            end.requested().await;
        }
    });
}
