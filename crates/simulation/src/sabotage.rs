//! Plants bugs where a precaution is a row: what would have been written is taken away again.

use std::path::Path;

use sea_orm::ConnectionTrait;
use tokio::runtime::Handle;

use crate::mutant::Mutant;

/// Plants what a mutant does to the database of a service. `side` is where databases are worked on.
pub(crate) fn plant(mutant: Option<Mutant>, service: &str, database: &Path, side: &Handle) -> turmoil::Result {
    let Some(sql) = mutant.and_then(|mutant| trigger(mutant, service)) else { return Ok(()) };
    let url = format!("sqlite://{}", database.display());
    let planting = async {
        let connection = sea_orm::Database::connect(url).await?;
        connection.execute_unprepared(sql).await?;
        connection.close().await
    };
    // on a thread of its own: this one is inside of a runtime that must not be blocked, says tokio, and is to be, say we
    let planted = std::thread::scope(|scope| scope.spawn(|| side.block_on(planting)).join());
    planted.map_err(|_| "planting a bug panicked")?.map_err(Into::into)
}

fn trigger(mutant: Mutant, service: &str) -> Option<&'static str> {
    match (mutant, service) {
        (Mutant::NoFence, screening::NAME) => Some(
            "CREATE TRIGGER IF NOT EXISTS no_fence AFTER INSERT ON screening WHEN NEW.customer IS NULL \
             BEGIN DELETE FROM screening WHERE id = NEW.id; END",
        ),
        // 2 is RELEASED; a release of a claim that is there is no insert
        (Mutant::NoTombstone, hospital::NAME) => Some(
            "CREATE TRIGGER IF NOT EXISTS no_tombstone AFTER INSERT ON claim WHEN NEW.state = 2 \
             BEGIN DELETE FROM claim WHERE screening = NEW.screening AND generation = NEW.generation; END",
        ),
        (Mutant::LeaseWithoutEpoch, _) => Some(
            "CREATE TRIGGER IF NOT EXISTS no_epoch AFTER UPDATE ON relay_lease WHEN NEW.epoch > 1 \
             BEGIN UPDATE relay_lease SET epoch = 1; END",
        ),
        _ => None,
    }
}
