//! Services running inside this process, on a port of their own: for tools that measure the real thing without a second
//! process.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use runtime::Process;
use runtime::clock::Clock;
use runtime::identity::Verifier;
use runtime::lifecycle::{DrainTrigger, drain_pair};
use runtime::tasks::Kind;
use tokio::net::TcpListener;

use crate::assembly::{Assembly, Parts, Road};
use crate::config::Settings;
use crate::data_dir::DataDir;
use crate::exit::{Failure, chain};
use crate::identity::{self, OwnTokens};
use crate::service::Service;

/// How long the services may take to stop.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Services that serve.
#[derive(Debug)]
pub struct Embedded {
    addr: SocketAddr,
    process: Process,
    trigger: DrainTrigger,
    assembly: Assembly,
}

impl Embedded {
    /// Starts these services on a directory and a free loopback port.
    ///
    /// # Errors
    /// Where they cannot start.
    pub async fn start(services: &BTreeSet<Service>, settings: &Settings, dir: &Path) -> Result<Self, Failure> {
        let cannot = |why: String| Failure::failed(format!("cannot start the services: {why}"));
        let data = DataDir::open(dir)?;
        let signer = identity::signer(data.path())?;
        let verifier = Verifier::from_jwks(&signer.jwks()).map_err(|error| cannot(chain(&error)))?;
        let locations = services.iter().map(|service| (*service, data.database(*service))).collect();
        let tokens = OwnTokens::Made(signer);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(|error| cannot(chain(&error)))?;
        let addr = listener.local_addr().map_err(|error| cannot(chain(&error)))?;

        let (trigger, drain) = drain_pair();
        let process = Process::new(Clock::system(), drain.clone());
        let parts =
            Parts { settings, locations: &locations, road: &Road::Tail, tokens: &tokens, process: &process, addr };
        let (assembly, server) = Assembly::build(services, &parts, verifier).await?;
        process.tasks.spawn(Kind::Essential, "server", async move {
            // the directory stays locked for as long as its services run
            let _data = data;
            server.run(listener, drain).await
        });
        Ok(Self { addr, process, trigger, assembly })
    }

    /// Where they serve.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Stops them.
    pub async fn stop(self) {
        self.trigger.request();
        let databases = self.assembly.retire();
        self.process.tasks.shutdown(STOP_TIMEOUT).await;
        databases.close().await;
    }
}
