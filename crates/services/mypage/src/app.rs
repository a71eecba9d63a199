//! The use cases: reads of one customer's page.

use domain::civil::{last_zone, today};
use domain::ids::CustomerId;
use domain::mypage::{Ahead, Item, ResumeToken, ahead};
use domain::page::Rows;
use domain::token::ConsistencyToken;
use fault::Fault;
use jiff::Timestamp;
use runtime::clock::Clock;
use sea_orm::DbErr;
use store::{Database, read};
use tokio::time::Instant;

use crate::decode::List;
use crate::tables::{items, pages};

/// A customer's page at one position of its changes.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) ahead: Ahead,
    pub(crate) token: ResumeToken,
    pub(crate) update_time: Option<Timestamp>,
}

#[derive(Debug, Clone)]
pub(crate) struct Pages {
    pub(crate) database: Database,
    pub(crate) clock: Clock,
}

impl Pages {
    pub(crate) fn new(database: Database, clock: Clock) -> Self {
        Self { database, clock }
    }

    pub(crate) async fn list(&self, query: &List) -> Result<Rows<Item>, Fault> {
        let List { customer, page, show_waitlisted, not_before: _ } = query;
        items::list(self.database.pages(), customer, *show_waitlisted, page).await.map_err(read::failed)
    }

    /// Waits until this view has applied the write that the token names.
    pub(crate) async fn wait_for(&self, token: ConsistencyToken, deadline: Instant) -> Result<(), Fault> {
        let seen = || items::seen_version(self.database.reader(), token.screening);
        read::wait_for(&self.database, token, deadline, seen).await
    }

    /// Reads a page and the position that it belongs to. If the position moved meanwhile, the page is read again.
    /// Changes and position are committed together, so a page whose position did not move belongs to that position on
    /// every database.
    pub(crate) async fn page(&self, customer: &CustomerId, show_waitlisted: bool) -> Result<Page, DbErr> {
        let connection = self.database.reader();
        let epoch = pages::epoch(connection).await?;
        let mut page = pages::find(connection, customer).await?;
        loop {
            let now = self.clock.now();
            let open = items::open(connection, customer, show_waitlisted, today(now, &last_zone())).await?;
            let after = pages::find(connection, customer).await?;
            if after == page {
                let token = ResumeToken { epoch, position: page.position };
                let ahead = ahead(open, show_waitlisted, now);
                return Ok(Page { ahead, token, update_time: page.update_time });
            }
            page = after;
        }
    }
}
