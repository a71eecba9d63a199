//! Generations of the view. One is in use; another can be built beside it, from the first event on, and put in its place.
//!
//! A call takes the generation in use and holds it to its end, so one that was replaced is closed only once nobody reads it. A
//! generation has a database, a writer and streams of its own, and an epoch: positions of one mean nothing to another.

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

/// What calls read.
#[derive(Debug)]
pub(crate) struct Generation {
    pub(crate) pages: Pages,
    pub(crate) hub: Hub,
    retired: Drain,
    /// Lost with the last call that holds this.
    _held: DrainTrigger,
}

impl Generation {
    /// Waits until another one is in use.
    pub(crate) async fn retired(&self) {
        self.retired.requested().await;
    }

    /// Whether another one is in use.
    pub(crate) fn is_retired(&self) -> bool {
        self.retired.is_requested()
    }
}

/// One generation of the view. Dropping it without [`View::close`] ends its background work and leaves its database open.
#[derive(Debug)]
pub struct View {
    generation: Arc<Generation>,
    consumer: Consumer,
    retire: DrainTrigger,
    /// No call holds it any more.
    unused: Drain,
    /// Its writer has ended.
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

    /// The events it wants. Whoever brings them has to stop before the view is closed.
    #[must_use]
    pub fn consumer(&self) -> Consumer {
        self.consumer.clone()
    }

    /// How many bookings it shows, those of all customers together.
    ///
    /// # Errors
    /// What the database says.
    pub async fn bookings(&self) -> Result<u64, DbErr> {
        items::count(self.consumer.database.reader()).await
    }

    /// Ends it: its streams with CURSOR_EXPIRED, everything else once the calls under way have had their answers, for which it
    /// waits as long as `patience`. Then it closes the database.
    pub async fn close(self, patience: Duration) {
        let Self { generation, consumer, retire, unused, written } = self;
        let database = consumer.database.clone();
        retire.request();
        drop((generation, consumer));
        let over = async {
            unused.requested().await;
            written.requested().await;
        };
        if timeout(patience, over).await.is_err() {
            // such as a stream whose client has stopped reading; it is told once it reads on
            tracing::warn!(view = %database.location(), "closing a view that is still held");
        }
        database.close().await;
    }
}

/// The view in use, and how it is replaced; a cheap handle.
#[derive(Debug, Clone)]
pub struct Views {
    options: Options,
    process: Process,
    current: Arc<RwLock<View>>,
}

impl Views {
    /// With the view in this database in use.
    pub(crate) fn begin(options: Options, process: Process, database: Database) -> Self {
        let first = View::over(options, &process, database);
        Self { options, process, current: Arc::new(RwLock::new(first)) }
    }

    /// Opens another one beside that in use. Nobody reads it until it is [put in place](Views::replace).
    ///
    /// # Errors
    /// Where its database cannot be opened.
    pub async fn open(&self, location: &Location) -> Result<View, Error> {
        View::open(self.options, &self.process, location).await
    }

    /// Puts a view in the place of the one in use, which is returned to be closed. Calls under way end on the old one, but those
    /// that wait for an event go on waiting on the new one. Streams of the old one end with CURSOR_EXPIRED, and its resume
    /// tokens are refused with it: the new one has another epoch.
    #[must_use]
    pub fn replace(&self, next: View) -> View {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        let old = std::mem::replace(&mut *current, next);
        drop(current);
        // told last, so that whoever hears of it finds the new one
        old.retire.request();
        old
    }

    /// The events that the view in use wants.
    #[must_use]
    pub fn consumer(&self) -> Consumer {
        // it is replaced in one assignment, so it is whole even where a holder panicked
        self.current.read().unwrap_or_else(PoisonError::into_inner).consumer()
    }

    /// How many bookings the view in use shows, those of all customers together.
    ///
    /// # Errors
    /// What the database says.
    pub async fn bookings(&self) -> Result<u64, DbErr> {
        items::count(self.database().reader()).await
    }

    /// The database of the view in use.
    #[must_use]
    pub fn database(&self) -> Database {
        self.consumer().database
    }

    /// The generation in use, for one call.
    pub(crate) fn current(&self) -> Arc<Generation> {
        Arc::clone(&self.current.read().unwrap_or_else(PoisonError::into_inner).generation)
    }

    /// The generation in use, once it has taken in the write that a token names. One that is replaced meanwhile gets no more
    /// events, so the wait goes on at its successor.
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

/// Starts a task of one generation. A task that ends early stops the process, and rightly so; one whose generation was replaced
/// is done, and waits for the end of the process without holding anything.
fn spawn(
    process: &Process,
    kind: Kind,
    name: &'static str,
    work: impl Future<Output = ()> + Send + 'static,
    retired: &Drain,
) {
    let (retired, end) = (retired.clone(), process.drain.clone());
    // boxed, so that what it held is given back before the wait
    let work = Box::pin(work);
    process.tasks.spawn(kind, name, async move {
        work.await;
        if retired.is_requested() {
            end.requested().await;
        }
    });
}
