//! A producer's outbox as a log for consumers in the same process.

use std::sync::Arc;

use async_trait::async_trait;
use bus::tail::{Entry, Log};
use bus::{Error, Message};
use store::{Database, outbox};
use tokio::sync::watch;

/// The outbox of one service.
#[derive(Debug, Clone)]
pub struct OutboxLog {
    name: &'static str,
    database: Database,
}

impl OutboxLog {
    /// The outbox in this database, under its service's name.
    #[must_use]
    pub fn new(name: &'static str, database: Database) -> Self {
        Self { name, database }
    }

    fn failed(&self, cause: impl std::error::Error + Send + Sync + 'static) -> Error {
        Error { source_name: self.name.to_owned(), cause: Box::new(cause) }
    }
}

#[async_trait]
impl Log for OutboxLog {
    fn name(&self) -> &str {
        self.name
    }

    async fn read_after(&self, position: i64, limit: usize) -> Result<Vec<Entry>, Error> {
        let entries = outbox::entries_after(&self.database, position, limit).await;
        let entries = entries.map_err(|cause| self.failed(cause))?;
        let entry = |outbox::Entry { position, subject, payload }| Entry {
            position,
            message: Arc::new(Message { subject, payload }),
        };
        Ok(entries.into_iter().map(entry).collect())
    }

    async fn head(&self) -> Result<i64, Error> {
        outbox::head(self.database.reader()).await.map_err(|cause| self.failed(cause))
    }

    fn changes(&self) -> watch::Receiver<u64> {
        self.database.commits()
    }
}
