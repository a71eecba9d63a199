//! The fate of commits: which of them are lost, and what gets out before them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bus::Message;
use store::{Nemesis, Stage, Transaction, Verdict, outbox};

use crate::chance::Chance;
use crate::transport::Broker;

/// What happens to the commits of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// One in so many is lost, or done and reported as failed.
    Doubtful(u64),
    /// All are lost.
    Lost,
    /// Storage fails at one step of a transaction in so many.
    Failing(u64),
}

/// The hosts whose commits go wrong.
#[derive(Debug, Default)]
pub(crate) struct Fates(Mutex<BTreeMap<&'static str, Fate>>);

impl Fates {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Fate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This is what happens to the commits of these hosts.
    pub(crate) fn set(&self, hosts: &[&'static str], fate: Fate) {
        self.lock().extend(hosts.iter().map(|host| (*host, fate)));
    }

    /// Nothing happens to the commits of these hosts.
    pub(crate) fn clear(&self, hosts: &[&'static str]) {
        self.lock().retain(|host, _| !hosts.contains(host));
    }
}

/// Decides over the commits of one host by the simulation's own chance.
pub(crate) struct Commits {
    host: &'static str,
    fates: Arc<Fates>,
    chance: Mutex<Chance>,
    /// Where events go that are not committed yet: a planted bug.
    leak: Option<Broker>,
    /// Whether connections are used again on which storage failed: a planted bug.
    trusting: bool,
}

impl Commits {
    pub(crate) fn of(host: &'static str, fates: &Arc<Fates>, leak: Option<Broker>, trusting: bool) -> Self {
        let chance = Chance::new(u64::from_be_bytes(runtime::entropy::bytes()));
        Self { host, fates: Arc::clone(fates), chance: Mutex::new(chance), leak, trusting }
    }
}

/// Events of a transaction that are looked at; more than one ever writes.
const MAX_EVENTS: u64 = 1_000;

#[async_trait]
impl Nemesis for Commits {
    async fn before_commit(&self, transaction: &Transaction) {
        let Some(broker) = &self.leak else { return };
        // those of earlier transactions that are not published yet go along: the broker knows them by their ids later
        let rows = outbox::unpublished(transaction, MAX_EVENTS).await.unwrap_or_default();
        for row in rows {
            broker.leak(self.host, &row.event_id.to_string(), &Message { subject: row.subject, payload: row.payload });
        }
    }

    fn at_commit(&self) -> Verdict {
        let fate = self.fates.lock().get(self.host).copied();
        let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
        match fate {
            Some(Fate::Lost) => Verdict::Lose,
            Some(Fate::Doubtful(one_in)) => match (chance.one_in(one_in), chance.one_in(2)) {
                (true, true) => Verdict::CommitAndFail,
                (true, false) => Verdict::Lose,
                (false, _) => Verdict::Commit,
            },
            Some(Fate::Failing(_)) | None => Verdict::Commit,
        }
    }

    fn storage_fails(&self, _: Stage) -> bool {
        let Some(Fate::Failing(one_in)) = self.fates.lock().get(self.host).copied() else { return false };
        self.chance.lock().unwrap_or_else(PoisonError::into_inner).one_in(one_in)
    }

    fn trusts_connections(&self) -> bool {
        self.trusting
    }
}
