//! Builds any subset of the services into one process and connects them by calls and events.
//!
//! It knows the services and what each needs, not what any of them does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bus::jetstream::JetStream;
use bus::tail::{Log, Tailer};
use bus::{Publish, Subscribe};
use contract::capacity::v1::capacity_service_server::CapacityService;
use domain::access::Caller;
use mypage::Views;
use relay::{Consumer, OutboxLog, Retention, Versions, Witness};
use runtime::Process;
use runtime::client::{ClientOptions, Replicas};
use runtime::clock::Clock;
use runtime::identity::Verifier;
use runtime::lifecycle::Latch;
use runtime::server::{InProcess, Server};
use runtime::tasks::Kind;
use store::inbox;
use store::{Database, Location};
use tonic::transport::Uri;

use crate::config::Settings;
use crate::exit::{Failure, chain};
use crate::identity::OwnTokens;
use crate::rebuild::{Builder, Feed, Keeper};
use crate::service::Service;
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
        // Hospital is added first: Screening calls it.
        let mut places = None;
        for (service, database) in databases {
            assembly.add(service, database, &mut places, parts, &mut server);
        }
        assembly.join(parts).await?;
        latch.release();
        Ok((assembly, server))
    }

    /// Adds a service. Hospital leaves its methods in `places`, and Screening takes them.
    fn add(
        &mut self,
        service: Service,
        database: Database,
        places: &mut Option<Arc<dyn CapacityService>>,
        parts: &Parts<'_>,
        server: &mut Server,
    ) {
        let Parts { settings, process, .. } = parts;
        let (process, location) = ((*process).clone(), database.location().clone());
        let token = || parts.tokens.of(service);
        let (database, consumers) = match service {
            Service::Hospital => {
                let built = hospital::build_on(settings.hospital.clone(), database, &process, server);
                *places = Some(built.places);
                self.versions.push((service, built.versions));
                (built.database, built.consumers)
            }
            Service::Screening => {
                let hospital = hospital(&settings.screening_hospital, server);
                let places = places.take().filter(|_| settings.screening_hospital.is_empty()).map(reserve_capacity);
                let deps = screening::Deps { location, process, hospital, places, token: token() };
                let rules = domain::screening::decide;
                let built = screening::build_on(settings.screening.clone(), database, rules, deps, server);
                self.versions.push((service, built.versions));
                (built.database, built.consumers)
            }
            Service::Reservation => {
                let built = reservation::build_on(settings.reservation, database, &process, server);
                self.versions.push((service, built.versions));
                (built.database, built.consumers)
            }
            Service::MyPage => {
                let built = mypage::build_on(settings.mypage, database, process, server);
                self.consumers.extend(built.consumers.into_iter().map(|consumer| (service, consumer)));
                self.view = Some(Kept { views: built.views, fed: None });
                return;
            }
            Service::Marketing => {
                let hospital = hospital(&settings.marketing_hospital, server);
                let deps = marketing::Deps { location, process, hospital, token: token() };
                let built = marketing::build_on(settings.marketing, database, deps, server);
                (built.database, built.consumers)
            }
        };
        self.databases.push((service, database));
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
        let transport: Arc<dyn Subscribe> = Arc::new(Tailer::new(logs.collect()));
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
        for (service, database) in self.databases.iter().filter(|(service, _)| service.publishes()) {
            let (name, options, transport) = (service.name(), parts.settings.publish, Arc::clone(&transport));
            let publishing = relay::publish(name, database.clone(), transport, options, *clock, drain.clone());
            tasks.spawn(Kind::Loop, publisher(*service), publishing);
        }
    }

    /// Subscribes every consumer to the broker. A consumer with a SQLite file reads every event itself, in order. The
    /// replicas on a shared database share the work. A new file is empty, so its service is not ready before it has
    /// caught up.
    async fn consume(&mut self, parts: &Parts<'_>, broker: &JetStream) -> Result<(), Failure> {
        let shared: Arc<dyn Subscribe> = Arc::new(broker.durable());
        let alone: Arc<dyn Subscribe> = Arc::new(broker.ordered());
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

/// The name of the task that publishes a service's events.
const fn publisher(service: Service) -> &'static str {
    match service {
        Service::Hospital => "hospital-relay",
        Service::Screening => "screening-relay",
        Service::Reservation => "reservation-relay",
        Service::MyPage => "mypage-relay",
        Service::Marketing => "marketing-relay",
    }
}

/// Hospital's method for Screening in the same process.
fn reserve_capacity(places: Arc<dyn CapacityService>) -> InProcess<dyn CapacityService> {
    let screening = Caller::Service(screening::NAME.to_owned());
    InProcess::new(places, screening, "checkup.capacity.v1.CapacityService/ReserveCapacity")
}

/// The replicas of Hospital: those of the configuration, or the one in this process if there are none.
fn hospital(configured: &[Uri], server: &Server) -> Replicas {
    if configured.is_empty() {
        return Replicas::here(server.local());
    }
    Replicas::connect(configured, ClientOptions::default())
}

/// Opens the databases of these services.
///
/// # Errors
/// Fails if one of them cannot be opened.
pub async fn open_all(locations: &BTreeMap<Service, Location>) -> Result<BTreeMap<Service, Database>, Failure> {
    let mut databases = BTreeMap::new();
    for (service, location) in locations {
        let opened = Box::pin(open(*service, location)).await;
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

/// Opens a service's database.
///
/// # Errors
/// Fails if it cannot be opened.
pub async fn open(service: Service, location: &Location) -> Result<Database, store::Error> {
    match service {
        Service::Hospital => Database::open::<hospital::Migrator>(location).await,
        Service::Screening => Database::open::<screening::Migrator>(location).await,
        Service::Reservation => Database::open::<reservation::Migrator>(location).await,
        Service::MyPage => Database::open::<mypage::Migrator>(location).await,
        Service::Marketing => Database::open::<marketing::Migrator>(location).await,
    }
}

/// Runs the migrations that a service's database still needs. Returns their names.
///
/// # Errors
/// Fails if the database cannot be reached, or a migration fails.
pub async fn migrate(service: Service, location: &Location) -> Result<Vec<String>, store::Error> {
    match service {
        Service::Hospital => Database::migrate::<hospital::Migrator>(location).await,
        Service::Screening => Database::migrate::<screening::Migrator>(location).await,
        Service::Reservation => Database::migrate::<reservation::Migrator>(location).await,
        Service::MyPage => Database::migrate::<mypage::Migrator>(location).await,
        Service::Marketing => Database::migrate::<marketing::Migrator>(location).await,
    }
}
