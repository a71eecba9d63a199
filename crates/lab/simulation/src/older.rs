//! A database that comes back as it was earlier, and the operator who has it recovered.
//!
//! SQLite itself makes the copy, because connections of killed hosts close at their own time. The service gets the copy
//! under another name, so nothing that those connections still do to their file concerns it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use checkup::service::Service;
use checkup::{past, recover};
use runtime::clock::Clock;
use store::{Database, Location};
use tokio::time::sleep;

use crate::chance::Chance;
use crate::restore::Restore;
use crate::schema::SERVICES;
use crate::site::Site;
use crate::stage::Stage;
use crate::transport::Sender;
use crate::{sabotage, schema};

/// How often a process asks whether its past is whole again, and the operator whether a process refuses to serve.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The longest time until the operator does something about it.
const MAX_NOTICE: Duration = Duration::from_secs(2);

/// Copies the database of a service as it is now.
pub(crate) fn keep_copy(site: &Site, service: Service) -> turmoil::Result {
    let Location::Sqlite(to) = schema::location(&site.data, &Restore::copy(service)) else { return Ok(()) };
    beside(site, service, &format!("VACUUM INTO '{}'", to.display())).map(drop)
}

/// Whether the stream has every event of a service. What it does not have would be lost for good.
pub(crate) fn has_told_all(site: &Site, service: Service) -> bool {
    let waiting = beside(site, service, "SELECT count(*) FROM outbox WHERE stream_sequence IS NULL");
    waiting.is_ok_and(|waiting| waiting == Some(0))
}

fn beside(site: &Site, service: Service, sql: &str) -> Result<Option<i64>, Box<dyn std::error::Error>> {
    let Location::Sqlite(file) = site.location(service.name()) else { return Ok(None) };
    sabotage::number(sql, &file, &site.side)
}

/// Waits while a service of a host has lost its past, as a process of a mesh does before it serves.
pub(crate) async fn until_whole(site: &Site, host: &'static str, service: Service, database: &Database) {
    let sender = Sender::new(&site.broker, host);
    let databases = BTreeMap::from([(service, database.clone())]);
    loop {
        match past::of_stream(&databases, &sender).await {
            Ok(lost) if lost.is_empty() => break,
            Ok(lost) => {
                if site.restore.refuses(host) {
                    site.trace.note(host, "refuses to serve", &lost[0]);
                }
            }
            // A real process serves meanwhile and asks later, because booking works without a broker.
            Err(_) => {}
        }
        sleep(POLL_INTERVAL).await;
    }
    if site.restore.serves(host) {
        site.trace.note(host, "refuses to serve", "no longer");
    }
}

/// Runs the operator: recovers the service whose hosts refuse to serve.
pub(crate) async fn operate(site: Arc<Site>, stage: Arc<Stage>, mut chance: Chance) -> turmoil::Result {
    while !site.restore.is_refused() {
        if stage.is_healed() && !site.restore.is_open() {
            return Ok(());
        }
        sleep(POLL_INTERVAL).await;
    }
    sleep(chance.between(Duration::ZERO, MAX_NOTICE)).await;
    loop {
        let sender = Arc::new(Sender::new(&site.broker, "operator"));
        match recover::of_mesh(databases(&site).await?, sender, Clock::system()).await {
            Ok(left) if left.is_empty() => break site.trace.note("operator", "recovers", "everything"),
            Ok(left) => return Err(format!("the recovery left {}", left[0]).into()),
            Err(error) => site.trace.note("operator", "recovers", error),
        }
        sleep(POLL_INTERVAL).await;
    }
    Ok(())
}

async fn databases(site: &Site) -> Result<BTreeMap<Service, Database>, store::Error> {
    let mut databases = BTreeMap::new();
    for (service, copies) in SERVICES {
        databases.insert(service, (service.row().open)(&site.location(copies[0])).await?);
    }
    Ok(databases)
}
