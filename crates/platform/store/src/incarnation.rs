//! The identity of the database that answers: the same as before, or perhaps an older copy in its place.
//!
//! Putting a database back to an earlier time ends every connection to it: its server stops, or it is dropped and made
//! again. So each new connection compares the database that it finds with the known one. If they differ, the database
//! is in doubt, and nobody gets a new connection until an operator or a check has examined its content. A restart of
//! the server puts it in doubt too. Files have no server; the process that uses a file keeps it open.

use std::sync::atomic::{AtomicBool, Ordering};

use sea_orm::sqlx::{self, PgConnection, Row};
use tokio::sync::watch;

/// The start time of a database's server, and the number that the server gave the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incarnation(String);

/// The databases that were found behind one address.
#[derive(Debug, Default)]
pub(crate) struct Incarnations {
    /// Whether somebody examines databases that are in doubt.
    watched: AtomicBool,
    trusted: watch::Sender<Option<Incarnation>>,
    doubted: watch::Sender<Option<Incarnation>>,
}

impl Incarnations {
    pub(crate) fn trusted(&self) -> Option<Incarnation> {
        self.trusted.borrow().clone()
    }

    pub(crate) fn trust(&self, incarnation: Incarnation) {
        self.trusted.send_replace(Some(incarnation));
    }

    /// From now on, databases in doubt wait for [`Incarnations::trust`].
    pub(crate) fn doubts(&self) -> watch::Receiver<Option<Incarnation>> {
        let doubts = self.doubted.subscribe();
        self.watched.store(true, Ordering::Release);
        doubts
    }

    /// Returns once a new connection may be used.
    pub(crate) async fn admit(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let found = find(connection).await?;
        let mut trusted = self.trusted.subscribe();
        if !self.watched.load(Ordering::Acquire) {
            self.trust(found);
            return Ok(());
        }
        while trusted.borrow_and_update().as_ref() != Some(&found) {
            self.doubted.send_replace(Some(found.clone()));
            if trusted.changed().await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }
}

async fn find(connection: &mut PgConnection) -> Result<Incarnation, sqlx::Error> {
    const SQL: &str = "SELECT extract(epoch FROM pg_postmaster_start_time())::text || '/' || oid::text \
                       FROM pg_database WHERE datname = current_database()";
    sqlx::raw_sql(SQL).fetch_one(connection).await?.try_get(0).map(Incarnation)
}
