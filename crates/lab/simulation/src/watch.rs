//! Records what every consumer applies, and delays it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use fault::Fault;
use relay::{Consumer, Handler, Incoming};
use store::dead_letter::DeadLetter;
use store::inbox::InboxKey;

use crate::chance::Chance;
use crate::site::Site;

/// A handler that records and delays.
pub(crate) struct Watched {
    inner: Arc<dyn Handler>,
    who: String,
    site: Arc<Site>,
    chance: Mutex<Chance>,
}

impl Watched {
    /// The consumer with its handler wrapped.
    pub(crate) fn over(consumer: Consumer, host: &str, site: &Arc<Site>) -> Consumer {
        let who = format!("{host}/{}", consumer.name);
        let chance = Mutex::new(Chance::new(u64::from_be_bytes(runtime::entropy::bytes())));
        let handler = Self { inner: Arc::clone(&consumer.handler), who, site: Arc::clone(site), chance };
        let handler = Arc::new(handler);
        Consumer { handler, ..consumer }
    }
}

#[async_trait]
impl Handler for Watched {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let what = batch.iter().map(|event| {
            let fact = event.envelope.payload.as_ref().map_or("nothing", |payload| domain::event::fact(payload).1);
            format!("{fact} {} v{}", event.envelope.aggregate, event.envelope.aggregate_version)
        });
        let what: Vec<String> = what.collect();
        let work = {
            let mut chance = self.chance.lock().unwrap_or_else(PoisonError::into_inner);
            chance.between(Duration::ZERO, self.site.plan.work)
        };
        tokio::time::sleep(work).await;
        let outcome = self.inner.handle(batch).await;
        let result = outcome.as_ref().map_or_else(|fault| fault.reason().name(), |()| "applied");
        for event in what {
            self.site.trace.note(&self.who, &event, result);
        }
        outcome
    }

    async fn store_dead_letter(&self, dead_letter: DeadLetter, inbox_key: InboxKey) -> Result<(), Fault> {
        let what = format!("{} ({})", dead_letter.subject, dead_letter.error);
        let outcome = self.inner.store_dead_letter(dead_letter, inbox_key).await;
        self.site.trace.note(&self.who, &what, "DEAD LETTER");
        outcome
    }
}
