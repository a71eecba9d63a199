//! Folds facts into bookings as they are shown, and stores each change under the next position of its customer's page.

use std::collections::BTreeSet;

use async_trait::async_trait;
use domain::ids::{CustomerId, Malformed, ScreeningId};
use domain::screening_fact::ScreeningFact;
use jiff::{SignedDuration, Timestamp};
use relay::{Admission, Incoming, Projection};
use runtime::clock::Clock;
use sea_orm::DbErr;
use store::{Transaction, micros};

use crate::hub::Hub;
use crate::tables::items::{Change, Version};
use crate::tables::{changes, items, pages};

/// Folds facts into items, keeps the latest changes for streams that resume, and wakes the streams that watch.
#[derive(Debug)]
pub(crate) struct MyPageProjection {
    pub(crate) clock: Clock,
    pub(crate) hub: Hub,
    pub(crate) change_age: SignedDuration,
    /// The most changes that are kept, of all customers together.
    pub(crate) change_count: u64,
}

#[async_trait]
impl Projection for MyPageProjection {
    type Fact = ScreeningFact;

    // each change must get exactly one position
    const ADMISSION: Admission = Admission::Once;

    fn decode(event: &Incoming) -> Result<Option<ScreeningFact>, Malformed> {
        ScreeningFact::decode(&event.envelope)
    }

    async fn fold(&self, transaction: &Transaction, facts: Vec<&ScreeningFact>) -> Result<(), DbErr> {
        let screenings: BTreeSet<ScreeningId> = facts.iter().map(|fact| fact.screening()).collect();
        pages::lock(transaction, &customers(&facts)).await?;
        let before = items::load_for_update(transaction, &screenings).await?;
        let mut after = before.clone();
        let mut changed: Vec<Version> = Vec::new();
        for fact in facts {
            let shown = after.entry(fact.screening()).or_default();
            let was_shown = shown.item.as_ref().is_some_and(|item| item.state.is_shown());
            if shown.apply(fact) {
                changed.extend(shown.item.clone().map(|item| Version::new(fact, was_shown, item)));
            }
        }
        items::save_hidden(transaction, &before, &after).await?;

        let customers = changed.iter().map(|version| &version.item.customer).collect();
        let mut pages = pages::load(transaction, &customers).await?;
        let change = |version: Version| {
            let page = pages.entry(version.item.customer.clone()).or_default();
            let page_update_time = page.advance(version.item.update_time);
            Change { position: page.position, page_update_time, version }
        };
        let changes = changed.into_iter().map(change).collect();
        items::append(transaction, &before, changes, micros(self.clock.now())).await
    }

    async fn prune(&self, transaction: &Transaction, now: Timestamp) -> Result<bool, DbErr> {
        let older_than = now.checked_sub(self.change_age).map_or(i64::MIN, micros);
        changes::prune(transaction, older_than, self.change_count).await
    }

    fn after_batch(&self, facts: &[&ScreeningFact]) {
        self.hub.wake(customers(facts));
    }
}

/// The customers whose pages these facts may change.
fn customers<'a>(facts: &[&'a ScreeningFact]) -> BTreeSet<&'a CustomerId> {
    let customers = facts.iter().filter_map(|fact| match fact {
        ScreeningFact::Booking(booking) => Some(&booking.customer),
        ScreeningFact::Fence { .. } => None,
    });
    customers.collect()
}
