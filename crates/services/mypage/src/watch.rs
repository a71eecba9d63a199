//! Watching a page: a snapshot or a resumed position, then every change in order, with heartbeats in between.
//!
//! The stream reads nothing before the client has taken what came before, so a slow client holds one small batch of
//! changes, and no task or queue of its own. Changes that it has not read yet stay in the table. If they are removed
//! there, the stream ends with CURSOR_EXPIRED. So does a stream of a view that was replaced, because its positions mean
//! nothing in the new view. Deadlines and the drain end a stream from outside.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use domain::ids::CustomerId;
use domain::mypage::{Item, ResumeToken};
use fault::{Fault, Reason};
use futures::Stream;
use futures::stream::try_unfold;
use jiff::Timestamp;
use store::read;
use tokio::time::{Instant, timeout_at};

use crate::app::Page;
use crate::decode::Watch;
use crate::generation::Generation;
use crate::hub::Subscription;
use crate::tables::items::{Change, Version};
use crate::tables::{changes, pages};

/// A message of a stream, and the token to resume after it.
#[derive(Debug)]
pub(crate) struct WatchMessage {
    pub(crate) what: What,
    pub(crate) token: ResumeToken,
}

/// The content of a message.
#[derive(Debug)]
pub(crate) enum What {
    /// The whole page, as the first message.
    Snapshot(Page),
    /// A booking as it is after a change.
    Changed(Item),
    /// A heartbeat with the current time.
    Alive(Timestamp),
}

/// The most changes that one read returns.
const CHANGES_PER_READ: u64 = 64;

struct Watcher {
    generation: Arc<Generation>,
    subscription: Subscription,
    customer: CustomerId,
    show_waitlisted: bool,
    token: ResumeToken,
    snapshot: Option<Page>,
    changes: VecDeque<Change>,
    heartbeat: Duration,
    silent_since: Instant,
}

///
/// # Errors
/// CURSOR_EXPIRED if the changes after the position are no longer kept.
pub(crate) async fn watch(
    generation: Arc<Generation>,
    heartbeat: Duration,
    query: Watch,
) -> Result<impl Stream<Item = Result<WatchMessage, Fault>> + Send + use<>, Fault> {
    let Watch { customer, from, show_waitlisted } = query;
    let subscription = generation.hub.subscribe(&customer);
    let (token, snapshot) = match from {
        Some(token) => (token, None),
        None => {
            let page = generation.pages.page(&customer, show_waitlisted).await.map_err(read::failed)?;
            (page.token, Some(page))
        }
    };
    let changes = VecDeque::new();
    let silent_since = Instant::now();
    let mut watcher = Watcher {
        generation,
        subscription,
        customer,
        show_waitlisted,
        token,
        snapshot,
        changes,
        heartbeat,
        silent_since,
    };
    if watcher.snapshot.is_none() {
        let epoch = pages::epoch(watcher.generation.pages.database.reader()).await.map_err(read::failed)?;
        if epoch != token.epoch {
            return Err(expired());
        }
        // a position that is no longer kept is refused at once, not by the stream
        watcher.read().await?;
    }
    Ok(try_unfold(watcher, |mut watcher| async {
        let watch_message = watcher.next().await?;
        Ok(Some((watch_message, watcher)))
    }))
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchMessage, Fault> {
        let what = match self.snapshot.take() {
            Some(page) => What::Snapshot(page),
            None => self.follow().await?,
        };
        self.silent_since = Instant::now();
        Ok(WatchMessage { what, token: self.token })
    }

    /// The next change, or a heartbeat if there is none in time.
    async fn follow(&mut self) -> Result<What, Fault> {
        let due = self.silent_since + self.heartbeat;
        loop {
            if self.generation.is_retired() {
                return Err(expired());
            }
            while let Some(Change { position, version, .. }) = self.changes.pop_front() {
                let Version { item, is_withdrawn, waited_in_vain: _ } = version;
                if self.show_waitlisted || item.state.is_shown() {
                    self.token.position = position;
                    return Ok(What::Changed(item));
                }
                if is_withdrawn {
                    return Err(withdrawn());
                }
                self.token.position = position;
            }
            let late = Instant::now() >= due;
            self.read().await?;
            if late && self.changes.is_empty() {
                return Ok(What::Alive(self.generation.pages.clock.now()));
            }
            if self.changes.is_empty() {
                // read again after a wake-up, at the heartbeat, or once the generation is replaced
                tokio::select! {
                    _ = timeout_at(due, self.subscription.woken()) => {}
                    () = self.generation.retired() => {}
                }
            }
        }
    }

    /// Reads the next changes after the position, if there are any.
    async fn read(&mut self) -> Result<(), Fault> {
        self.subscription.mark_seen();
        let connection = self.generation.pages.database.reader();
        let position = self.token.position;
        let page = pages::find(connection, &self.customer).await.map_err(read::failed)?;
        if page.position == position {
            return Ok(());
        }
        let next =
            changes::read_after(connection, &self.customer, position, CHANGES_PER_READ).await.map_err(read::failed)?;
        // positions have no gaps. If the next one is missing, it is forgotten. A page whose position is behind the
        // token was restored from an older copy.
        if next.first().map(|change| change.position) != Some(position + 1) {
            return Err(expired());
        }
        self.changes = next.into();
        Ok(())
    }
}

/// A client that does not know WAITLISTED has a booking as PENDING that waits now. No change can take it off the page:
/// the client would not understand the new state, and REJECTED, which is final, would be wrong of a booking that may
/// still be CONFIRMED. Every client starts again after CURSOR_EXPIRED, with a page that does not have the booking.
fn withdrawn() -> Fault {
    let message = "the next change of this page cannot be told; watch again without a resume_token";
    Fault::new(Reason::CursorExpired, message)
}

fn expired() -> Fault {
    let message = "the changes after this resume_token are no longer kept; watch again without one";
    Fault::new(Reason::CursorExpired, message)
}
