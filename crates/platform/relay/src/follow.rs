//! Following a producer's newest events, for what a process keeps in memory.
//!
//! Nothing is stored and nothing is acknowledged. A follower has no cursor of its own in a database: it begins near the
//! end, and after a failure goes on where it was. It reads only while its listener wants events, so what nobody listens
//! to costs nothing.

use std::collections::HashMap;
use std::fmt;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use async_recursion::async_recursion as boxed;
use async_trait::async_trait;
use bus::{Error, Follow, Position};
use contract::event::v1::EventEnvelope;
use domain::frame::Opened;
use runtime::backoff::Backoff;
use runtime::lifecycle::Drain;
use tokio::time::{sleep, timeout};

use crate::chain;

/// What a process does with the events that it follows.
#[async_trait]
pub trait Listener: Send + Sync + 'static {
    /// Waits until events are wanted.
    async fn wanted(&self);

    /// Waits until no events are wanted.
    async fn unwanted(&self);

    /// The source and the position that it has taken everything up to; `None` if it never began.
    fn position(&self) -> Option<(String, i64)>;

    /// What it takes from now on comes after this position of this source. If that is not where it was, what it took
    /// before does not connect with it.
    fn begin(&self, source: &str, position: i64);

    /// Nothing more comes, because it wanted nothing, until it begins again.
    fn end(&self);

    /// Takes the events at a position, which is above all before it.
    fn take(&self, position: i64, events: &[EventEnvelope]);
}

/// A reader of the newest events of one producer, as a service declares it.
#[derive(Clone)]
pub struct Follower {
    /// Whose events, by the service's name.
    pub producer: &'static str,
    /// The subjects that it reads: see `domain::event::subject_filter`.
    pub filter: Vec<String>,
    /// Takes the events.
    pub listener: Arc<dyn Listener>,
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Follower")
            .field("producer", &self.producer)
            .field("filter", &self.filter)
            .finish_non_exhaustive()
    }
}

/// How many positions before the newest a follower begins. So who resumes at a process that has just started, or at
/// another replica, is told what changed meanwhile.
const REACH: i64 = 4_096;
/// The most frames per read of the transport. A frame has up to 128 KiB.
const FRAMES_PER_READ: usize = 128;
/// How long a subscription outlives the last wish for events, so that one who comes back at once finds it.
const LINGER: Duration = Duration::from_secs(10);
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// Brings events to a listener whenever it wants some, until the drain is requested.
#[boxed]
pub async fn follow(follower: Follower, transport: Arc<dyn Follow>, drain: Drain) {
    let following = async {
        let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
        loop {
            follower.listener.wanted().await;
            if let Err(error) = read(&follower, transport.as_ref(), &mut backoff).await {
                tracing::warn!(producer = follower.producer, error = chain(&error), "cannot follow events");
                sleep(backoff.pause()).await;
            }
        }
    };
    tokio::select! {
        biased;
        () = drain.requested() => {}
        () = following => {}
    }
}

/// Reads until the transport fails, or until the listener wants nothing more.
async fn read(follower: &Follower, transport: &dyn Follow, backoff: &mut Backoff) -> Result<(), Error> {
    let Follower { producer, filter, listener } = follower;
    let (source, head) = transport.head(producer).await?;
    let from = match listener.position() {
        // a wider gap is not read: it costs more than who was there before to begin again
        Some((known, position)) if known == source && (0..=REACH).contains(&(head - position)) => position,
        _ => (head - REACH).max(0),
    };
    let mut subscription = transport.subscribe(producer, filter, HashMap::from([(source.clone(), from)])).await?;
    listener.begin(&source, from);
    backoff.reset();
    // one wait for all reads: it would never end if each read began it anew
    let mut abandoned = pin!(abandoned(listener.as_ref()));
    loop {
        let deliveries = tokio::select! {
            biased;
            () = &mut abandoned => {
                listener.end();
                return Ok(());
            }
            deliveries = subscription.next(FRAMES_PER_READ) => deliveries?,
        };
        for delivery in deliveries {
            let position = match &delivery.position {
                Position::Ordered { source: of, position } if **of == source => *position,
                _ => return Err(Error::new(source, "it counts its positions anew")),
            };
            let opened = Opened::new(&delivery.message.payload).decode();
            let events = opened.inspect_err(|error| tracing::warn!(producer, %error, "cannot read a frame"));
            listener.take(position, &events.unwrap_or_default());
        }
    }
}

/// Waits until the listener has wanted nothing for a while.
async fn abandoned(listener: &dyn Listener) {
    loop {
        listener.unwanted().await;
        if timeout(LINGER, listener.wanted()).await.is_err() {
            return;
        }
    }
}
