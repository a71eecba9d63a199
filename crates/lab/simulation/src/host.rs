//! The real services on simulated hosts. Each is built as in its own process.

use std::sync::Arc;
use std::time::Duration;

use bus::Subscribe;
use checkup::service::Service;
use jiff::SignedDuration;
use relay::{ConsumeOptions, Consumer, PublishOptions, Retention, Versions};
use runtime::Process;
use runtime::clock::Clock;
use runtime::identity::{TokenSource, Verifier};
use runtime::lifecycle::{Drain, drain_pair};
use runtime::server::{Server, ServerOptions};
use runtime::tasks::Kind;
use store::migration::MigratorTrait;
use store::{Database, Location};

use crate::commits::Commits;
use crate::mutant::Mutant;
use crate::net::{Port, replicas};
use crate::plan::{HOSPITALS, HOSTS, Plan};
use crate::site::Site;
use crate::transport::{Durable, Ordered, Sender};
use crate::watch::Watched;
use crate::{older, sabotage, watermark};

/// The length of a relay's lease.
const TERM: Duration = Duration::from_secs(1);
/// How often a relay looks for commits of another replica. Rarely, because this costs more than half of a run.
const IDLE: Duration = Duration::from_millis(80);

/// A service under construction on a host.
struct Build {
    site: Arc<Site>,
    host: &'static str,
    process: Process,
    server: Server,
    drain: Drain,
}

/// A service that was built.
struct Built {
    name: &'static str,
    database: Database,
    consumers: Vec<Consumer>,
    /// The versions of what its events report, if it publishes any.
    versions: Option<Arc<dyn Versions>>,
}

/// Runs a host until the simulation crashes it.
pub(crate) async fn run(site: Arc<Site>, host: &'static str) -> turmoil::Result {
    let skew = HOSTS.iter().position(|other| *other == host).and_then(|index| site.plan.skews.get(index));
    let clock = Clock::shifted(SignedDuration::from_secs(skew.copied().unwrap_or_default()));
    // No drain is triggered: a simulated process is killed.
    let (_trigger, drain) = drain_pair();
    let process = Process::new(clock, drain.clone());
    let verifier = Verifier::from_jwks(&site.signer.jwks())?;
    let server = Server::new(ServerOptions::default(), verifier, Clock::system());
    let mut build = Build { site, host, process, server, drain };
    let built = match host.split('-').next().unwrap_or_default() {
        "hospital" => build.hospital().await?,
        "screening" => build.screening().await?,
        "reservation" => build.reservation().await?,
        _ => build.mypage().await?,
    };
    if let Location::Sqlite(path) = built.database.location() {
        sabotage::plant(build.site.plan.mutant, built.name, path, &build.site.side)?;
    }
    build.serve(built).await
}

impl Build {
    /// Opens a database whose commits can go wrong.
    async fn open<M: MigratorTrait>(&self, name: &str) -> Result<Database, store::Error> {
        let database = Database::open::<M>(&self.location(name)).await?;
        let leak = (self.site.plan.mutant == Some(Mutant::PublishBeforeCommit)).then(|| self.site.broker.clone());
        let trusting = self.site.plan.mutant == Some(Mutant::TrustedConnection);
        Ok(database.with_nemesis(Arc::new(Commits::of(self.host, &self.site.fates, leak, trusting))))
    }

    fn location(&self, name: &str) -> Location {
        self.site.location(name)
    }

    /// Serves nothing while the service has lost its past.
    async fn until_whole(&self, service: Service, database: &Database) {
        let Plan { mutant, .. } = self.site.plan;
        if self.site.plan.goes_back() && mutant != Some(Mutant::TrustedPast) {
            older::until_whole(&self.site, self.host, service, database).await;
        } else {
            self.site.restore.serves(self.host);
        }
    }

    async fn hospital(&mut self) -> Result<Built, store::Error> {
        let database = self.open::<hospital::Migrator>(hospital::NAME).await?;
        self.until_whole(Service::Hospital, &database).await;
        let built = hospital::build_on(hospital::Options::default(), database, &self.process, &mut self.server);
        let versions = Some(built.versions);
        Ok(Built { name: hospital::NAME, database: built.database, consumers: built.consumers, versions })
    }

    async fn screening(&mut self) -> Result<Built, store::Error> {
        let deps = screening::Deps {
            location: self.location(screening::NAME),
            process: self.process.clone(),
            hospital: replicas(&HOSPITALS),
            places: None,
            token: TokenSource::minted(self.site.signer.clone(), screening::NAME),
        };
        let Plan { grace, hospital_timeouts: (hospital_timeout, hospital_attempt), .. } = self.site.plan;
        let options = screening::Options {
            reconcile_grace: grace,
            hospital_timeout,
            hospital_attempt,
            ..screening::Options::default()
        };
        let database = self.open::<screening::Migrator>(screening::NAME).await?;
        self.until_whole(Service::Screening, &database).await;
        let rules = sabotage::rules(self.site.plan.mutant);
        let built = screening::build_on(options, database, rules, deps, &mut self.server);
        let versions = Some(built.versions);
        Ok(Built { name: screening::NAME, database: built.database, consumers: built.consumers, versions })
    }

    async fn reservation(&mut self) -> Result<Built, store::Error> {
        let database = self.open::<reservation::Migrator>(reservation::NAME).await?;
        let options = reservation::Options::default();
        let built = reservation::build_on(options, database, &self.process, &mut self.server);
        let versions = Some(built.versions);
        Ok(Built { name: reservation::NAME, database: built.database, consumers: built.consumers, versions })
    }

    async fn mypage(&mut self) -> Result<Built, store::Error> {
        let database = self.open::<mypage::Migrator>(self.host).await?;
        let process = self.process.clone();
        let built = mypage::build_on(mypage::Options::default(), database, process, &mut self.server);
        Ok(Built { name: mypage::NAME, database: built.database, consumers: built.consumers, versions: None })
    }

    /// Connects the service to the transport and serves.
    async fn serve(self, built: Built) -> turmoil::Result {
        let Self { site, host, process, server, drain } = self;
        let Built { name, database, consumers, versions } = built;
        let announces = versions.is_some();
        let sender = Sender::new(&site.broker, host);
        let transport: Arc<dyn Subscribe> =
            if name == mypage::NAME { Arc::new(Ordered(sender.clone())) } else { Arc::new(Durable(sender.clone())) };
        let options = ConsumeOptions { last_pause: Duration::from_secs(1), ..ConsumeOptions::default() };
        for consumer in consumers {
            let consumer = Watched::over(sabotage::over(consumer, &site), host, &site);
            let task = relay::consume(consumer, Arc::clone(&transport), options, process.clock, drain.clone(), None);
            process.tasks.spawn(Kind::Loop, "consumer", task);
        }
        if announces && site.plan.mutant == Some(Mutant::WatermarkRelay) {
            process.tasks.spawn(Kind::Loop, "relay", watermark::publish(database.clone(), Arc::new(sender)));
        } else if announces {
            let window = site.plan.window;
            let options = PublishOptions { term: TERM, idle: IDLE, window, ..PublishOptions::default() };
            let task = relay::publish(name, database.clone(), Arc::new(sender), options, process.clock, drain.clone());
            process.tasks.spawn(Kind::Loop, "relay", task);
        }
        if let Some(versions) = versions {
            let retention = Retention {
                service: name,
                database,
                versions: sabotage::known_to(versions, &site),
                period: site.plan.retention,
                published: true,
                clock: process.clock,
            };
            process.tasks.spawn(Kind::Loop, "retention", retention.run(drain.clone()));
        }
        let port = Port::open().await?;
        tokio::select! {
            biased;
            why = process.tasks.failed() => Err(why.into()),
            served = server.run(port, drain) => Ok(served?),
        }
    }
}
