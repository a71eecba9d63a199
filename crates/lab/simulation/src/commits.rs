//! Faults of commits: which are lost, and which events a planted bug publishes before them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use bus::Message;
use store::{Connection, Nemesis, Stage, Verdict, outbox};

use crate::chance::Chance;
use crate::transport::Broker;

/// What happens to the commits of a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// One commit in this many goes wrong: it is lost, or committed and reported as failed.
    Doubtful(u64),
    /// All commits are lost.
    Lost,
    /// Storage fails at one in this many steps of transactions.
    Failing(u64),
}

/// The hosts whose commits go wrong.
#[derive(Debug, Default)]
pub(crate) struct Fates(Mutex<BTreeMap<&'static str, Fate>>);

impl Fates {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, Fate>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets what happens to the commits of these hosts.
    pub(crate) fn set(&self, hosts: &[&'static str], fate: Fate) {
        self.lock().extend(hosts.iter().map(|host| (*host, fate)));
    }

    /// Ends the faults of these hosts.
    pub(crate) fn clear(&self, hosts: &[&'static str]) {
        self.lock().retain(|host, _| !hosts.contains(host));
    }
}

/// Decides about the commits of one host with the random numbers of the simulation.
pub(crate) struct Commits {
    host: &'static str,
    fates: Arc<Fates>,
    chance: Mutex<Chance>,
    /// The broker that gets events before their commit: a planted bug.
    leak: Option<Broker>,
    /// Whether connections are used again after storage failed on them: a planted bug.
    trusting: bool,
}

impl Commits {
    pub(crate) fn of(host: &'static str, fates: &Arc<Fates>, leak: Option<Broker>, trusting: bool) -> Self {
        let chance = Chance::new(u64::from_be_bytes(runtime::entropy::bytes()));
        Self { host, fates: Arc::clone(fates), chance: Mutex::new(chance), leak, trusting }
    }
}

/// The most events of a transaction that are leaked: more than one ever writes.
const MAX_EVENTS: u64 = 1_000;

#[async_trait]
impl Nemesis for Commits {
    async fn before_commit(&self, transaction: &dyn Connection) {
        let Some(broker) = &self.leak else { return };
        // Includes unpublished events of earlier transactions. The broker recognises their ids when they are published.
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
