//! How each service is built, behind one trait.

use std::fmt;
use std::sync::Arc;

use contract::capacity::v1::capacity_service_server::CapacityService;
use domain::access::Caller;
use mypage::Views;
use relay::{Consumer, Follower, Versions};
use runtime::Process;
use runtime::client::{ClientOptions, Replicas};
use runtime::identity::TokenSource;
use runtime::server::{InProcess, Server};
use store::Database;
use tonic::transport::Uri;

/// What a service is built from.
pub(crate) struct Deps<'a> {
    pub(crate) database: Database,
    pub(crate) process: Process,
    pub(crate) token: TokenSource,
    /// The configured replicas of Hospital. Empty: Hospital in this process.
    pub(crate) hospital: &'a [Uri],
    /// Hospital leaves its methods here, and Screening takes them. So Hospital is built first.
    pub(crate) places: &'a mut Option<Arc<dyn CapacityService>>,
    pub(crate) server: &'a mut Server,
}

impl Deps<'_> {
    fn replicas(&self) -> Replicas {
        if self.hospital.is_empty() {
            return Replicas::here(self.server.local());
        }
        Replicas::connect(self.hospital, ClientOptions::default())
    }
}

/// What the process gets of a service besides its gRPC services.
pub(crate) struct Built {
    pub(crate) database: Database,
    pub(crate) consumers: Vec<Consumer>,
    /// The newest versions of what its events report, if it publishes any.
    pub(crate) versions: Option<Arc<dyn Versions>>,
    /// What follows its own events, if it keeps something of them in memory.
    pub(crate) follower: Option<Follower>,
    /// The view of my-page, whose database a rebuild replaces.
    pub(crate) views: Option<Views>,
}

/// The options of a service, as something that builds it.
pub(crate) trait Slice: fmt::Debug + Send + Sync {
    fn build(&self, deps: Deps<'_>) -> Built;
}

impl Slice for hospital::Options {
    fn build(&self, deps: Deps<'_>) -> Built {
        let built = hospital::build_on(self.clone(), deps.database, &deps.process, deps.server);
        *deps.places = Some(built.places);
        let (consumers, follower) = (built.consumers, Some(built.follower));
        Built { database: built.database, consumers, versions: Some(built.versions), follower, views: None }
    }
}

impl Slice for screening::Options {
    fn build(&self, deps: Deps<'_>) -> Built {
        let hospital = deps.replicas();
        let places = deps.places.take().filter(|_| deps.hospital.is_empty()).map(|places| {
            let screening = Caller::Service(screening::NAME.to_owned());
            InProcess::new(places, screening, "checkup.capacity.v1.CapacityService/ReserveCapacity")
        });
        let Deps { database, process, token, server, .. } = deps;
        let location = database.location().clone();
        let deps = screening::Deps { location, process, hospital, places, token };
        let built = screening::build_on(self.clone(), database, domain::screening::decide, deps, server);
        let (consumers, versions) = (built.consumers, Some(built.versions));
        Built { database: built.database, consumers, versions, follower: None, views: None }
    }
}

impl Slice for reservation::Options {
    fn build(&self, deps: Deps<'_>) -> Built {
        let built = reservation::build_on(*self, deps.database, &deps.process, deps.server);
        let (consumers, versions) = (built.consumers, Some(built.versions));
        Built { database: built.database, consumers, versions, follower: None, views: None }
    }
}

impl Slice for mypage::Options {
    fn build(&self, deps: Deps<'_>) -> Built {
        let built = mypage::build_on(*self, deps.database, deps.process, deps.server);
        let (consumers, views) = (built.consumers, Some(built.views));
        Built { database: built.database, consumers, versions: None, follower: None, views }
    }
}

impl Slice for marketing::Options {
    fn build(&self, deps: Deps<'_>) -> Built {
        let hospital = deps.replicas();
        let Deps { database, process, token, server, .. } = deps;
        let deps = marketing::Deps { location: database.location().clone(), process, hospital, token };
        let built = marketing::build_on(*self, database, deps, server);
        let consumers = built.consumers;
        Built { database: built.database, consumers, versions: None, follower: None, views: None }
    }
}
