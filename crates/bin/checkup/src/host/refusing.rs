//! A process whose service has lost its own past. It serves nothing and says why, until the past is recovered or the
//! process is stopped.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::time::{Duration, Instant};

use bus::jetstream::JetStream;
use runtime::Process;
use runtime::clock::Clock;
use runtime::identity::Verifier;
use runtime::lifecycle::{Drain, drain_pair};
use runtime::server::Server;
use runtime::tasks::Kind;
use store::Database;

use crate::assembly::Transport;
use crate::config::Settings;
use crate::exit::{Failure, chain};
use crate::past::{self, Lost};
use crate::service::Service;
use crate::terminal;

/// How often to check whether a past is whole again, or whether the broker can be asked.
const PAST_CHECK_INTERVAL: Duration = Duration::from_secs(2);

/// What is needed to check for a lost past.
pub(super) struct Watch<'a> {
    pub(super) databases: &'a BTreeMap<Service, Database>,
    pub(super) transport: &'a Transport,
    pub(super) data: Option<&'a Path>,
}

impl Watch<'_> {
    /// The pasts that are lost. `None` if the broker does not answer.
    async fn check(&self) -> Result<Option<Vec<Lost>>, Failure> {
        let begun = Instant::now();
        let lost = self.compare().await;
        tracing::debug!(took = ?begun.elapsed(), "compared what others have read with the logs");
        lost
    }

    async fn compare(&self) -> Result<Option<Vec<Lost>>, Failure> {
        match self.transport {
            Transport::Tail => past::of_directory(self.databases, self.data).await.map(Some),
            Transport::Broker(broker) => match past::of_stream(self.databases, broker).await {
                Ok(lost) => Ok(Some(lost)),
                Err(error) => {
                    tracing::warn!(why = chain(&error), "cannot look for a lost past yet");
                    Ok(None)
                }
            },
        }
    }

    fn sentence(&self, lost: &[Lost]) -> String {
        past::sentence(lost, if matches!(self.transport, Transport::Tail) { past::OF_FILES } else { past::OF_MESH })
    }

    /// Waits until nothing is lost any more. Never ends if this process holds the files that have to be recovered.
    async fn whole(&self) {
        loop {
            tokio::time::sleep(PAST_CHECK_INTERVAL).await;
            if matches!(self.transport, Transport::Broker(_))
                && self.check().await.is_ok_and(|lost| lost == Some(Vec::new()))
            {
                return;
            }
        }
    }
}

/// The door of a process that serves nothing.
pub(super) struct Refusing<'a> {
    pub(super) listener: &'a TcpListener,
    pub(super) admin: SocketAddr,
    pub(super) settings: &'a Settings,
    pub(super) verifier: &'a Verifier,
}

impl Refusing<'_> {
    /// Returns true as soon as no service has lost its past, which is at once unless one has. Returns false if the
    /// process has to stop.
    pub(super) async fn until_whole(&self, watch: &Watch<'_>, process: &Process) -> Result<bool, Failure> {
        let Some(lost) = watch.check().await? else {
            // booking works without a broker; the check is made as soon as the broker answers
            if let Transport::Broker(broker) = watch.transport {
                let later = later(watch.databases.clone(), broker.clone(), process.drain.clone());
                process.tasks.spawn(Kind::Loop, "past", later);
            }
            return Ok(true);
        };
        if lost.is_empty() {
            return Ok(true);
        }
        let why = watch.sentence(&lost);
        tracing::error!(why, "nothing is served");
        let failed = |error: &dyn std::error::Error| Failure::failed(format!("cannot serve: {}", chain(error)));
        let addr = self.listener.local_addr().map_err(|error| failed(&error))?;
        let admin = self.admin;
        terminal::print_if_possible(&format!(
            "checkup does not serve on {addr} because {why}\nadmin on http://{admin}\n"
        ));
        let held = process.readiness.refuse(why);
        let server = Server::new(self.settings.server.clone(), self.verifier.clone(), Clock::system());
        let server = server.ready_when(process.readiness.clone());
        let listener = self.listener.try_clone().and_then(tokio::net::TcpListener::from_std);
        let (trigger, ended) = drain_pair();
        let mut serving = Box::pin(server.run(listener.map_err(|error| failed(&error))?, ended));
        let whole = tokio::select! {
            served = &mut serving => return served.map(|()| false).map_err(|error| failed(&error)),
            () = process.drain.requested() => false,
            () = watch.whole() => true,
        };
        trigger.request();
        serving.await.map_err(|error| failed(&error))?;
        if whole {
            tracing::info!("nothing is lost any more; going on");
            held.release();
        }
        Ok(whole)
    }
}

/// Checks once the broker answers. If a past is lost then, the process stops, and its next start finds the loss first.
async fn later(databases: BTreeMap<Service, Database>, broker: JetStream, drain: Drain) -> Result<(), String> {
    loop {
        tokio::time::sleep(PAST_CHECK_INTERVAL).await;
        match past::of_stream(&databases, &broker).await {
            Ok(lost) if lost.is_empty() => break,
            Ok(lost) => return Err(past::sentence(&lost, past::OF_MESH)),
            Err(_) => {}
        }
    }
    drop(databases);
    drain.requested().await;
    Ok(())
}
