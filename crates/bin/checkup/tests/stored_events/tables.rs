//! A service's own tables as text. What differs from run to run is masked: ids that no sample has, and instants of this
//! run.

use std::collections::BTreeSet;
use std::fs;

use sea_orm::{ConnectionTrait, DatabaseConnection, DbBackend, Statement};
use store::migration::{MigrationTrait, MigratorTrait, common};
use store::{Database, Location};

use crate::samples;
use crate::service::{OCCURRED, Running};

/// The day of this run, from half an hour after the samples occurred, in microseconds since 1970.
const THIS_RUN: std::ops::Range<i64> = (OCCURRED + 1_800) * 1_000_000..(OCCURRED + 86_400) * 1_000_000;

/// The tables that every service has: the log, the inbox and the like. What an event means is not in them.
#[derive(Debug)]
struct Common;

impl MigratorTrait for Common {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        common()
    }
}

async fn connect(file: &std::path::Path) -> DatabaseConnection {
    sea_orm::Database::connect(format!("sqlite://{}", file.display())).await.expect("a connection")
}

/// The first column of a query's rows.
async fn column(connection: &DatabaseConnection, query: String) -> Vec<String> {
    let rows = connection.query_all_raw(Statement::from_string(DbBackend::Sqlite, query)).await.expect("rows");
    rows.iter().map(|row| row.try_get_by_index(0).expect("a text")).collect()
}

async fn tables(connection: &DatabaseConnection) -> BTreeSet<String> {
    column(connection, "SELECT name FROM sqlite_master WHERE type = 'table'".to_owned()).await.into_iter().collect()
}

async fn common_tables() -> BTreeSet<String> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("common.db");
    Database::open::<Common>(&Location::Sqlite(file.clone())).await.expect("a database").close().await;
    tables(&connect(&file).await).await
}

/// Every row of a service's own tables, one a line.
pub(crate) async fn dump(service: &Running) -> String {
    let connection = connect(&service.file()).await;
    let samples = samples_text();
    let mut lines = Vec::new();
    for table in tables(&connection).await.difference(&common_tables().await) {
        let columns = column(&connection, format!("SELECT name FROM pragma_table_info('{table}')")).await;
        let values: Vec<String> = columns.iter().map(|name| format!("quote(\"{name}\")")).collect();
        let query = format!("SELECT {} FROM \"{table}\"", values.join(" || char(31) || "));
        for row in column(&connection, query).await {
            let values = columns.iter().zip(row.split('\u{1f}'));
            let shown: Vec<String> =
                values.map(|(name, value)| format!("{name}={}", masked(name, value, &samples))).collect();
            lines.push(format!("  {table}: {}\n", shown.join(" ")));
        }
    }
    connection.close().await.expect("closed");
    lines.sort();
    lines.concat()
}

/// The samples' texts without hyphens, to find ids in.
fn samples_text() -> String {
    let entries = fs::read_dir(samples()).expect("there are samples").map(|entry| entry.expect("readable").path());
    let texts = entries.filter(|path| path.extension().is_some_and(|ending| ending == "txt"));
    texts.map(|path| fs::read_to_string(path).expect("a text").replace('-', "")).collect()
}

fn masked(column: &str, value: &str, samples: &str) -> String {
    let instant = column.ends_with("time") && value.parse::<i64>().is_ok_and(|micros| THIS_RUN.contains(&micros));
    let id = value.strip_prefix("X'").and_then(|rest| rest.strip_suffix('\'')).filter(|hex| hex.len() == 32);
    match id {
        _ if instant => "(this run)".to_owned(),
        Some(hex) if samples.contains(&hex.to_lowercase()) => hex.to_lowercase(),
        Some(_) => "(an id of this run)".to_owned(),
        // the span is new, the trace goes on
        None if column == "traceparent" => value.chars().take("'00-4bf92f3577b34da6a3ce929d0e0e4736".len()).collect(),
        None => value.to_owned(),
    }
}
