//! Builds any subset of the services into one process and connects them by calls and events.
//!
//! It knows the services and what each needs, not what any of them does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bus::jetstream::JetStream;
use bus::tail::{Log, Tailer};
use bus::{Follow, Publish, Subscribe};
use mypage::Views;
use relay::{Consumer, Follower, OutboxLog, Retention, Versions, Witness};
use runtime::Process;
use runtime::clock::Clock;
use runtime::identity::Verifier;
use runtime::lifecycle::Latch;
use runtime::server::Server;
use runtime::tasks::Kind;
use store::inbox;
use store::{Database, Location};

use crate::config::Settings;
use crate::exit::{Failure, chain};
use crate::identity::OwnTokens;
use crate::rebuild::{Builder, Feed, Keeper};
use crate::service::{Built, Deps, Service};
use crate::view_files::ViewFiles;

/// The shortest retention with which a Marketing that begins late ends as the others: it looks back 7 days.
const SHORTEST_RETENTION: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// What the services of a process share.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The configuration of the process.
    pub settings: &'a Settings,
    /// How events travel between services.
    pub transport: &'a Transport,
    /// The tokens that services identify themselves with.
    pub tokens: &'a OwnTokens,
    /// The process that the services run in.
    pub process: &'a Process,
}

/// How events travel between services.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Consumers read the outboxes of the producers in this process.
    Tail,
    /// Events travel through a broker, between processes.
    Broker(JetStream),
}

/// The services of a process.
#[derive(Debug, Default)]
pub struct Assembly {
    databases: Vec<(Service, Database)>,
    /// The services that publish events, with the versions of what these report.
    versions: Vec<(Service, Arc<dyn Versions>)>,
    consumers: Vec<(Service, Consumer)>,
    followers: Vec<Follower>,
    witnesses: Vec<Witness>,
    view: Option<Kept>,
}

/// The view of my-page. A rebuild replaces its database. It publishes no events, so nobody reads its outbox.
struct Kept {
    views: Views,
    fed: Option<(Feed, Arc<dyn Subscribe>)>,
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kept").field("views", &self.views).finish_non_exhaustive()
    }
}

impl Assembly {
    /// Builds each service on its own database, connects the services, and adds them to a server. The server answers
    /// calls once the process is ready.
    ///
    /// # Errors
    /// Fails if a database does not answer.
    pub async fn build(
        databases: BTreeMap<Service, Database>,
        parts: &Parts<'_>,
        verifier: Verifier,
    ) -> Result<(Self, Server), Failure> {
        let latch = parts.process.readiness.latch("services");
        // tokens are made by the machine's clock, so they are checked without the configured offset
        let mut server = Server::new(parts.settings.server.clone(), verifier, Clock::system());
        server = server.ready_when(parts.process.readiness.clone());
        let mut assembly = Self::default();
        let mut places = None;
        for (service, database) in databases {
            let (places, server) = (&mut places, &mut server);
            let hospital = parts.settings.hospitals.get(&service).map_or(&[][..], Vec::as_slice);
            let (process, token) = (parts.process.clone(), parts.tokens.of(service));
            let deps = Deps { database, process, token, hospital, places, server };
            assembly.add(service, parts.settings.slices[&service].build(deps));
        }
        assembly.join(parts).await?;
        latch.release();
        Ok((assembly, server))
    }

    fn add(&mut self, service: Service, built: Built) {
        let Built { database, consumers, versions, follower, views } = built;
        self.followers.extend(follower);
        match views {
            Some(views) => self.view = Some(Kept { views, fed: None }),
            None => self.databases.push((service, database)),
        }
        self.versions.extend(versions.map(|versions| (service, versions)));
        self.consumers.extend(consumers.into_iter().map(|consumer| (service, consumer)));
    }

    /// Connects the services' outboxes and consumers.
    async fn join(&mut self, parts: &Parts<'_>) -> Result<(), Failure> {
        match parts.transport {
            Transport::Tail => self.join_here(parts),
            Transport::Broker(broker) => {
                self.publish(parts, broker);
                self.consume(parts, broker).await?;
            }
        }
        self.retain(parts);
        Ok(())
    }

    /// Removes the old events of every outbox, and repeats those that the state follows from.
    fn retain(&mut self, parts: &Parts<'_>) {
        let period = parts.settings.retention;
        if !period.is_zero() && period < SHORTEST_RETENTION {
            let kept = humantime::format_duration(period).to_string();
            tracing::warn!(
                kept,
                "events.retention is below 8 days: a Marketing that begins later shows too little demand"
            );
        }
        let Process { clock, tasks, drain, .. } = parts.process;
        for (service, versions) in std::mem::take(&mut self.versions) {
            let Some((_, database)) = self.databases.iter().find(|(other, _)| *other == service) else { continue };
            let retention = Retention {
                service: service.name(),
                database: database.clone(),
                versions,
                period,
                published: matches!(parts.transport, Transport::Broker(_)),
                clock: *clock,
            };
            tasks.spawn(Kind::Loop, "retention", retention.run(drain.clone()));
        }
    }

    /// Connects every outbox here with every consumer here. A consumer that is new to its database starts with the
    /// first event.
    fn join_here(&mut self, parts: &Parts<'_>) {
        let logs = self
            .databases
            .iter()
            .map(|(service, database)| Arc::new(OutboxLog::new(service.name(), database.clone())) as Arc<dyn Log>);
        let tailer = Tailer::new(logs.collect());
        for follower in std::mem::take(&mut self.followers) {
            let own = tailer.only(follower.producer);
            follow(parts, follower, Arc::new(own));
        }
        let transport: Arc<dyn Subscribe> = Arc::new(tailer);
        for (service, consumer) in std::mem::take(&mut self.consumers) {
            self.start(parts, service, consumer, &transport, None);
        }
        self.bear_witness(parts);
    }

    /// Lets Hospital and Screening store how far each other's log has come, because other services act on these two
    /// logs. If one of the two files is replaced by an older one, that is noticed, whatever other services run or have
    /// run here.
    fn bear_witness(&mut self, parts: &Parts<'_>) {
        let of = |wanted| self.databases.iter().find(|(service, _)| *service == wanted).map(|(_, database)| database);
        let pairs = [(Service::Hospital, Service::Screening), (Service::Screening, Service::Hospital)];
        let witnesses = pairs.into_iter().filter_map(|(service, by)| {
            let (log, keeper) = (of(service)?.clone(), of(by)?.clone());
            Some(Witness { source: service.name(), log, keeper })
        });
        self.witnesses = witnesses.collect();
        for witness in &self.witnesses {
            let running = witness.clone().run(parts.process.drain.clone());
            parts.process.tasks.spawn(Kind::Loop, "witness", running);
        }
    }

    /// Publishes every outbox to the broker.
    fn publish(&self, parts: &Parts<'_>, broker: &JetStream) {
        let Process { clock, tasks, drain, .. } = parts.process;
        let transport: Arc<dyn Publish> = Arc::new(broker.clone());
        for (service, database) in &self.databases {
            let Some(task) = service.row().relay else { continue };
            let (name, options, transport) = (service.name(), parts.settings.publish, Arc::clone(&transport));
            let publishing = relay::publish(name, database.clone(), transport, options, *clock, drain.clone());
            tasks.spawn(Kind::Loop, task, publishing);
        }
    }

    /// Subscribes every consumer to the broker. A consumer with a SQLite file reads every event itself, in order. The
    /// replicas on a shared database share the work. A new file is empty, so its service is not ready before it has
    /// caught up.
    async fn consume(&mut self, parts: &Parts<'_>, broker: &JetStream) -> Result<(), Failure> {
        let shared: Arc<dyn Subscribe> = Arc::new(broker.durable());
        let alone: Arc<dyn Subscribe> = Arc::new(broker.ordered());
        for follower in std::mem::take(&mut self.followers) {
            follow(parts, follower, Arc::new(broker.ordered()));
        }
        for (service, consumer) in std::mem::take(&mut self.consumers) {
            match consumer.database.location() {
                Location::Postgres(_) => self.start(parts, service, consumer, &shared, None),
                Location::Sqlite(_) => {
                    let cursors = inbox::cursors(consumer.database.reader(), consumer.name).await;
                    let cursors = cursors.map_err(|error| Failure::failed(format!("{service}: {error}")))?;
                    let latch = cursors.is_empty().then(|| parts.process.readiness.latch(consumer.name));
                    self.start(parts, service, consumer, &alone, latch);
                }
            }
        }
        Ok(())
    }

    /// Starts the loop that gives a consumer its events. The one of my-page can be stopped by itself.
    fn start(
        &mut self,
        parts: &Parts<'_>,
        service: Service,
        consumer: Consumer,
        transport: &Arc<dyn Subscribe>,
        caught_up: Option<Latch>,
    ) {
        let (process, options, travelled) = (parts.process, parts.settings.consume, Arc::clone(transport));
        if let (Service::MyPage, Some(view)) = (service, &mut self.view) {
            view.fed = Some((Feed::start(process, consumer, travelled, options, caught_up), Arc::clone(transport)));
            return;
        }
        let name = consumer.name;
        let consuming = relay::consume(consumer, travelled, options, process.clock, process.drain.clone(), caught_up);
        process.tasks.spawn(Kind::Loop, name, consuming);
    }

    /// The part that answers requests to rebuild the view of my-page in this data directory.
    pub fn keeper(&mut self, parts: &Parts<'_>, directory: &Path) -> Keeper {
        let files = ViewFiles::of(directory);
        let here = files.current().map(|current| Location::Sqlite(files.path(current)));
        let builder = match &mut self.view {
            None => Err("my-page does not run in that process".to_owned()),
            Some(view) if here.is_ok_and(|here| here == *view.views.database().location()) => {
                let fed = view.fed.take().ok_or_else(|| "nothing brings it events".to_owned());
                let (views, options, process) = (view.views.clone(), parts.settings.consume, parts.process.clone());
                fed.map(|(feed, transport)| Builder { views, feed: Some(feed), transport, options, process })
            }
            Some(view) => Err(format!(
                "my-page has its view in {}; only one in the data directory can be built anew",
                view.views.database().location()
            )),
        };
        Keeper::new(files, builder)
    }

    /// Drops everything that keeps background work alive, except the databases, which that work needs until it ends.
    #[must_use]
    pub fn retire(self) -> Databases {
        let view = self.view.map(|view| view.views.database());
        let all = self.databases.into_iter().map(|(_, database)| database).chain(view).collect();
        Databases { all, witnesses: self.witnesses }
    }
}

/// Starts the loop that gives a follower its events.
fn follow(parts: &Parts<'_>, follower: Follower, transport: Arc<dyn Follow>) {
    let following = relay::follow(follower, transport, parts.process.drain.clone());
    parts.process.tasks.spawn(Kind::Loop, "follow", following);
}

/// The databases of services that have stopped serving.
#[derive(Debug)]
pub struct Databases {
    all: Vec<Database>,
    witnesses: Vec<Witness>,
}

impl Databases {
    /// Closes the databases. Nothing may use them afterwards.
    pub async fn close(self) {
        for witness in self.witnesses {
            witness.keep_last().await;
        }
        for database in self.all {
            database.close().await;
        }
    }
}

/// Opens the databases of these services.
///
/// # Errors
/// Fails if one of them cannot be opened.
pub async fn open_all(locations: &BTreeMap<Service, Location>) -> Result<BTreeMap<Service, Database>, Failure> {
    let mut databases = BTreeMap::new();
    for (service, location) in locations {
        let opened = (service.row().open)(location).await;
        let opened = opened.map_err(|error| {
            let help = match location {
                _ if error.is_without_room() => "; make room there and start again, nothing is lost",
                Location::Sqlite(_) => "; restore it, or choose another place for it",
                Location::Postgres(_) => "",
            };
            Failure::failed(format!("{}{help}", chain(&error)))
        })?;
        databases.insert(*service, opened);
    }
    Ok(databases)
}

/// Closes databases. Nothing may use them afterwards.
pub async fn close_all(databases: BTreeMap<Service, Database>) {
    for database in databases.into_values() {
        database.close().await;
    }
}
