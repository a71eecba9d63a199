//! What a process knows of changed slots, for everybody who watches here.
//!
//! One follower of Hospital's own events notes which slots changed. Four times a second at most, one round reads those
//! that somebody watches, and every stream takes its own from it. So a thousand watchers cost one reader of events and
//! one read of each slot that changed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use contract::event::v1::EventEnvelope;
use domain::event::subject_filter;
use domain::ids::HospitalId;
use relay::{Follower, Listener};
use runtime::backoff::Backoff;
use sea_orm::DbErr;
use store::{Connection, Database};
use tokio::sync::{broadcast, watch};
use tokio::time::sleep;

use super::recent::{Changed, Changes, FACTS, Recent};
use crate::NAME;
use crate::tables::read::{Dates, SlotView};
use crate::tables::watch::changed;

/// Changes of one slot within this time are told as one.
const TOGETHER: Duration = Duration::from_millis(250);
/// How many changed slots are remembered for those who resume. They take a few MiB.
const REMEMBERED: usize = 65_536;
/// How many rounds a stream may leave unread. One that is further behind reads what it missed by itself.
const ROUNDS: usize = 16;
const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LAST_PAUSE: Duration = Duration::from_secs(5);

/// The slots that changed between two positions, as they are at the second one or later.
#[derive(Debug)]
pub(super) struct Round {
    /// The second position.
    pub(super) position: i64,
    pub(super) slots: Vec<Seen>,
}

/// A slot, and where it changed last.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) position: i64,
    pub(super) view: SlotView,
}

/// Reads what changed, on these dates, in the order of its positions.
pub(super) async fn read(connection: &dyn Connection, changes: &Changes, dates: Dates) -> Result<Vec<Seen>, DbErr> {
    let views = changed(connection, changes.slots.keys(), changes.hospitals.keys(), dates).await?;
    let seen = |view: SlotView| Seen { position: changes.position(&view.slot.id), view };
    let mut slots: Vec<Seen> = views.into_iter().map(seen).collect();
    slots.sort_by_key(|seen| seen.position);
    Ok(slots)
}

/// Where the follower is.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) source: Arc<str>,
    pub(super) position: i64,
}

#[derive(Debug)]
struct Log {
    /// Up to where changes are noted.
    head: Place,
    /// Up to where rounds have told them.
    told: i64,
    recent: Recent,
    /// Whether the follower reads. If not, it may begin somewhere else when it does again.
    is_live: bool,
    /// Dropped if what follows does not connect with what was told, which ends the streams.
    rounds: broadcast::Sender<Arc<Round>>,
}

#[derive(Debug, Default)]
struct State {
    /// `None` until the follower began.
    log: Option<Log>,
    /// How many streams watch each hospital.
    watched: HashMap<HospitalId, usize>,
}

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    changes: watch::Sender<()>,
}

/// The board. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Board(Arc<Shared>);

/// That somebody watches these hospitals, until it is dropped.
#[derive(Debug)]
pub(super) struct Watching {
    board: Board,
    hospitals: Vec<HospitalId>,
}

impl Drop for Watching {
    fn drop(&mut self) {
        let mut state = self.board.state();
        for hospital in &self.hospitals {
            if let Some(count) = state.watched.get_mut(hospital) {
                *count -= 1;
            }
        }
        state.watched.retain(|_, count| *count > 0);
        drop(state);
        self.board.0.changes.send_replace(());
    }
}

impl Board {
    fn state(&self) -> MutexGuard<'_, State> {
        // a poisoned lock is harmless: what is behind it is whole between any two statements that can panic
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the state has something.
    async fn until<T>(&self, has: impl Fn(&State) -> Option<T> + Send) -> T {
        let mut changes = self.0.changes.subscribe();
        loop {
            if let Some(found) = has(&self.state()) {
                return found;
            }
            // the sender is in this board
            drop(changes.changed().await);
        }
    }

    /// What reads the events for this board.
    pub(crate) fn follower(&self) -> Follower {
        let filter = FACTS.map(|(kind, fact)| subject_filter(kind, fact)).to_vec();
        Follower { producer: NAME, filter, listener: Arc::new(self.clone()) }
    }

    /// Says that somebody watches these hospitals. Every round after it has their changes.
    pub(super) fn watch(&self, hospitals: &[HospitalId]) -> Watching {
        let mut state = self.state();
        for hospital in hospitals {
            *state.watched.entry(hospital.clone()).or_insert(0) += 1;
        }
        drop(state);
        self.0.changes.send_replace(());
        Watching { board: self.clone(), hospitals: hospitals.to_vec() }
    }

    /// Whether the follower reads.
    pub(super) fn is_live(&self) -> bool {
        self.state().log.as_ref().is_some_and(|log| log.is_live)
    }

    /// Waits for the place of the follower, and for the rounds after it. A stream that goes on at a place waits until
    /// the follower is there too: another replica may have been faster. A place in another source is never waited for.
    pub(super) async fn place(&self, resumed: Option<&Place>) -> (Place, broadcast::Receiver<Arc<Round>>) {
        let there = |state: &State| {
            let Log { head, rounds, .. } = state.log.as_ref().filter(|log| log.is_live)?;
            let behind = resumed.is_some_and(|from| from.source == head.source && from.position > head.position);
            (!behind).then(|| (head.clone(), rounds.subscribe()))
        };
        self.until(there).await
    }

    /// What changed at these hospitals after this place, and the place up to which that is; `None` if it is no longer
    /// known.
    pub(super) fn since<'a>(
        &self,
        place: &Place,
        hospitals: impl IntoIterator<Item = &'a HospitalId>,
    ) -> Option<(Place, Changes)> {
        let state = self.state();
        let Log { head, recent, .. } = state.log.as_ref().filter(|log| log.head.source == place.source)?;
        Some((head.clone(), recent.since(place.position, hospitals)?))
    }

    /// Tells changes in rounds, for ever.
    pub(crate) async fn tell(self, database: Database) {
        let mut backoff = Backoff::new(FIRST_PAUSE, LAST_PAUSE);
        loop {
            self.until(|state| state.log.as_ref().filter(|log| log.head.position > log.told).map(drop)).await;
            sleep(TOGETHER).await;
            let Some((rounds, head, changes)) = self.untold() else { continue };
            match read(database.reader(), &changes, Dates::default()).await {
                Ok(slots) => {
                    backoff.reset();
                    self.told(&head);
                    // nobody may be left
                    drop(rounds.send(Arc::new(Round { position: head.position, slots })));
                }
                Err(error) => {
                    tracing::warn!(?error, "changed slots cannot be read");
                    sleep(backoff.pause()).await;
                }
            }
        }
    }

    /// What no round has told yet of the hospitals that are watched.
    fn untold(&self) -> Option<(broadcast::Sender<Arc<Round>>, Place, Changes)> {
        let mut state = self.state();
        let State { log, watched } = &mut *state;
        let log = log.as_mut()?;
        match log.recent.since(log.told, watched.keys()) {
            Some(changed) => Some((log.rounds.clone(), log.head.clone(), changed)),
            None => {
                // more changed meanwhile than is remembered, so the streams here cannot go on
                log.told = log.head.position;
                log.rounds = broadcast::Sender::new(ROUNDS);
                None
            }
        }
    }

    fn told(&self, upto: &Place) {
        if let Some(log) = self.state().log.as_mut().filter(|log| Arc::ptr_eq(&log.head.source, &upto.source)) {
            log.told = upto.position;
        }
    }
}

#[async_trait]
impl Listener for Board {
    async fn wanted(&self) {
        self.until(|state| (!state.watched.is_empty()).then_some(())).await;
    }

    async fn unwanted(&self) {
        self.until(|state| state.watched.is_empty().then_some(())).await;
    }

    fn position(&self) -> Option<(String, i64)> {
        let state = self.state();
        state.log.as_ref().map(|Log { head, .. }| (head.source.to_string(), head.position))
    }

    fn begin(&self, source: &str, position: i64) {
        let mut state = self.state();
        match &mut state.log {
            Some(log) if (&*log.head.source, log.head.position) == (source, position) => log.is_live = true,
            log => {
                let head = Place { source: source.into(), position };
                let (recent, rounds) = (Recent::after(position, REMEMBERED), broadcast::Sender::new(ROUNDS));
                *log = Some(Log { head, told: position, recent, is_live: true, rounds });
            }
        }
        drop(state);
        self.0.changes.send_replace(());
    }

    fn end(&self) {
        if let Some(log) = &mut self.state().log {
            log.is_live = false;
        }
    }

    fn take(&self, position: i64, events: &[EventEnvelope]) {
        if let Some(log) = &mut self.state().log {
            for changed in events.iter().filter_map(|event| Changed::by(event.payload.as_ref()?)) {
                log.recent.note(position, changed);
            }
            log.head.position = position;
        }
        self.0.changes.send_replace(());
    }
}

#[cfg(test)]
mod tests {
    use contract::event::v1::event_envelope::Payload;
    use contract::event::v1::{CapacityReserved, EventEnvelope};
    use futures::FutureExt;
    use tokio::sync::broadcast::error::TryRecvError;

    use super::*;

    fn seoul() -> HospitalId {
        HospitalId::from_segment("seoul").unwrap()
    }

    fn reserved() -> EventEnvelope {
        let slot = "hospitals/seoul/slots/2027-01-04".to_owned();
        let payload = Payload::CapacityReserved(CapacityReserved { slot, ..CapacityReserved::default() });
        EventEnvelope { payload: Some(payload), ..EventEnvelope::default() }
    }

    fn at(source: &str, position: i64) -> Place {
        Place { source: source.into(), position }
    }

    #[tokio::test]
    async fn events_are_wanted_as_long_as_somebody_watches() {
        let board = Board::default();
        assert!(board.wanted().now_or_never().is_none());
        let (first, second) = (board.watch(&[seoul()]), board.watch(&[seoul()]));
        board.wanted().await;
        drop(first);
        assert!(board.unwanted().now_or_never().is_none());
        drop(second);
        board.unwanted().await;
        assert!(board.state().watched.is_empty());
    }

    #[tokio::test]
    async fn a_stream_begins_where_the_reader_is_or_waits_for_it_there() {
        let board = Board::default();
        assert!(board.place(None).now_or_never().is_none(), "nobody reads yet");
        board.begin("log", 10);
        assert_eq!(board.place(None).await.0.position, 10);
        let further = at("log", 12);
        assert!(board.place(Some(&further)).now_or_never().is_none());
        board.take(12, &[reserved()]);
        assert_eq!(board.place(Some(&further)).await.0.position, 12);
        // this one is refused, so there is no need to wait
        assert_eq!(board.place(Some(&at("another log", 99))).await.0.position, 12);
        // where it goes on is not known before it does
        board.end();
        assert!(board.place(None).now_or_never().is_none());
        board.begin("log", 12);
        assert_eq!(board.since(&at("log", 11), &[seoul()]).map(|(_, changes)| changes.slots.len()), Some(1));
        board.end();
        board.begin("log", 5_000);
        assert_eq!(board.place(None).await.0.position, 5_000);
    }

    #[tokio::test]
    async fn what_cannot_be_known_is_not_resumed() {
        let board = Board::default();
        board.begin("log", 10);
        let (_, mut rounds) = board.place(None).await;
        board.take(11, &[reserved()]);
        let known = |place: Place| board.since(&place, &[seoul()]).map(|(_, changes)| changes.slots.len());
        assert_eq!([known(at("log", 9)), known(at("log", 10)), known(at("log", 11))], [None, Some(1), Some(0)]);
        assert_eq!(known(at("another log", 11)), None);
        board.begin("another log", 10);
        assert_eq!(rounds.try_recv().unwrap_err(), TryRecvError::Closed, "the streams of the log before end");
        assert_eq!((known(at("log", 11)), known(at("another log", 10))), (None, Some(0)));
    }
}
