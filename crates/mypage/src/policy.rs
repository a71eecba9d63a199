//! The reaction to Screening's events: they are folded into the view, and whoever watches is woken.

use std::collections::BTreeSet;
use std::time::Duration;

use ::store::Writer;
use ::store::dead_letter::DeadLetter;
use ::store::inbox::Mark;
use async_trait::async_trait;
use domain::ids::CustomerId;
use domain::screening_fact::ScreeningFact;
use fault::Fault;
use relay::{Handler, Incoming};
use tokio::time::Instant;

use crate::hub::Hub;
use crate::unit::{Arrived, Command, Fold};

/// The durable consumer of Screening's events.
pub(crate) const SCREENINGS: &str = "mypage-screenings";

/// How long a batch may wait for its commit; it is handed in again after that.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hands events to the writer.
#[derive(Debug)]
pub(crate) struct Screenings {
    writer: Writer<Fold>,
    hub: Hub,
}

impl Screenings {
    pub(crate) fn new(writer: Writer<Fold>, hub: Hub) -> Self {
        Self { writer, hub }
    }

    async fn submit(&self, command: Command) -> Result<(), Fault> {
        self.writer.submit(command, Instant::now() + PATIENCE).await.map(drop)
    }
}

fn decode(incoming: &Incoming) -> Result<Arrived, Fault> {
    let fact = ScreeningFact::decode(&incoming.envelope).map_err(|malformed| Fault::internal(malformed.0))?;
    Ok(Arrived { mark: incoming.mark.clone(), fact })
}

#[async_trait]
impl Handler for Screenings {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let arrived = batch.iter().map(decode).collect::<Result<Vec<_>, Fault>>()?;
        let customers: BTreeSet<CustomerId> = arrived
            .iter()
            .filter_map(|event| match &event.fact {
                Some(ScreeningFact::Booking(booking)) => Some(booking.customer.clone()),
                Some(ScreeningFact::Fence { .. }) | None => None,
            })
            .collect();
        let outcome = self.submit(Command::Consume(arrived)).await;
        // also after a failure: its outcome may be unknown, and a batch that comes again after it did commit changes nothing
        self.hub.wake(&customers);
        outcome
    }

    async fn bury(&self, letter: DeadLetter, mark: Mark) -> Result<(), Fault> {
        self.submit(Command::Bury(letter, mark)).await
    }
}
