//! The loop that brings one service's events to the broker.
//!
//! One process a service does it at a time, by a lease. It takes what carries no mark, oldest first, sends a window of it at once,
//! and marks what the broker acknowledged while the next window is on its way; the rest stays and is sent again, under the same
//! ids. Where little waits it is given a moment to become more. An acknowledgement is not
//! durability: a broker may lose what it acknowledged, or come back empty. So the marks name the stream they speak of, and
//! where it is not that stream any more, or the newest acknowledged event is not in it, all marks are taken away and
//! everything the outbox still holds is published once more.

use std::sync::Arc;
use std::time::Duration;

use bus::{Message, Outbound, Publish, StreamState};
use jiff::{SignedDuration, Timestamp};
use runtime::clock::Clock;
use runtime::entropy::uuid_v4;
use runtime::lifecycle::Drain;
use store::lease::{self, Lease, Published};
use store::{Database, DbErr, outbox, timestamp};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use uuid::Uuid;

use crate::chain;

/// Patience of a relay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublishOptions {
    /// Events sent before the first acknowledgement is waited for.
    pub window: usize,
    /// How long after the beginning of one look at the outbox the next one begins at the earliest, unless the last one found
    /// more than a window: so many commits share the cost of publishing.
    pub pace: Duration,
    /// How long the acknowledgements of a window are waited for, all together.
    pub timeout: Duration,
    /// How long the lease of a process that is gone keeps the others waiting.
    pub term: Duration,
    /// The longest pause between two looks at an outbox that was empty. Commits of this process end it at once; those of other
    /// replicas do not.
    pub idle: Duration,
    /// How long published events are kept, to fill a broker from that lost its data.
    pub retention: Duration,
}

impl Default for PublishOptions {
    fn default() -> Self {
        Self {
            window: 1_024,
            pace: Duration::from_millis(10),
            timeout: Duration::from_secs(2),
            term: Duration::from_secs(5),
            idle: Duration::from_millis(40),
            retention: Duration::from_secs(72 * 60 * 60),
        }
    }
}

/// Windows that one look at the outbox reads at most.
const WINDOWS: usize = 4;
/// The first pause between two looks at an outbox that was empty; it doubles.
const FIRST_IDLE: Duration = Duration::from_millis(5);
/// The pause after something failed.
const TROUBLE: Duration = Duration::from_millis(250);
/// How often the stream is looked at without a reason.
const LOOK: Duration = Duration::from_secs(5);
/// How often the backlog is measured, and old rows are removed.
const MEASURE: Duration = Duration::from_secs(1);
const PRUNE: Duration = Duration::from_secs(60);

/// Publishes the events of the service `name` until the drain is requested.
pub async fn publish(
    name: &'static str,
    database: Database,
    road: Arc<dyn Publish>,
    options: PublishOptions,
    clock: Clock,
    drain: Drain,
) {
    let relay = Relay { name, database, road, options, clock, holder: uuid_v4() };
    tokio::select! {
        biased;
        () = drain.requested() => relay.resign().await,
        () = relay.run() => {}
    }
}

/// Why a term of publishing ended before its time.
#[derive(Debug)]
enum Trouble {
    Store(DbErr),
    Broker(bus::Error),
}

impl From<DbErr> for Trouble {
    fn from(cause: DbErr) -> Self {
        Self::Store(cause)
    }
}

impl From<bus::Error> for Trouble {
    fn from(cause: bus::Error) -> Self {
        Self::Broker(cause)
    }
}

struct Relay {
    name: &'static str,
    database: Database,
    road: Arc<dyn Publish>,
    options: PublishOptions,
    clock: Clock,
    holder: Uuid,
}

/// When something was last done.
#[derive(Clone, Copy)]
struct Since(Instant);

impl Since {
    fn due(&mut self, interval: Duration) -> bool {
        let due = self.0.elapsed() >= interval;
        if due {
            self.0 = Instant::now();
        }
        due
    }
}

impl Relay {
    async fn run(&self) {
        let leading = metrics::gauge!("checkup_relay_leading", "service" => self.name);
        loop {
            match self.lease().await {
                Ok(Some(lease)) => {
                    tracing::info!(service = self.name, epoch = lease.epoch, "publishing events");
                    leading.set(1.0);
                    self.lead(lease).await;
                    leading.set(0.0);
                    // what waits is the next one's to tell
                    self.tell(0, None);
                }
                // another replica publishes
                Ok(None) => sleep(self.options.term / 10).await,
                Err(error) => {
                    tracing::warn!(service = self.name, %error, "cannot ask for the lease of the relay");
                    sleep(TROUBLE).await;
                }
            }
        }
    }

    /// Shows how many events wait, and since when.
    fn tell(&self, waiting: i64, oldest: Option<Timestamp>) {
        let age = oldest.map_or(0.0, |oldest| self.clock.now().duration_since(oldest).as_secs_f64());
        metrics::gauge!("checkup_relay_backlog", "service" => self.name).set(waiting as f64);
        metrics::gauge!("checkup_relay_oldest_seconds", "service" => self.name).set(age.max(0.0));
    }

    async fn lease(&self) -> Result<Option<Lease>, DbErr> {
        lease::acquire(&self.database, self.holder, self.options.term, self.clock.now()).await
    }

    /// Gives the lease to the next at once.
    async fn resign(&self) {
        const PATIENCE: Duration = Duration::from_secs(1);
        let resigned = async {
            if let Some(lease) = self.lease().await? {
                lease::release(&self.database, lease.epoch).await?;
            }
            Ok::<_, DbErr>(())
        };
        // without it the term ends by itself
        let _ = timeout(PATIENCE, resigned).await;
    }

    /// Publishes for as long as the lease can be renewed.
    async fn lead(&self, lease: Lease) {
        let now = Since(Instant::now());
        let mut term = Term { relay: self, lease, stream: None, renewed: now, measured: now };
        let mut warned = false;
        loop {
            match term.publish().await {
                Ok(()) => return tracing::info!(service = self.name, "another process publishes now"),
                Err(trouble) => {
                    let why = match &trouble {
                        Trouble::Store(cause) => chain(cause),
                        Trouble::Broker(cause) => chain(cause),
                    };
                    // the rows wait, so one line is enough until it works again
                    if !std::mem::replace(&mut warned, !matches!(trouble, Trouble::Store(_))) {
                        tracing::warn!(service = self.name, why, "events wait to be published");
                    }
                    sleep(TROUBLE).await;
                }
            }
            if matches!(term.renew().await, Ok(false)) {
                return;
            }
        }
    }
}

/// One holder's time.
struct Term<'a> {
    relay: &'a Relay,
    lease: Lease,
    /// The stream as it was checked; unknown before that, and after trouble.
    stream: Option<String>,
    renewed: Since,
    measured: Since,
}

/// What became of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marked {
    Done,
    /// The broker has lost events, so nothing was marked.
    Lost,
    /// The lease is another's.
    Over,
}

impl Term<'_> {
    /// Whether the lease still is ours.
    async fn renew(&mut self) -> Result<bool, DbErr> {
        let renewed = self.relay.lease().await?;
        let ours = renewed.filter(|lease| lease.epoch == self.lease.epoch);
        self.renewed = Since(Instant::now());
        Ok(match ours {
            Some(lease) => {
                self.lease = lease;
                true
            }
            None => false,
        })
    }

    /// Publishes until the lease is another's.
    async fn publish(&mut self) -> Result<(), Trouble> {
        let Relay { database, road, options, .. } = self.relay;
        let (mut connections, mut commits) = (road.connections(), database.commits());
        let (mut looked, mut pruned) = (Since(Instant::now()), Since(Instant::now()));
        let (mut idle, mut begin) = (FIRST_IDLE, Instant::now());
        self.stream = None;
        loop {
            if self.renewed.due(options.term / 5) && !self.renew().await? {
                return Ok(());
            }
            if self.measured.due(MEASURE) {
                self.measure().await?;
            }
            if connections.has_changed().unwrap_or(false) || looked.due(LOOK) {
                connections.mark_unchanged();
                self.stream = None;
            }
            let Some(stream) = self.stream().await? else { return Ok(()) };
            if pruned.due(PRUNE) {
                self.prune().await?;
            }
            sleep_until(begin).await;
            begin = Instant::now();
            commits.mark_unchanged();
            let limit = options.window.max(1) * WINDOWS;
            let rows = outbox::unpublished(database.reader(), limit as u64).await?;
            if rows.is_empty() {
                drop(timeout(idle, commits.changed()).await);
                idle = (idle * 2).min(options.idle);
                continue;
            }
            idle = FIRST_IDLE;
            if rows.len() <= options.window {
                begin += options.pace;
            }
            match self.windows(&stream, rows).await? {
                Marked::Done => {}
                Marked::Lost => self.stream = None,
                Marked::Over => return Ok(()),
            }
        }
    }

    /// Sends rows window by window, each once the one before is acknowledged, and marks that one meanwhile. What was sent when
    /// something goes wrong, and carries no mark, is sent again.
    async fn windows(&mut self, stream: &str, rows: Vec<outbox::Model>) -> Result<Marked, Trouble> {
        let mut acknowledged = Vec::new();
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            if self.renewed.due(self.relay.options.term / 5) && !self.renew().await? {
                return Ok(Marked::Over);
            }
            let window: Vec<_> = rows.by_ref().take(self.relay.options.window.max(1)).collect();
            let (marked, (sent, failed)) = tokio::join!(self.mark(stream, &acknowledged), self.send(window));
            match marked? {
                Marked::Done => self.remember(&acknowledged),
                marked @ (Marked::Lost | Marked::Over) => return Ok(marked),
            }
            acknowledged = sent;
            if let Some(error) = failed {
                if self.mark(stream, &acknowledged).await? == Marked::Done {
                    self.remember(&acknowledged);
                }
                return Err(error.into());
            }
        }
        let marked = self.mark(stream, &acknowledged).await?;
        if marked == Marked::Done {
            self.remember(&acknowledged);
        }
        Ok(marked)
    }

    /// Marks what was acknowledged, where the broker still holds what it acknowledged before: what was sent since may have grown
    /// over a loss, and marked, it would hide it.
    async fn mark(&self, stream: &str, acknowledged: &[Published]) -> Result<Marked, Trouble> {
        if acknowledged.is_empty() {
            return Ok(Marked::Done);
        }
        if !self.is_intact().await? {
            return Ok(Marked::Lost);
        }
        let Relay { name, database, .. } = self.relay;
        if !lease::mark(database, self.lease.epoch, stream, acknowledged).await? {
            return Ok(Marked::Over);
        }
        metrics::counter!("checkup_relay_published_total", "service" => *name).increment(acknowledged.len() as u64);
        Ok(Marked::Done)
    }

    /// The stream that can be published to: checked, and where it is not the one the marks speak of, or has lost what it
    /// acknowledged, with no mark left. `None` where the lease is another's.
    async fn stream(&mut self) -> Result<Option<String>, Trouble> {
        if let Some(stream) = &self.stream {
            return Ok(Some(stream.clone()));
        }
        let Relay { name, database, road, .. } = self.relay;
        if !self.renew().await? {
            return Ok(None);
        }
        let state = road.state().await?;
        if self.has_lost(&state).await? {
            let first = self.lease.stream.is_empty();
            if !first {
                tracing::warn!(service = name, stream = state.identity, "the broker lost events; publishing all again");
                metrics::counter!("checkup_relay_republished_total", "service" => *name).increment(1);
            }
            if !lease::publish_again(database, self.lease.epoch, &state.identity).await? || !self.renew().await? {
                return Ok(None);
            }
        }
        self.stream = Some(state.identity.clone());
        Ok(Some(state.identity))
    }

    /// Whether the stream still holds the newest event that was marked before, or is known to have let it go by age.
    async fn is_intact(&self) -> Result<bool, bus::Error> {
        let Some((sequence, event_id)) = self.lease.newest else { return Ok(true) };
        if self.relay.road.id_at(sequence).await? == Some(event_id.to_string()) {
            return Ok(true);
        }
        Ok(!self.has_lost(&self.relay.road.state().await?).await?)
    }

    /// Keeps in mind what the lease's row has been told by the mark.
    fn remember(&mut self, acknowledged: &[Published]) {
        let newest = acknowledged.iter().max_by_key(|event| event.sequence);
        let known = self.lease.newest.map_or(0, |(sequence, _)| sequence);
        if let Some(newest) = newest.filter(|newest| newest.sequence > known) {
            self.lease.newest = Some((newest.sequence, newest.event_id));
        }
    }

    async fn has_lost(&self, state: &StreamState) -> Result<bool, bus::Error> {
        if self.lease.stream != state.identity {
            return Ok(true);
        }
        let Some((sequence, event_id)) = self.lease.newest else { return Ok(false) };
        if sequence > state.last {
            return Ok(true);
        }
        // what is older than the stream's first event has left it by age
        let aged = sequence < state.first;
        Ok(!aged && self.relay.road.id_at(sequence).await? != Some(event_id.to_string()))
    }

    /// Sends a window; what was acknowledged, and the first error.
    async fn send(&self, rows: Vec<outbox::Model>) -> (Vec<Published>, Option<bus::Error>) {
        let sent: Vec<(i64, Uuid)> = rows.iter().map(|row| (row.position, row.event_id)).collect();
        let outbound = rows.into_iter().map(|row| Outbound {
            id: row.event_id.to_string(),
            message: Message { subject: row.subject, payload: row.payload },
        });
        let deadline = Instant::now() + self.relay.options.timeout;
        let results = self.relay.road.publish(&outbound.collect::<Vec<_>>(), deadline).await;
        let (mut acknowledged, mut failed) = (Vec::with_capacity(sent.len()), None);
        for ((position, event_id), result) in sent.into_iter().zip(results) {
            match result {
                Ok(sequence) => acknowledged.push(Published { position, event_id, sequence }),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        (acknowledged, failed)
    }

    async fn measure(&self) -> Result<(), DbErr> {
        let (waiting, oldest) = outbox::backlog(self.relay.database.reader()).await?;
        self.relay.tell(waiting, oldest.map(timestamp));
        Ok(())
    }

    async fn prune(&self) -> Result<(), DbErr> {
        let Relay { database, clock, options, .. } = self.relay;
        let retention = SignedDuration::try_from(options.retention).unwrap_or(SignedDuration::MAX);
        let limit = clock.now().checked_sub(retention).unwrap_or(Timestamp::MIN);
        // a chunk at a time, so that publishing goes on
        outbox::prune(database, limit).await.map(drop)
    }
}
