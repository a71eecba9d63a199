//! `checkup dead-letters`: lists, shows, replays and removes events that consumers could not apply.
//!
//! It works on the services' databases, beside the processes that use them. A replay only marks the dead letter here.
//! The service's own consumer then applies it by its own rules.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use contract::event::v1::EventEnvelope;
use prost::Message;
use runtime::clock::Clock;
use serde_json::json;
use store::dead_letter::{self, Model};
use store::{Database, DbErr, Location, timestamp};

use crate::cli::{DeadLetterId, DeadLettersCommand, StoresArgs};
use crate::config::Sources;
use crate::data_dir::files;
use crate::exit::{Exit, Failure, chain};
use crate::service::Service;
use crate::terminal;

/// Dead letters that one statement reads.
const ROWS_PER_READ: u64 = 500;
/// The most characters of an error that a list shows.
const SHOWN_ERROR_CHARACTERS: usize = 60;
const REPLAY_POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Runs one of the `dead-letters` commands.
///
/// # Errors
/// Fails if a database cannot be used, or a dead letter does not exist.
pub async fn run(command: DeadLettersCommand) -> Result<Exit, Failure> {
    match command {
        DeadLettersCommand::List { stores, json } => list(&Stores::open(&stores, None).await?, json).await,
        DeadLettersCommand::Show { stores, dead_letter: id } => {
            show(&Stores::open(&stores, Some(&[id])).await?, id).await
        }
        DeadLettersCommand::Replay { stores, dead_letters: ids, all, wait } => {
            let named = (!all).then_some(ids.as_slice());
            let stores = Stores::open(&stores, named).await?;
            let ids = if all { stores.dead_letters().await?.into_keys().collect() } else { ids };
            replay(&stores, &ids, wait).await
        }
        DeadLettersCommand::Drop { stores, dead_letters: ids } => {
            remove(&Stores::open(&stores, Some(&ids)).await?, &ids).await
        }
    }
}

/// The databases that were found, by service.
struct Stores(BTreeMap<Service, Database>);

impl Stores {
    /// Opens the databases of the configuration and of the data directory. With `named`, only those of these dead
    /// letters.
    async fn open(args: &StoresArgs, named: Option<&[DeadLetterId]>) -> Result<Self, Failure> {
        let settings = Sources::of_process(&args.config).settings()?;
        let mut locations = settings.databases;
        for (service, path) in files(&args.data_dir) {
            locations.entry(service).or_insert(Location::Sqlite(path));
        }
        if let Some(named) = named {
            locations.retain(|service, _| named.iter().any(|id| id.service == *service));
            if let Some(id) = named.iter().find(|id| !locations.contains_key(&id.service)) {
                return Err(nowhere(&id.service.to_string(), &args.data_dir));
            }
        }
        if locations.is_empty() {
            return Err(nowhere("any service", &args.data_dir));
        }
        let mut stores = BTreeMap::new();
        for (service, location) in locations {
            let opened = (service.row().open)(&location).await;
            stores.insert(service, opened.map_err(|error| Failure::failed(chain(&error)))?);
        }
        Ok(Self(stores))
    }

    fn of(&self, id: DeadLetterId) -> Result<&Database, Failure> {
        self.0.get(&id.service).ok_or_else(|| missing(id))
    }

    async fn dead_letters(&self) -> Result<BTreeMap<DeadLetterId, Model>, Failure> {
        let mut found = BTreeMap::new();
        for (service, database) in &self.0 {
            let mut after = 0;
            loop {
                let rows = dead_letter::list(database.reader(), after, ROWS_PER_READ).await.map_err(failed)?;
                let Some(last) = rows.last() else { break };
                after = last.id;
                found.extend(rows.into_iter().map(|row| (DeadLetterId { service: *service, number: row.id }, row)));
            }
        }
        Ok(found)
    }

    async fn get(&self, id: DeadLetterId) -> Result<Option<Model>, Failure> {
        dead_letter::get(self.of(id)?.reader(), id.number).await.map_err(failed)
    }
}

fn nowhere(whose: &str, directory: &Path) -> Failure {
    let help = "name the data directory with --data-dir, or the configuration of the mesh with --config";
    Failure::failed(format!("there is no database of {whose} in {}; {help}", directory.display()))
}

fn missing(id: DeadLetterId) -> Failure {
    Failure::failed(format!("there is no dead letter {id}; `checkup dead-letters list` shows those there are"))
}

fn failed(error: DbErr) -> Failure {
    Failure::failed(format!("the database does not answer: {}", chain(&error)))
}

async fn list(stores: &Stores, json: bool) -> Result<Exit, Failure> {
    let found = stores.dead_letters().await?;
    if json {
        let rows = found.iter().map(|(id, row)| {
            json!({
                "dead_letter": id.to_string(),
                "consumer": row.consumer,
                "event_id": row.event_id,
                "subject": row.subject,
                "attempts": row.attempts,
                "time": timestamp(row.bury_time).to_string(),
                "error": row.error,
                "replay_asked": row.replay_time.is_some(),
            })
        });
        terminal::print(&format!("{}\n", serde_json::Value::from_iter(rows)))?;
        return Ok(Exit::Ok);
    }
    if found.is_empty() {
        terminal::print("no dead letters\n")?;
        return Ok(Exit::Ok);
    }
    let mut table = terminal::table(&["dead letter", "consumer", "event", "subject", "tries", "since", "error"]);
    for (id, row) in &found {
        let error: String = row.error.lines().next().unwrap_or_default().chars().take(SHOWN_ERROR_CHARACTERS).collect();
        table.add_row([
            id.to_string(),
            row.consumer.clone(),
            row.event_id.clone(),
            row.subject.clone(),
            row.attempts.to_string(),
            timestamp(row.bury_time).strftime("%F %T").to_string(),
            error,
        ]);
    }
    terminal::print(&format!("{table}\n"))?;
    Ok(Exit::Ok)
}

async fn show(stores: &Stores, id: DeadLetterId) -> Result<Exit, Failure> {
    let row = stores.get(id).await?.ok_or_else(|| missing(id))?;
    let mut text = String::new();
    let Model { consumer, event_id, subject, payload, error, attempts, .. } = &row;
    // writing to a String cannot fail
    let _ =
        writeln!(text, "dead letter  {id}\nconsumer     {consumer}\nevent        {event_id}\nsubject      {subject}");
    let _ = writeln!(text, "tries        {attempts}, since {}", timestamp(row.bury_time));
    let _ = writeln!(text, "error        {error}\n");
    let _ = match EventEnvelope::decode(payload.as_slice()) {
        Ok(envelope) => writeln!(text, "{envelope:#?}"),
        Err(error) => {
            let bytes: String = payload.iter().map(|byte| format!("{byte:02x}")).collect();
            writeln!(text, "not an event ({error}); its {} bytes: {bytes}", payload.len())
        }
    };
    terminal::print(&text)?;
    Ok(Exit::Ok)
}

async fn replay(stores: &Stores, ids: &[DeadLetterId], wait: Duration) -> Result<Exit, Failure> {
    for id in ids {
        let asked = dead_letter::ask_for_replay(stores.of(*id)?, id.number, Clock::system().now()).await;
        if !asked.map_err(failed)? {
            return Err(missing(*id));
        }
    }
    let limit = Instant::now() + wait;
    let (mut all_applied, mut all_printed) = (true, Ok(()));
    for id in ids {
        let outcome = loop {
            match stores.get(*id).await? {
                None => break Ok(()),
                Some(row) if row.replay_time.is_none() => break Err(format!("not applied: {}", row.error)),
                Some(_) if Instant::now() >= limit => break Err("not tried yet: does its service run?".to_owned()),
                Some(_) => tokio::time::sleep(REPLAY_POLL_INTERVAL).await,
            }
        };
        all_applied &= outcome.is_ok();
        let printed = terminal::print(&match outcome {
            Ok(()) => format!("{id}: applied\n"),
            Err(why) => format!("{id}: {why}\n"),
        });
        all_printed = all_printed.and(printed);
    }
    all_printed?;
    Ok(if all_applied { Exit::Ok } else { Exit::Failed })
}

async fn remove(stores: &Stores, ids: &[DeadLetterId]) -> Result<Exit, Failure> {
    let mut all_printed = Ok(());
    for id in ids {
        if !dead_letter::remove(stores.of(*id)?, id.number).await.map_err(failed)? {
            return Err(missing(*id));
        }
        let printed = terminal::print(&format!("{id}: dropped\n"));
        all_printed = all_printed.and(printed);
    }
    all_printed?;
    Ok(Exit::Ok)
}
