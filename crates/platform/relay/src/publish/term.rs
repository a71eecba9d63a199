//! One term of publishing: the work of the lease's holder.

use std::time::Duration;

use bus::{Message, Outbound, StreamState};
use runtime::backoff::Backoff;
use store::lease::{self, Lease, Published};
use store::{DbErr, outbox, timestamp};
use tokio::time::{Instant, sleep_until, timeout};
use uuid::Uuid;

use super::gaps::Search;
use super::{Relay, cloud_event};
use crate::pace::spacing;

/// The most windows per read of the outbox.
const WINDOWS_PER_READ: usize = 2;
/// The first pause after a read that found an empty outbox; it doubles.
const FIRST_IDLE_PAUSE: Duration = Duration::from_millis(5);
/// How often the stream is checked without a reason.
const STREAM_CHECK_INTERVAL: Duration = Duration::from_secs(5);
/// How often the backlog is measured.
const BACKLOG_INTERVAL: Duration = Duration::from_secs(1);

/// Why a term of publishing was interrupted.
#[derive(Debug)]
pub(super) enum Trouble {
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

/// The state of one term.
pub(super) struct Term<'a> {
    relay: &'a Relay,
    lease: Lease,
    /// The identity of the stream that was checked; `None` before the check and after trouble.
    stream: Option<String>,
    search: Search,
    renewed: Since,
    measured: Since,
    /// How many transactions marked frames.
    marks: u64,
}

/// The outcome of marking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MarkOutcome {
    Done,
    /// The broker has lost events, so nothing was marked.
    Lost,
    /// Another process has the lease.
    Over,
}

impl<'a> Term<'a> {
    /// Begins a term with its lease.
    pub(super) fn begin(relay: &'a Relay, lease: Lease) -> Self {
        let now = Since(Instant::now());
        Self { relay, lease, stream: None, search: Search::default(), renewed: now, measured: now, marks: 0 }
    }

    /// Renews the lease; false if another process has it.
    pub(super) async fn renew(&mut self) -> Result<bool, DbErr> {
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

    /// Publishes until another process has the lease.
    pub(super) async fn publish(&mut self) -> Result<(), Trouble> {
        let Relay { database, transport, options, .. } = self.relay;
        let (mut connections, mut commits) = (transport.connections(), database.commits());
        let mut looked = Since(Instant::now());
        let (mut idle, mut begin) = (Backoff::new(FIRST_IDLE_PAUSE, options.idle), Instant::now());
        self.stream = None;
        loop {
            if self.renewed.due(options.term / 5) && !self.renew().await? {
                return Ok(());
            }
            if self.measured.due(BACKLOG_INTERVAL) {
                self.measure().await?;
            }
            if connections.has_changed().unwrap_or(false) || looked.due(STREAM_CHECK_INTERVAL) {
                connections.mark_unchanged();
                self.stream = None;
            }
            let Some(stream) = self.stream().await? else { return Ok(()) };
            if !self.search.step(self.relay, self.lease.epoch).await? {
                return Ok(());
            }
            sleep_until(begin).await;
            begin = Instant::now();
            let (seen, marks) = (*commits.borrow_and_update(), self.marks);
            let limit = options.window.max(1) * WINDOWS_PER_READ;
            let rows = outbox::unpublished(database.reader(), limit as u64).await?;
            if rows.is_empty() {
                drop(timeout(idle.pause(), commits.changed()).await);
                continue;
            }
            idle.reset();
            let few = rows.len() <= options.window;
            match self.windows(&stream, rows).await? {
                MarkOutcome::Done => {}
                MarkOutcome::Lost => self.stream = None,
                MarkOutcome::Over => return Ok(()),
            }
            if few {
                begin += spacing(options.pace, begin.elapsed());
                if *commits.borrow_and_update() == seen + (self.marks - marks) {
                    // Nothing but the marks was committed, so another read would find nothing.
                    drop(timeout(idle.pause(), commits.changed()).await);
                }
            }
        }
    }

    /// Sends rows window by window. The next window is sent once the one before is acknowledged; the acknowledged
    /// window is marked meanwhile. After a failure, unmarked rows are sent again.
    async fn windows(&mut self, stream: &str, rows: Vec<outbox::Model>) -> Result<MarkOutcome, Trouble> {
        let mut acknowledged = Vec::new();
        let mut rows = rows.into_iter().peekable();
        while rows.peek().is_some() {
            if self.renewed.due(self.relay.options.term / 5) && !self.renew().await? {
                return Ok(MarkOutcome::Over);
            }
            let window: Vec<_> = rows.by_ref().take(self.relay.options.window.max(1)).collect();
            let sending = send(self.relay, window);
            let (marked, (sent, failed)) = tokio::join!(self.mark(stream, &acknowledged), sending);
            match marked? {
                MarkOutcome::Done => self.remember(&acknowledged),
                marked @ (MarkOutcome::Lost | MarkOutcome::Over) => return Ok(marked),
            }
            acknowledged = sent;
            if let Some(error) = failed {
                if self.mark(stream, &acknowledged).await? == MarkOutcome::Done {
                    self.remember(&acknowledged);
                }
                return Err(error.into());
            }
        }
        let marked = self.mark(stream, &acknowledged).await?;
        if marked == MarkOutcome::Done {
            self.remember(&acknowledged);
        }
        Ok(marked)
    }

    /// Marks acknowledged rows, provided that the broker still holds what it acknowledged before. Otherwise the new
    /// rows may have taken the sequences of lost ones, and marking them would hide the loss.
    async fn mark(&mut self, stream: &str, acknowledged: &[Published]) -> Result<MarkOutcome, Trouble> {
        if acknowledged.is_empty() {
            return Ok(MarkOutcome::Done);
        }
        if !self.is_intact().await? {
            return Ok(MarkOutcome::Lost);
        }
        let Relay { name, database, .. } = self.relay;
        if !lease::mark(database, self.lease.epoch, stream, acknowledged).await? {
            return Ok(MarkOutcome::Over);
        }
        self.marks += 1;
        metrics::counter!("checkup_relay_published_total", "service" => *name).increment(acknowledged.len() as u64);
        Ok(MarkOutcome::Done)
    }

    /// The stream to publish to, after a check. If it is not the stream that the marks name, or has lost acknowledged
    /// events, all marks are removed first. `None` if another process has the lease.
    async fn stream(&mut self) -> Result<Option<String>, Trouble> {
        if let Some(stream) = &self.stream {
            return Ok(Some(stream.clone()));
        }
        let Relay { name, database, transport, .. } = self.relay;
        if !self.renew().await? {
            return Ok(None);
        }
        let state = transport.state().await?;
        self.relay.report_room(&state);
        if self.has_lost(&state).await? {
            let first = self.lease.stream.is_empty();
            if !first {
                tracing::warn!(service = name, stream = state.identity, "the broker lost events; publishing all again");
                metrics::counter!("checkup_relay_republished_total", "service" => *name).increment(1);
            }
            if self.lease.stream == state.identity {
                transport.renumbered().await?;
            }
            if !lease::publish_again(database, self.lease.epoch, &state.identity).await? || !self.renew().await? {
                return Ok(None);
            }
        } else {
            self.search.begin_if_changed(self.relay, &state).await;
        }
        self.stream = Some(state.identity.clone());
        Ok(Some(state.identity))
    }

    /// Whether the stream is the one that acknowledged the marked rows, and has not lost its end since.
    async fn is_intact(&self) -> Result<bool, bus::Error> {
        let Some((sequence, event_id)) = self.lease.newest else { return Ok(true) };
        if self.relay.transport.id_at(sequence).await? == Some(event_id.to_string()) {
            return Ok(true);
        }
        Ok(!self.has_lost(&self.relay.transport.state().await?).await?)
    }

    /// Remembers the newest acknowledged frame, which marking has stored in the lease's row.
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
        // The sequence has no event: it was deleted or dropped by age. The search finds and repairs that.
        let found = self.relay.transport.id_at(sequence).await?;
        Ok(found.is_some_and(|found| found != event_id.to_string()))
    }

    async fn measure(&self) -> Result<(), DbErr> {
        let (waiting, oldest) = outbox::backlog(self.relay.database.reader()).await?;
        self.relay.report_backlog(waiting, oldest.map(timestamp));
        Ok(())
    }
}

/// Sends a window; returns the acknowledged frames and the first error.
async fn send(relay: &Relay, rows: Vec<outbox::Model>) -> (Vec<Published>, Option<bus::Error>) {
    let sent: Vec<(i64, Uuid)> = rows.iter().map(|row| (row.position, row.event_id)).collect();
    let outbound = rows.into_iter().map(|row| Outbound {
        id: row.event_id.to_string(),
        headers: if relay.options.cloud_events { cloud_event::headers(&row) } else { Vec::new() },
        message: Message { subject: row.subject, payload: row.payload },
    });
    let deadline = Instant::now() + relay.options.timeout;
    let results = relay.transport.publish(&outbound.collect::<Vec<_>>(), deadline).await;
    let (mut acknowledged, mut failed) = (Vec::with_capacity(sent.len()), None);
    for ((position, event_id), result) in sent.into_iter().zip(results) {
        match result {
            Ok(sequence) => acknowledged.push(Published { position, event_id, sequence }),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    (acknowledged, failed)
}
