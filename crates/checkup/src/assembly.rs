//! Puts services together into one process: any subset, joined by calls over loopback and by events from outbox to inbox.
//!
//! It knows which services there are and what each needs, not what any of them does.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use bus::Subscribe;
use bus::tail::{Log, Tailer};
use relay::{Consumer, OutboxLog};
use runtime::Process;
use runtime::client::{ClientOptions, connect};
use runtime::clock::Clock;
use runtime::identity::{Signer, TokenSource, Verifier};
use runtime::server::Server;
use runtime::tasks::Kind;
use store::Database;
use tonic::transport::{Channel, Uri};

use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::exit::{Failure, chain};
use crate::service::Service;

/// What services are put together from.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What is configured.
    pub settings: &'a Settings,
    /// Where the data is.
    pub data: &'a DataDir,
    /// Makes the services' own tokens.
    pub signer: &'a Signer,
    /// What every component is given.
    pub process: &'a Process,
    /// Where the process will listen.
    pub addr: SocketAddr,
}

/// The services of a process.
#[derive(Debug, Default)]
pub struct Assembly {
    databases: Vec<(Service, Database)>,
    consumers: Vec<Consumer>,
}

impl Assembly {
    /// Builds these services, each with its own database, joins them, and adds them to a server that answers calls once all of
    /// that is done.
    ///
    /// # Errors
    /// Where a database cannot be opened, or an address is none.
    pub async fn build(
        services: &BTreeSet<Service>,
        parts: &Parts<'_>,
        verifier: Verifier,
    ) -> Result<(Self, Server), Failure> {
        let latch = parts.process.readiness.latch("services");
        // tokens are minted by processes that keep to the machine's clock
        let mut server = Server::new(parts.settings.server.clone(), verifier, Clock::system());
        server = server.ready_when(parts.process.readiness.clone());
        let mut assembly = Self::default();
        for service in services {
            assembly.add(*service, parts, &mut server).await?;
        }
        assembly.join(parts);
        latch.release();
        Ok((assembly, server))
    }

    async fn add(&mut self, service: Service, parts: &Parts<'_>, server: &mut Server) -> Result<(), Failure> {
        let Parts { settings, data, process, .. } = parts;
        let (location, process) = (data.database(service), (*process).clone());
        let token = || TokenSource::minted(parts.signer.clone(), service.name());
        let cannot_open = |error: store::Error| {
            Failure::failed(format!("{}; restore it, or choose another directory with --data-dir", chain(&error)))
        };
        let (database, consumers) = match service {
            Service::Hospital => {
                let deps = hospital::Deps { location, process };
                let built = hospital::build(settings.hospital.clone(), deps, server).await.map_err(cannot_open)?;
                (built.database, built.consumers)
            }
            Service::Screening => {
                let hospital = hospital_channel(settings.screening_hospital.as_ref(), parts.addr)?;
                let deps = screening::Deps { location, process, hospital, token: token() };
                let built = screening::build(settings.screening.clone(), deps, server).await.map_err(cannot_open)?;
                (built.database, built.consumers)
            }
            Service::Reservation => {
                let deps = reservation::Deps { location, process };
                let built = reservation::build(settings.reservation, deps, server).await.map_err(cannot_open)?;
                (built.database, built.consumers)
            }
            Service::MyPage => {
                let deps = mypage::Deps { location, process };
                let built = mypage::build(settings.mypage, deps, server).await.map_err(cannot_open)?;
                (built.database, built.consumers)
            }
            Service::Marketing => {
                let hospital = hospital_channel(settings.marketing_hospital.as_ref(), parts.addr)?;
                let deps = marketing::Deps { location, process, hospital, token: token() };
                let built = marketing::build(settings.marketing, deps, server).await.map_err(cannot_open)?;
                (built.database, built.consumers)
            }
        };
        self.databases.push((service, database));
        self.consumers.extend(consumers);
        Ok(())
    }

    /// Brings the events of every service to the consumers of every other. A consumer that is new to its database starts with the
    /// first event there is.
    fn join(&mut self, parts: &Parts<'_>) {
        let logs = self
            .databases
            .iter()
            .map(|(service, database)| Arc::new(OutboxLog::new(service.name(), database.clone())) as Arc<dyn Log>);
        let road: Arc<dyn Subscribe> = Arc::new(Tailer::new(logs.collect()));
        let Process { clock, tasks, drain, .. } = parts.process;
        for consumer in self.consumers.drain(..) {
            let (name, options) = (consumer.name, parts.settings.relay);
            tasks.spawn(Kind::Loop, name, relay::consume(consumer, Arc::clone(&road), options, *clock, drain.clone()));
        }
    }

    /// Closes the databases; nothing may use them any more.
    pub async fn close(self) {
        for (_, database) in self.databases {
            database.close().await;
        }
    }
}

/// A connection to Hospital: where the configuration says, otherwise in this process.
fn hospital_channel(configured: Option<&Uri>, addr: SocketAddr) -> Result<Channel, Failure> {
    let uri = match configured {
        Some(uri) => uri.clone(),
        None => format!("http://{addr}").parse().map_err(|_| Failure::failed(format!("{addr} makes no address")))?,
    };
    Ok(connect(uri, ClientOptions::default()))
}
