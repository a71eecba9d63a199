//! The state that all hosts of a run share.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use runtime::identity::Signer;
use store::Location;
use tokio::runtime::Handle;
use uuid::Uuid;

use crate::commits::Fates;
use crate::plan::Plan;
use crate::restore::Restore;
use crate::schema;
use crate::trace::Trace;
use crate::transport::Broker;

/// The state that all hosts share.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) plan: Plan,
    pub(crate) data: PathBuf,
    /// The runtime on which databases work.
    pub(crate) side: Handle,
    pub(crate) signer: Signer,
    pub(crate) broker: Broker,
    pub(crate) trace: Trace,
    pub(crate) fates: Arc<Fates>,
    /// The events that consumers have applied, for a planted bug.
    pub(crate) applied: Applied,
    pub(crate) restore: Restore,
}

impl Site {
    /// Where a database is now.
    pub(crate) fn location(&self, name: &str) -> Location {
        schema::location(&self.data, &self.restore.current(name))
    }
}

/// The ids of the events that some consumer has applied.
#[derive(Debug, Default)]
pub(crate) struct Applied(Mutex<BTreeSet<Uuid>>);

impl Applied {
    /// Records the event and returns whether it was applied before.
    pub(crate) fn again(&self, event: Uuid) -> bool {
        !self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(event)
    }
}
