//! Puts services together into one process: any subset, joined by calls and by events from outbox to inbox.
//!
//! It knows which services there are and what each needs, not what any of them does.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bus::jetstream::JetStream;
use bus::tail::{Log, Tailer};
use bus::{Publish, Subscribe};
use mypage::Views;
use relay::{Consumer, OutboxLog, Witness};
use runtime::Process;
use runtime::client::{ClientOptions, Replicas};
use runtime::clock::Clock;
use runtime::identity::Verifier;
use runtime::lifecycle::Latch;
use runtime::server::Server;
use runtime::tasks::Kind;
use store::inbox;
use store::{Database, Location};
use tonic::transport::Uri;

use crate::config::Settings;
use crate::exit::{Failure, chain};
use crate::identity::OwnTokens;
use crate::rebuild::{Builder, Feed, Keeper, ViewFiles};
use crate::service::Service;

/// What services are put together from.
#[derive(Debug)]
pub struct Parts<'a> {
    /// What is configured.
    pub settings: &'a Settings,
    /// How events travel.
    pub transport: &'a Transport,
    /// How services prove who they are.
    pub tokens: &'a OwnTokens,
    /// What every component is given.
    pub process: &'a Process,
}

/// How events travel between services.
#[derive(Debug, Clone)]
pub enum Transport {
    /// Consumers read the outboxes of the producers in this process.
    Tail,
    /// Through a broker, to and from other processes.
    Broker(JetStream),
}

/// The services of a process.
#[derive(Debug, Default)]
pub struct Assembly {
    databases: Vec<(Service, Database)>,
    consumers: Vec<(Service, Consumer)>,
    witnesses: Vec<Witness>,
    view: Option<Kept>,
}

/// The view of my-page, whose database may be another one later. It announces nothing, so nobody reads its outbox.
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
    /// Builds services, each on its own database, joins them, and adds them to a server that answers calls once all of that is
    /// done.
    ///
    /// # Errors
    /// Where a database does not answer.
    pub async fn build(
        databases: BTreeMap<Service, Database>,
        parts: &Parts<'_>,
        verifier: Verifier,
    ) -> Result<(Self, Server), Failure> {
        let latch = parts.process.readiness.latch("services");
        // tokens are minted by processes that keep to the machine's clock
        let mut server = Server::new(parts.settings.server.clone(), verifier, Clock::system());
        server = server.ready_when(parts.process.readiness.clone());
        let mut assembly = Self::default();
        for (service, database) in databases {
            assembly.add(service, database, parts, &mut server);
        }
        assembly.join(parts).await?;
        latch.release();
        Ok((assembly, server))
    }

    fn add(&mut self, service: Service, database: Database, parts: &Parts<'_>, server: &mut Server) {
        let Parts { settings, process, .. } = parts;
        let (process, location) = ((*process).clone(), database.location().clone());
        let token = || parts.tokens.of(service);
        let (database, consumers) = match service {
            Service::Hospital => {
                let built = hospital::build_on(settings.hospital.clone(), database, &process, server);
                (built.database, built.consumers)
            }
            Service::Screening => {
                let hospital = hospital(&settings.screening_hospital, server);
                let deps = screening::Deps { location, process, hospital, token: token() };
                let rules = domain::screening::decide;
                let built = screening::build_on(settings.screening.clone(), database, rules, deps, server);
                (built.database, built.consumers)
            }
            Service::Reservation => {
                let built = reservation::build_on(settings.reservation, database, &process, server);
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

    /// Brings events from the services' outboxes to those who consume them.
    async fn join(&mut self, parts: &Parts<'_>) -> Result<(), Failure> {
        match parts.transport {
            Transport::Tail => self.join_here(parts),
            Transport::Broker(broker) => {
                self.publish(parts, broker);
                self.consume(parts, broker).await?;
            }
        }
        Ok(())
    }

    /// The events of every service here reach the consumers of every other. A consumer that is new to its database starts with the
    /// first event there is.
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

    /// Hospital and Screening, whose logs others act upon, each keep how far the other one's has come: a file of either that comes back
    /// older is noticed whatever else runs or has ever run here.
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

    /// Every outbox is brought to the broker.
    fn publish(&self, parts: &Parts<'_>, broker: &JetStream) {
        let Process { clock, tasks, drain, .. } = parts.process;
        let transport: Arc<dyn Publish> = Arc::new(broker.clone());
        for (service, database) in &self.databases {
            let (name, options, transport) = (service.name(), parts.settings.publish, Arc::clone(&transport));
            let publishing = relay::publish(name, database.clone(), transport, options, *clock, drain.clone());
            tasks.spawn(Kind::Loop, publisher(*service), publishing);
        }
    }

    /// Every consumer hears from the broker: one with a file of its own reads everything itself, in order; the replicas on a
    /// shared database share the work. A new file knows nothing yet, so its service waits until it has caught up.
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

    /// Starts the loop that brings a consumer its events. My-page's can be stopped by itself.
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

    /// What answers requests to build the view of my-page anew, in this data directory.
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

    /// Lets go of everything that keeps background work alive, but for the databases, which that work still needs to end.
    #[must_use]
    pub fn retire(self) -> Databases {
        let view = self.view.map(|view| view.views.database());
        let all = self.databases.into_iter().map(|(_, database)| database).chain(view).collect();
        Databases { all, witnesses: self.witnesses }
    }
}

/// The databases of services that serve no more.
#[derive(Debug)]
pub struct Databases {
    all: Vec<Database>,
    witnesses: Vec<Witness>,
}

impl Databases {
    /// Closes them; nothing may use them any more.
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

/// The replicas of Hospital: where the configuration says, otherwise in this process.
fn hospital(configured: &[Uri], server: &Server) -> Replicas {
    if configured.is_empty() {
        return Replicas::here(server.local());
    }
    Replicas::connect(configured, ClientOptions::default())
}

/// Opens the databases of services.
///
/// # Errors
/// Where one cannot be opened.
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
/// Where it cannot be opened.
pub async fn open(service: Service, location: &Location) -> Result<Database, store::Error> {
    match service {
        Service::Hospital => Database::open::<hospital::Migrator>(location).await,
        Service::Screening => Database::open::<screening::Migrator>(location).await,
        Service::Reservation => Database::open::<reservation::Migrator>(location).await,
        Service::MyPage => Database::open::<mypage::Migrator>(location).await,
        Service::Marketing => Database::open::<marketing::Migrator>(location).await,
    }
}

/// Brings the schema of a service's database up to date; the names of the migrations that took.
///
/// # Errors
/// Where the database cannot be reached, or a migration fails.
pub async fn migrate(service: Service, location: &Location) -> Result<Vec<String>, store::Error> {
    match service {
        Service::Hospital => Database::migrate::<hospital::Migrator>(location).await,
        Service::Screening => Database::migrate::<screening::Migrator>(location).await,
        Service::Reservation => Database::migrate::<reservation::Migrator>(location).await,
        Service::MyPage => Database::migrate::<mypage::Migrator>(location).await,
        Service::Marketing => Database::migrate::<marketing::Migrator>(location).await,
    }
}
