//! `checkup recover`: restores what a service lost when its database came back older than the others', from what the
//! other services know.
//!
//! Screening is recovered before Hospital, because Hospital's claims follow from Screening's bookings. Each step is one
//! transaction and changes nothing when it is repeated. Only the last step records that nothing is lost any more, so an
//! interrupted recovery is run again.

mod hospital;
mod report;
mod screening;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bus::Message;
use bus::jetstream::JetStream;
use contract::event::v1::EventEnvelope;
use runtime::clock::Clock;
use store::outbox::{self, Returned};
use store::past::{Contradiction, Gap};
use store::{Database, DbErr, Location, inbox, lease};

use crate::assembly;
use crate::cli::{RecoverArgs, StoresArgs};
use crate::config::Sources;
use crate::data_dir::{DataDir, files};
use crate::exit::{Exit, Failure, chain};
use crate::past::{self, Lost, NotAsked, Published, Stream, Witness};
use crate::service::Service;
use crate::terminal;

pub use report::Finding;
use report::Report;

/// The most rows that one step reads or writes.
const ROWS_PER_READ: u64 = ROWS_PER_CHUNK as u64;
const ROWS_PER_CHUNK: usize = 2_000;
/// The most frames that one step reads or writes. A frame has up to 128 KiB and some hundred events.
const FRAMES_PER_CHUNK: usize = 32;

/// Finds lost pasts, recovers them, and reports what was found, what was done and what nobody knows.
///
/// # Errors
/// Fails if a database cannot be used.
pub async fn run(args: RecoverArgs) -> Result<Exit, Failure> {
    let RecoverArgs { stores: StoresArgs { data_dir, config }, service, dry_run } = args;
    let settings = Sources::of_process(&config).settings()?;
    let (locations, in_files) = locations(settings.databases, &data_dir);
    if locations.is_empty() {
        let help = "name the data directory with --data-dir, or the configuration of the mesh with --config";
        return Err(Failure::failed(format!("there is no database of any service in {}; {help}", data_dir.display())));
    }
    // locked, because a process that uses the files must not write at the same time
    let _held = if in_files && !dry_run { Some(DataDir::open(&data_dir)?) } else { None };
    let broker: Option<Arc<dyn Stream>> = match settings.events {
        None => None,
        Some(options) => {
            Some(Arc::new(JetStream::connect(options).await.map_err(|error| Failure::usage(chain(&error)))?))
        }
    };
    let databases = assembly::open_all(&locations).await?;
    let recovery = Recovery { databases, broker, clock: Clock::system(), dry_run };
    let outcome = Box::pin(recovery.run(service)).await;
    assembly::close_all(recovery.databases).await;
    let report = outcome?;
    terminal::print(&report.text(dry_run))?;
    Ok(if report.is_whole(dry_run) { Exit::Ok } else { Exit::Failed })
}

/// Recovers what services of a mesh have lost, from what the others and the stream know. Returns what is lost still.
///
/// # Errors
/// Fails if a database or the broker does. Then it may be run again.
pub async fn of_mesh(
    databases: BTreeMap<Service, Database>,
    broker: Arc<dyn Stream>,
    clock: Clock,
) -> Result<Vec<Lost>, Failure> {
    let recovery = Recovery { databases, broker: Some(broker), clock, dry_run: false };
    Ok(Box::pin(recovery.run(None)).await?.left)
}

/// What the services of a data directory have lost, as far as the others know. It only reads, also beside a process.
///
/// # Errors
/// Fails if a database cannot be used.
pub async fn lost_in(data_dir: &Path) -> Result<Vec<Finding>, Failure> {
    let (locations, _) = locations(BTreeMap::new(), data_dir);
    let databases = assembly::open_all(&locations).await?;
    let recovery = Recovery { databases, broker: None, clock: Clock::system(), dry_run: true };
    let outcome = Box::pin(recovery.run(None)).await;
    assembly::close_all(recovery.databases).await;
    Ok(outcome?.into_findings())
}

/// The databases, and whether at least one is a file of the data directory.
fn locations(configured: BTreeMap<Service, Location>, data_dir: &Path) -> (BTreeMap<Service, Location>, bool) {
    let mut locations = configured;
    let mut in_files = false;
    for (service, path) in files(data_dir) {
        locations.entry(service).or_insert_with(|| {
            in_files = true;
            Location::Sqlite(path)
        });
    }
    (locations, in_files)
}

/// What one service has lost of its log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Loss {
    /// The greatest position of the log that any consumer has read.
    read: i64,
    /// The lost positions, if the log has no other events there. `None` if it has.
    gap: Option<Gap>,
}

impl Loss {
    fn of(service: Service, lost: &[Lost]) -> Option<Self> {
        let mut found = lost.iter().filter(|lost| lost.service == service).peekable();
        found.peek()?;
        let (mut read, mut heads) = (0, Some(Vec::new()));
        for lost in found {
            let Witness::Reader { read_position, contradiction, .. } = &lost.witness else { continue };
            read = read.max(read_position.position);
            match contradiction {
                Contradiction::Shorter { head } => heads.iter_mut().for_each(|heads| heads.push(*head)),
                // then every consumer reads the whole log again
                Contradiction::Other => heads = None,
            }
        }
        let gap = heads.and_then(|heads| heads.into_iter().min()).map(|after| Gap { after, last: read });
        Some(Self { read, gap })
    }
}

pub(crate) struct Recovery {
    databases: BTreeMap<Service, Database>,
    broker: Option<Arc<dyn Stream>>,
    clock: Clock,
    dry_run: bool,
}

impl Recovery {
    async fn run(&self, named: Option<Service>) -> Result<Report, Failure> {
        let lost = self.examine().await?;
        let mut report = Report::new(&lost);
        let mut order = Service::ALL;
        order.sort_by_key(|service| *service != Service::Screening);
        for service in order {
            let forced = (named == Some(service)).then(Loss::default);
            if let Some(loss) = Loss::of(service, &lost).or(forced) {
                Box::pin(self.recover(service, loss, &mut report)).await?;
            }
        }
        if !self.dry_run {
            report.left = self.examine().await?;
        }
        Ok(report)
    }

    async fn examine(&self) -> Result<Vec<Lost>, Failure> {
        let lost = past::of_all(&self.databases, self.broker.as_deref()).await;
        lost.map_err(|error: NotAsked| Failure::failed(format!("cannot find out what is lost: {}", chain(&error))))
    }

    /// Recovers one service. Its last step records that nothing is lost any more.
    async fn recover(&self, service: Service, loss: Loss, report: &mut Report) -> Result<(), Failure> {
        let missed = self.missed(service).await?;
        match service {
            Service::Screening => self.screening(loss, &missed, report).await?,
            Service::Hospital => self.hospital(loss, &missed, report).await?,
            // a service that only folds events reads all of them again
            _ => {
                if !self.dry_run && loss.read > 0 {
                    let (database, now) = (self.database(service)?, self.clock.now());
                    store::past::skip(database, loss.read, loss.gap, now).await.map_err(failed)?;
                }
            }
        }
        let events = missed.iter().flat_map(|frame| &frame.events);
        let returned: Vec<String> = events.map(|event| event.event_id.clone()).collect();
        report.did(&format!("{service} has its events again that the stream has"), &returned);
        if self.dry_run {
            return Ok(());
        }
        self.have_read_again(service, loss).await?;
        let database = self.database(service)?;
        for chunk in missed.chunks(FRAMES_PER_CHUNK) {
            let frames = chunk.iter().map(|frame| frame.returned.clone()).collect();
            outbox::take_back(database, frames).await.map_err(failed)?;
        }
        Ok(())
    }

    fn database(&self, service: Service) -> Result<&Database, Failure> {
        self.databases.get(&service).ok_or_else(|| {
            let help = "name its data directory or its configuration too";
            Failure::failed(format!("there is no database of {service}, which knows what was lost; {help}"))
        })
    }

    /// If the log has gone on with other events, the other services read it again from its beginning. The recovered
    /// service reads the stream again from its beginning, because the stream remembers acknowledgements of events that
    /// the service has lost.
    async fn have_read_again(&self, service: Service, loss: Loss) -> Result<(), Failure> {
        if loss.read > 0 && loss.gap.is_none() {
            for (_, consumer) in self.databases.iter().filter(|(by, _)| **by != service) {
                inbox::read_again(consumer, service.name()).await.map_err(failed)?;
            }
        }
        let Some(broker) = &self.broker else { return Ok(()) };
        for consumer in service.row().consumers {
            broker.read_again(consumer).await.map_err(|error| broker_failed(&error))?;
        }
        Ok(())
    }

    /// The frames of a service that the stream has and its log lacks.
    async fn missed(&self, service: Service) -> Result<Vec<MissedFrame>, Failure> {
        let Some(broker) = &self.broker else { return Ok(Vec::new()) };
        let database = self.database(service)?;
        let (stream, sequence) = lease::published(database.reader()).await.map_err(failed)?;
        let known = outbox::ids(database.reader()).await.map_err(failed)?;
        let missed =
            broker.events_of(service.name(), &stream, sequence).await.map_err(|error| broker_failed(&error))?;
        let Some(mut missed) = missed else { return Ok(Vec::new()) };
        let mut frames = Vec::new();
        loop {
            let next = missed.next().await.map_err(|error| broker_failed(&error))?;
            if next.is_empty() {
                return Ok(frames);
            }
            for (sequence, Message { subject, payload }) in next {
                let Some(Published { frame_id, occur_time, events }) = past::read(&payload) else { continue };
                if !known.contains(&frame_id) {
                    let returned = Returned { frame_id, subject, payload, occur_time, sequence };
                    frames.push(MissedFrame { returned, events });
                }
            }
        }
    }
}

/// A frame that the stream has and its service's log lacks.
pub(crate) struct MissedFrame {
    returned: Returned,
    events: Vec<EventEnvelope>,
}

fn failed(error: DbErr) -> Failure {
    Failure::failed(format!("a database does not answer: {}; run the same again", chain(&error)))
}

fn broker_failed(error: &bus::Error) -> Failure {
    Failure::failed(format!("the broker does not answer: {}; run the same again", chain(error)))
}

fn refused(fault: fault::Fault) -> Failure {
    Failure::failed(format!("a database does not take what was lost: {fault:?}; run the same again"))
}
