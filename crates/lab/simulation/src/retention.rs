//! Whether producers have kept the newest event of everything.

use std::collections::HashMap;

use domain::frame::Opened;
use domain::retention::Aggregate;
use store::migration::MigratorTrait;
use store::{Database, outbox};

use crate::site::Site;

/// More rows than a run makes.
const ROWS: u64 = 10_000;

/// A booking or a claim whose newest event its producer has removed; `None` if there is none.
///
/// # Errors
/// The error of a database that cannot be read.
pub(crate) async fn missing(site: &Site) -> Result<Option<String>, Box<dyn std::error::Error>> {
    // A recovery makes claims without an event for each.
    if site.plan.retention.is_zero() || site.plan.goes_back() {
        return Ok(None);
    }
    let database = open::<screening::Migrator>(site, screening::NAME).await?;
    let rows = screening::recovery::bookings(&database, None, ROWS).await?;
    let versions = rows.into_iter().map(|row| (Aggregate::Screening(row.id), row.version));
    let bookings = unreported(&database, versions.collect()).await?;
    let database = open::<hospital::Migrator>(site, hospital::NAME).await?;
    let rows = hospital::recovery::claims(&database, None, ROWS).await?;
    let versions = rows.into_iter().map(|row| (Aggregate::Claim(row.id), row.version));
    Ok(bookings.or(unreported(&database, versions.collect()).await?))
}

async fn open<M: MigratorTrait>(site: &Site, service: &str) -> Result<Database, store::Error> {
    Database::open::<M>(&site.location(service)).await
}

/// One of these aggregates of which the log has no event with this version.
async fn unreported(
    database: &Database,
    versions: Vec<(Aggregate, i64)>,
) -> Result<Option<String>, Box<dyn std::error::Error>> {
    let mut reported: HashMap<Aggregate, i64> = HashMap::new();
    for row in outbox::read_after(database.reader(), 0, ROWS).await? {
        for event in Opened::new(&row.payload).decode()? {
            let Some(aggregate) = Aggregate::of(&event) else { continue };
            let newest = reported.entry(aggregate).or_default();
            *newest = event.aggregate_version.max(*newest);
        }
    }
    let newest = |aggregate: &Aggregate| reported.get(aggregate).copied().unwrap_or(0);
    let unreported = versions.into_iter().find(|(aggregate, version)| newest(aggregate) < *version);
    Ok(unreported.map(|(aggregate, version)| format!("no event that is kept has version {version} of {aggregate:?}")))
}
