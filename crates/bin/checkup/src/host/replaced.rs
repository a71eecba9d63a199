//! Checks a database that was replaced while its service runs, before anything is read from it or written to it.

use std::collections::BTreeMap;
use std::time::Duration;

use bus::jetstream::JetStream;
use runtime::Process;
use runtime::tasks::Kind;
use store::{Database, Incarnation, Location};
use tokio::time::sleep;

use crate::assembly::Transport;
use crate::exit::chain;
use crate::past::{self, NotAsked};
use crate::service::Service;

/// The pause before a database or a broker that did not answer is asked again.
const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// The databases that were whole at the start, and their incarnations at that time.
pub(super) struct Known(BTreeMap<Service, Option<Incarnation>>);

impl Known {
    pub(super) fn of(databases: &BTreeMap<Service, Database>) -> Self {
        Self(databases.iter().map(|(service, database)| (*service, database.incarnation())).collect())
    }

    /// Starts a task per PostgreSQL database that checks it whenever it may have been replaced. If it has lost its
    /// past, the process ends. The next start finds the same loss and waits.
    pub(super) fn watch(self, databases: &BTreeMap<Service, Database>, transport: &Transport, process: &Process) {
        let Transport::Broker(broker) = transport else { return };
        for (service, known) in self.0 {
            let Some(database) = databases.get(&service) else { continue };
            if matches!(database.location(), Location::Postgres(_)) {
                let (guard, drain) =
                    (Guard { service, database: database.clone(), broker: broker.clone() }, process.drain.clone());
                process.tasks.spawn(Kind::Loop, "past", async move {
                    tokio::select! {
                        biased;
                        () = drain.requested() => Ok(()),
                        lost = guard.run(known) => Err(lost),
                    }
                });
            }
        }
    }
}

/// Checks one database.
struct Guard {
    service: Service,
    database: Database,
    broker: JetStream,
}

impl Guard {
    /// Runs until something is lost. Returns a sentence about it.
    async fn run(self, known: Option<Incarnation>) -> String {
        let mut doubts = self.database.doubts();
        let mut certain = self.database.incarnation() == known;
        loop {
            if !certain {
                match self.look().await {
                    Ok(asked) => certain = asked,
                    Err(lost) => return lost,
                }
            }
            tokio::select! {
                doubt = doubts.changed() => {
                    if doubt.is_err() {
                        return format!("nobody uses the database of {} any more", self.service);
                    }
                    certain = false;
                }
                () = sleep(BETWEEN_TRIES), if !certain => {}
            }
        }
    }

    /// Compares the database with the stream, through new connections: the service's own connections wait for the
    /// result. Returns false if the database or the broker does not answer, so that the check is repeated. Without a
    /// broker, booking goes on.
    async fn look(&self) -> Result<bool, String> {
        let location = self.database.location();
        let fresh = match (self.service.row().open)(location).await {
            Ok(fresh) => fresh,
            Err(error) => {
                tracing::debug!(service = %self.service, why = chain(&error), "a database cannot be looked at yet");
                return Ok(false);
            }
        };
        let asked = past::of_stream(&BTreeMap::from([(self.service, fresh.clone())]), &self.broker).await;
        let found = fresh.incarnation();
        fresh.close().await;
        match (asked, found) {
            (Ok(lost), _) if !lost.is_empty() => Err(past::sentence(&lost, past::OF_MESH)),
            (Ok(_), Some(found)) => {
                tracing::info!(service = %self.service, "the database was away, and has everything that it had");
                self.database.trust(found);
                Ok(true)
            }
            (Err(NotAsked::Broker(error)), Some(found)) => {
                tracing::warn!(service = %self.service, why = chain(&error), "nobody says whether a database went back");
                self.database.trust(found);
                Ok(false)
            }
            (Ok(_) | Err(_), _) => Ok(false),
        }
    }
}
