//! Finds services that lost their own past: the log lacks events that consumers have read or that the stream has.

mod stream;

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use store::inbox::{self, ReadPosition};
use store::past::{self, Contradiction};
use store::{Database, DbErr, Location};

use crate::data_dir::files;
use crate::exit::{Failure, chain};
use crate::service::Service;

pub use stream::{Events, NotAsked, Stream, of_stream};
pub(crate) use stream::{Published, read};

/// A log that lacks an event which somebody else knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lost {
    /// The service whose log it is.
    pub service: Service,
    /// The one who knows the event.
    pub witness: Witness,
}

/// The one who knows better than a log, and the evidence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Witness {
    /// A consumer that reads the log itself.
    Reader {
        /// The service of the consumer.
        by: Service,
        /// The position that the consumer has read.
        read_position: ReadPosition,
        /// How the log contradicts it.
        contradiction: Contradiction,
    },
    /// The stream, which has an event of this service that the log lacks.
    Stream {
        /// The aggregate of the event.
        aggregate: String,
        /// The id of the event.
        event_id: String,
    },
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.witness {
            Witness::Reader { by, read_position, contradiction: Contradiction::Shorter { head } } => {
                write!(f, "its log ends at position {head}, and {by} has read it up to {}", read_position.position)
            }
            Witness::Reader { by, read_position, contradiction: Contradiction::Other } => {
                write!(f, "its log does not have the event at position {} that {by} has read", read_position.position)
            }
            Witness::Stream { aggregate, event_id } => {
                write!(f, "the stream has its event {event_id} about {aggregate}, and its log does not")
            }
        }
    }
}

/// Compares the logs of these databases with what the consumers in the other databases have read.
///
/// # Errors
/// Fails if a database does.
pub async fn examine(databases: &BTreeMap<Service, Database>) -> Result<Vec<Lost>, DbErr> {
    let mut lost = Vec::new();
    for (service, producer) in databases {
        for (by, consumer) in databases.iter().filter(|(by, _)| *by != service) {
            for read_position in inbox::read_of(consumer.reader(), service.name()).await? {
                if let Some(contradiction) = past::contradiction(producer.reader(), &read_position).await? {
                    lost.push(Lost {
                        service: *service,
                        witness: Witness::Reader { by: *by, read_position, contradiction },
                    });
                }
            }
        }
    }
    Ok(lost)
}

/// Like [`examine`], and includes the files of services that do not run but are in the directory.
///
/// # Errors
/// Fails if a database cannot be opened or read.
pub async fn of_directory(
    databases: &BTreeMap<Service, Database>,
    directory: Option<&Path>,
) -> Result<Vec<Lost>, Failure> {
    let mut all = databases.clone();
    let mut beside = Vec::new();
    for (service, path) in directory.into_iter().flat_map(files).filter(|(service, _)| !databases.contains_key(service))
    {
        let opened = (service.row().open)(&Location::Sqlite(path)).await;
        let opened = opened.map_err(|error| Failure::failed(chain(&error)))?;
        beside.push(opened.clone());
        all.insert(service, opened);
    }
    let lost = examine(&all).await;
    drop(all);
    for database in beside {
        database.close().await;
    }
    lost.map_err(|error| Failure::failed(format!("a database does not answer: {}", chain(&error))))
}

/// Like [`examine`], and includes the stream if there is a broker.
///
/// # Errors
/// Fails if a database or the broker does.
pub async fn of_all(
    databases: &BTreeMap<Service, Database>,
    broker: Option<&dyn Stream>,
) -> Result<Vec<Lost>, NotAsked> {
    let mut lost = examine(databases).await?;
    if let Some(broker) = broker {
        lost.extend(of_stream(databases, broker).await?);
    }
    Ok(lost)
}

/// A sentence about what is lost and what to do. `how` is one of [`OF_FILES`] and [`OF_MESH`].
#[must_use]
pub fn sentence(lost: &[Lost], how: &str) -> String {
    let mut whose: BTreeMap<Service, &Lost> = BTreeMap::new();
    for lost in lost {
        whose.entry(lost.service).or_insert(lost);
    }
    let sentences: Vec<String> =
        whose.iter().map(|(service, lost)| format!("{service} has lost its own past: {lost}")).collect();
    format!(
        "{}; a database was put back to an earlier time; {how}, see docs/operations/backup.md",
        sentences.join("; ")
    )
}

/// What to do if one process has the files.
pub const OF_FILES: &str = "stop this process and run `checkup recover` on its data directory";
/// What to do in a mesh.
pub const OF_MESH: &str =
    "run `checkup recover` with the configuration of the mesh, and this process goes on by itself";
