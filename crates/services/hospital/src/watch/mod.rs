//! Watching slots: a snapshot in parts or a resumed place, then every slot that changed, with heartbeats in between.
//!
//! The place is taken before the snapshot is read, so no change falls between the two; what the snapshot had already is
//! not told again. A stream reads nothing before the client has taken what came before. A slow client leaves rounds
//! unread, and then reads what it missed as one who resumes does; if that is no longer known, its stream ends with
//! CURSOR_EXPIRED. So a stream holds one part or one round, and the version of each slot that it told. Deadlines and
//! the drain end a stream from outside.

mod board;
mod recent;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use domain::page::{Key, Page};
use fault::{Fault, Reason};
use futures::Stream;
use futures::stream::try_unfold;
use jiff::Timestamp;
use jiff::civil::Date;
use runtime::clock::Clock;
use store::Database;
use store::read::failed;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, timeout, timeout_at};

pub(crate) use self::board::Board;
use self::board::{Place, Round, Seen, Watching};
use crate::decode::Watch;
use crate::tables;
use crate::tables::read::SlotView;

/// How many slots a part of a snapshot has.
const SLOTS_PER_PART: u64 = 100;
/// How long a stream waits for the place where it begins.
const PLACE_LIMIT: Duration = Duration::from_secs(5);

/// A message of a stream, and the token to resume after it; none before the snapshot is complete.
#[derive(Debug)]
pub(crate) struct WatchMessage {
    pub(crate) what: What,
    pub(crate) token: String,
}

/// The content of a message.
#[derive(Debug)]
pub(crate) enum What {
    /// A part of the snapshot, and whether it is the last one.
    Part(Vec<SlotView>, bool),
    /// A slot as it is after a change.
    Changed(SlotView),
    /// A heartbeat with the current time.
    Alive(Timestamp),
}

/// What streams are made of. Clones are cheap.
#[derive(Debug, Clone)]
pub(crate) struct Watches {
    pub(crate) board: Board,
    pub(crate) database: Database,
    pub(crate) clock: Clock,
    pub(crate) heartbeat: Duration,
}

struct Watcher {
    watches: Watches,
    query: Watch,
    /// Where the next part of the snapshot begins; `None` once it is complete.
    part: Option<Page>,
    /// Every change up to here is told.
    place: Place,
    /// What is still to be told, in the order of its positions, and the one that is reached then.
    untold: VecDeque<Seen>,
    reached: i64,
    rounds: Receiver<Arc<Round>>,
    /// The version that was last told of each slot, by its date and the place of its hospital in the query.
    told: HashMap<(Date, usize), i64>,
    silent_since: Instant,
    _watching: Watching,
}

impl Watches {
    /// Opens a stream.
    ///
    /// # Errors
    /// CURSOR_EXPIRED if the changes after the place to resume at are no longer known, NOT_READY if the events do not
    /// come.
    pub(crate) async fn open(
        self,
        query: Watch,
    ) -> Result<impl Stream<Item = Result<WatchMessage, Fault>> + Send + use<>, Fault> {
        let watching = self.board.watch(&query.hospitals);
        let resumed = resumed(&query.page);
        let begun = timeout(PLACE_LIMIT, self.board.place(resumed.as_ref())).await;
        let (here, rounds) = match (begun, &resumed) {
            (Ok(begun), _) => begun,
            // the log was restored from an older copy, or this process is far behind
            (Err(_), Some(_)) if self.board.is_live() => return Err(expired()),
            (Err(_), _) => return Err(Fault::new(Reason::NotReady, "events do not arrive; watch again")),
        };
        let part = resumed.is_none().then(|| query.page.first(SLOTS_PER_PART));
        let (is_resumed, place) = (resumed.is_some(), resumed.unwrap_or(here));
        let reached = place.position;
        let (untold, told, silent_since) = (VecDeque::new(), HashMap::new(), Instant::now());
        let watches = self;
        let mut watcher =
            Watcher { watches, query, part, place, untold, reached, rounds, told, silent_since, _watching: watching };
        if is_resumed {
            // a place that is no longer known is refused at once, not by the stream
            watcher.catch_up().await?;
        }
        Ok(try_unfold(watcher, |mut watcher| async {
            let watch_message = watcher.next().await?;
            Ok(Some((watch_message, watcher)))
        }))
    }
}

impl Watcher {
    async fn next(&mut self) -> Result<WatchMessage, Fault> {
        let what = match self.part.take() {
            Some(page) => self.read_part(page).await?,
            None => self.follow().await?,
        };
        self.silent_since = Instant::now();
        let token = if self.part.is_some() { String::new() } else { token(&self.query.page, &self.place) };
        Ok(WatchMessage { what, token })
    }

    async fn read_part(&mut self, page: Page) -> Result<What, Fault> {
        let Watch { hospitals, dates, .. } = &self.query;
        let connection = self.watches.database.pages();
        let slots = tables::watch::slots(connection, hospitals, *dates, &page).await.map_err(failed)?;
        self.part = slots.following(&page);
        let slots = slots.into_rows();
        for view in &slots {
            self.is_news(view);
        }
        Ok(What::Part(slots, self.part.is_none()))
    }

    /// The next change, or a heartbeat if there is none in time.
    async fn follow(&mut self) -> Result<What, Fault> {
        let due = self.silent_since + self.watches.heartbeat;
        loop {
            if let Some(Seen { view, .. }) = self.untold.pop_front() {
                // one who resumes often goes on in the middle of many changes, too
                let reached = self.untold.front().map_or(self.reached, |next| next.position - 1);
                self.place.position = reached.max(self.place.position);
                return Ok(What::Changed(view));
            }
            match timeout_at(due, self.rounds.recv()).await {
                Err(_) => return Ok(What::Alive(self.watches.clock.now())),
                // what changed up to there was told by the snapshot, or to who resumed
                Ok(Ok(round)) if round.position <= self.place.position => {}
                Ok(Ok(round)) => self.take(&round.slots, round.position),
                Ok(Err(RecvError::Lagged(_))) => self.catch_up().await?,
                Ok(Err(RecvError::Closed)) => return Err(expired()),
            }
        }
    }

    /// Reads what changed after the place of this stream.
    async fn catch_up(&mut self) -> Result<(), Fault> {
        let changed = self.watches.board.since(&self.place, &self.query.hospitals);
        let (here, changes) = changed.ok_or_else(expired)?;
        let slots = board::read(self.watches.database.reader(), &changes, self.query.dates).await.map_err(failed)?;
        // another replica may have been further than this one
        self.take(&slots, here.position.max(self.place.position));
        Ok(())
    }

    /// Takes in slots as they are at a position or later. A round may begin before the place of who resumes; what
    /// changed up to there was told.
    fn take(&mut self, slots: &[Seen], position: i64) {
        let place = self.place.position;
        for seen in slots.iter().filter(|seen| seen.position > place) {
            if self.is_news(&seen.view) {
                self.untold.push_back(seen.clone());
            }
        }
        self.reached = position;
        if self.untold.is_empty() {
            self.place.position = position;
        }
    }

    /// Whether this slot belongs to the stream and has a version above the one that was told of it.
    fn is_news(&mut self, SlotView { slot, .. }: &SlotView) -> bool {
        let Watch { hospitals, dates, .. } = &self.query;
        let Ok(hospital) = hospitals.binary_search(&slot.id.hospital) else { return false };
        if !dates.contains(slot.id.date) {
            return false;
        }
        let told = self.told.entry((slot.id.date, hospital)).or_insert(0);
        let is_news = slot.version > *told;
        *told = slot.version.max(*told);
        is_news
    }
}

/// The place that a token names.
fn resumed(page: &Page) -> Option<Place> {
    match page.after.as_deref()? {
        [Key::Text(source), Key::Int(position)] => Some(Place { source: source.as_str().into(), position: *position }),
        _ => None,
    }
}

fn token(page: &Page, place: &Place) -> String {
    page.next_token(&[Key::Text(place.source.to_string()), Key::Int(place.position)])
}

fn expired() -> Fault {
    let message = "the changes after this resume_token are no longer known; watch again without one";
    Fault::new(Reason::CursorExpired, message)
}
