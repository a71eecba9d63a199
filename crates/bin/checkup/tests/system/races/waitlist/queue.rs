//! A slot that people wait for, and the moments at which they and others act.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::capacity::v1::CapacityClaim;
use contract::screening::v1::Screening;
use contract::screening::v1::screening::State;
use fault::Reason;
use testkit::{Checkup, Desk, Party, gather, refused, rush, wait_limit};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::turned_away;
use crate::races::{all_screenings, claims};

/// The moments of a release at which others act: at once, when Hospital has promoted somebody and Screening need not
/// know of it yet, and when Screening knows of a promotion and others may be under way.
const MOMENTS: usize = 3;

/// A slot without a free place, who holds its places, and who waits for one in the order of the tickets.
pub(super) struct Queue {
    pub(super) slot: String,
    pub(super) holders: Vec<(Party, Screening)>,
    pub(super) waiters: Vec<(Party, Screening)>,
}

impl Queue {
    /// Opens a hospital with one slot, which these many customers book and these many wait for.
    pub(super) async fn set(checkup: &Checkup, id: &str, places: usize, waiting: usize) -> Self {
        let capacity = i32::try_from(places).expect("a capacity");
        let slot = Desk::of(&checkup.admin().await).open(id, &[7], capacity).await.remove(0);
        Self::on(checkup, slot, id, places, waiting).await
    }

    /// Fills a slot that there is. The customers are `{id}-holder-0` and so on, and `{id}-waiter-0` and so on.
    pub(super) async fn on(checkup: &Checkup, slot: String, id: &str, places: usize, waiting: usize) -> Self {
        let holding = format!("{id}-holder");
        let holders = checkup.served().customers(&holding, places, 4).await;
        let booked = rush(places, |i| {
            let (desk, slot, customer) = (Desk::of(&holders[i]), slot.clone(), format!("{holding}-{i}"));
            async move { desk.book(&customer, &slot, "").await.expect("a place") }
        })
        .await;
        let holders = holders.into_iter().zip(booked).collect();
        let mut queue = Self { slot, holders, waiters: Vec::new() };
        queue.wait(checkup, &format!("{id}-waiter"), waiting).await;
        queue
    }

    /// Lets more customers join one after the other, so that their order is known.
    pub(super) async fn wait(&mut self, checkup: &Checkup, prefix: &str, count: usize) {
        let parties = checkup.served().customers(prefix, count, 4).await;
        for (i, party) in parties.into_iter().enumerate() {
            let joined = Desk::of(&party).join(&format!("{prefix}-{i}"), &self.slot, "").await.expect("a ticket");
            assert_eq!((joined.state(), joined.version), (State::Waitlisted, 1));
            let position = joined.waitlist_position;
            self.waiters.push((party, joined));
            assert_eq!(usize::try_from(position), Ok(self.waiters.len()), "behind all others");
        }
    }

    /// The booking of a holder, with its customer's desk.
    pub(super) fn holder(&self, i: usize) -> (Desk, String) {
        let (party, booked) = &self.holders[i];
        (Desk::of(party), booked.name.clone())
    }

    /// A holder cancels.
    pub(super) async fn cancel(&self, i: usize) {
        let (desk, name) = self.holder(i);
        desk.cancel(&name, "").await.expect("cancelled");
    }

    /// The names of who waits, in the order of the tickets.
    pub(super) fn names(&self) -> Vec<&str> {
        self.waiters.iter().map(|(_, joined)| joined.name.as_str()).collect()
    }

    /// All holders cancel, and others act, each at one of the [`MOMENTS`] in turn. Returns what they were answered.
    pub(super) async fn released_while<T, F>(
        &self,
        auditor: &Party,
        others: usize,
        other: impl Fn(usize) -> F,
    ) -> Vec<T>
    where
        F: Future<Output = T> + Send + 'static,
        T: Send + 'static,
    {
        let count = self.holders.len();
        let (follower, moment) = self.follow(auditor);
        let answers = rush(count + others, |i| {
            let cancelling = (i < count).then(|| self.holder(i));
            let work = i.checked_sub(count).map(|i| (i % MOMENTS, other(i)));
            let mut moment = moment.clone();
            async move {
                if let Some((desk, name)) = cancelling {
                    desk.cancel(&name, "").await.expect("cancelled");
                }
                let (at, work) = work?;
                moment.wait_for(|now| *now >= at).await.expect("the moment comes");
                Some(work.await)
            }
        })
        .await;
        follower.abort();
        answers.into_iter().flatten().collect()
    }

    /// Follows the promotions until the last of the [`MOMENTS`]. One that does not come is over after a while, so that
    /// what is wrong shows.
    fn follow(&self, auditor: &Party) -> (JoinHandle<()>, watch::Receiver<usize>) {
        let claim = |(_, booked): &(Party, Screening)| format!("{}.1", booked.name.trim_start_matches("screenings/"));
        let (auditor, slot) = (auditor.clone(), self.slot.clone());
        let holding: BTreeSet<String> = self.holders.iter().map(claim).collect();
        let (told, moment) = watch::channel(0);
        let follower = tokio::spawn(async move {
            let end = Instant::now() + wait_limit();
            let is_held = |claim: &CapacityClaim| holding.contains(&claim.claim_id);
            while claims(&auditor, &slot, "ACTIVE").await.iter().all(is_held) && Instant::now() < end {}
            told.send_replace(1);
            let filter = format!("slot=\"{slot}\" AND state=CONFIRMED");
            let is_old = |row: &Screening| row.version == 1;
            while all_screenings(&auditor, &filter).await.iter().all(is_old) && Instant::now() < end {}
            told.send_replace(2);
            told.closed().await;
        });
        (follower, moment)
    }

    /// All holders cancel, one after the other, and `other` acts once so many of them were answered.
    pub(super) async fn released_until<F>(&self, answered: usize, other: impl Fn() -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (told, counted) = watch::channel(0);
        let cancels: Vec<(Desk, String)> = (0..self.holders.len()).map(|i| self.holder(i)).collect();
        let cancelling = tokio::spawn(async move {
            for (desk, name) in cancels {
                if let Err(status) = desk.cancel(&name, "").await {
                    let refusal = refused(Err::<(), _>(status), Reason::ScreeningStateInvalid);
                    assert_eq!(refusal.value("state"), "FORCE_CANCELLED", "its hospital was first");
                }
                told.send_modify(|count| *count += 1);
            }
        });
        let (mut counted, work) = (counted, other());
        counted.wait_for(|count| *count >= answered).await.expect("the holders cancel");
        work.await;
        cancelling.await.expect("all have cancelled");
    }
}

/// Newcomers who do not wait and ask for a place again and again, until [`Press::end`].
pub(super) struct Press {
    stop: Arc<AtomicBool>,
    newcomers: Vec<JoinHandle<usize>>,
}

impl Press {
    /// Begins to ask on several connections.
    pub(super) async fn on(checkup: &Checkup, slot: &str) -> Self {
        const NEWCOMERS: usize = 6;
        let stop = Arc::new(AtomicBool::new(false));
        let parties = checkup.served().customers("pressing", NEWCOMERS, NEWCOMERS).await;
        let press = |(i, party): (usize, Party)| {
            let (stop, slot, customer) = (Arc::clone(&stop), slot.to_owned(), format!("pressing-{i}"));
            tokio::spawn(async move {
                let mut asked = 0;
                while !stop.load(Ordering::Relaxed) {
                    turned_away(Desk::of(&party).book(&customer, &slot, "").await, &slot);
                    asked += 1;
                }
                asked
            })
        };
        let newcomers = parties.into_iter().enumerate().map(press).collect();
        Self { stop, newcomers }
    }

    /// Asserts that none of them ever got a place.
    pub(super) async fn end(self) {
        self.stop.store(true, Ordering::Relaxed);
        let asked: usize = gather(self.newcomers).await.into_iter().sum();
        println!("newcomers were turned away {asked} times");
    }
}
