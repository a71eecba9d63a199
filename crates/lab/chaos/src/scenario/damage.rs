//! Damage that no fault may cause, done on purpose: proof that the audit finds violations.

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};

/// Statements for Screening's database: one deletes a booking, the other adds thirty that nobody requested, on the
/// smallest slot.
const DAMAGE: [&str; 2] = [
    "DELETE FROM screening WHERE id = \
     (SELECT id FROM screening WHERE state = 3 AND slot_date > (SELECT min(slot_date) FROM screening) ORDER BY id LIMIT 1)",
    "INSERT INTO screening SELECT (jsonb_populate_record(one, jsonb_build_object('id', gen_random_uuid(), \
     'customer', one.customer || '-twin-' || number))).* FROM generate_series(1, 30) AS number, screening AS one \
     WHERE one.id = (SELECT id FROM screening WHERE state = 3 ORDER BY slot_date, id LIMIT 1)",
];

/// Changes Screening's database directly after a short load. The row must report the damage.
///
/// # Errors
/// If the mesh cannot be started, damaged or read.
pub async fn damage(plan: &Plan) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    run.goes_on(plan.after).await;
    run.stop_load().await;
    for statement in DAMAGE {
        run.stage.postgres().sql("screening", statement).await?;
    }
    run.finish("damage", "damage on purpose").await
}
