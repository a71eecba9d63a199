//! `checkup migrate`: brings the schemas of services' databases up to date before services of this version start.

use std::fmt::Write;

use runtime::telemetry;
use runtime::telemetry::TelemetryOptions;

use crate::cli::MigrateArgs;
use crate::config::Sources;
use crate::exit::{Exit, Failure, chain};
use crate::service::Service;
use crate::terminal;

/// Migrates one service after another and prints the migrations that ran.
///
/// # Errors
/// Fails if no database is configured or reachable, or a migration fails.
pub async fn run(args: MigrateArgs) -> Result<Exit, Failure> {
    let settings = Sources::of_process(&args.config).settings()?;
    let quiet = TelemetryOptions { level: "warn".to_owned(), ..settings.telemetry.clone() };
    let _telemetry = telemetry::init(&quiet);
    let services = if args.services.is_empty() { settings.databases.keys().copied().collect() } else { args.services };
    if services.is_empty() {
        let help = "set the database of a service, for example --set hospital.database=postgres://…; \
                    files of a data directory are brought up to date when they are opened";
        return Err(Failure::usage(format!("there is nothing to migrate; {help}")));
    }
    let configured = |service: Service| {
        let location = settings.databases.get(&service).map(|location| (service, location));
        location.ok_or_else(|| Failure::usage(format!("{service} has no database; set {service}.database")))
    };
    let locations = services.into_iter().map(configured).collect::<Result<Vec<_>, Failure>>()?;
    // a line that cannot be printed does not stop the migration
    let mut all_printed = Ok(());
    for (service, location) in locations {
        let applied = (service.row().migrate)(location).await;
        let applied = applied.map_err(|error| Failure::failed(format!("{service}: {}", chain(&error))))?;
        let mut line = format!("{service} ({location}): ");
        // writing to a String cannot fail
        let _ = match applied.as_slice() {
            [] => writeln!(line, "up to date"),
            names => writeln!(line, "applied {}", names.join(", ")),
        };
        let printed = terminal::print(&line);
        all_printed = all_printed.and(printed);
    }
    all_printed?;
    Ok(Exit::Ok)
}
