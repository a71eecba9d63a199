//! The reaction to Screening's events: they are folded into the ledger, in the order they come.

use std::time::Duration;

use ::store::Writer;
use ::store::dead_letter::DeadLetter;
use ::store::inbox::Mark;
use async_trait::async_trait;
use domain::screening_fact::ScreeningFact;
use fault::Fault;
use relay::{Handler, Incoming};
use tokio::time::Instant;

use crate::unit::{Arrived, Command, Ledger};

/// The durable consumer of Screening's events.
pub(crate) const SCREENINGS: &str = "reservation-screenings";

/// How long a batch may wait for its commit; it is handed in again after that.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hands events to the writer.
#[derive(Debug)]
pub(crate) struct Screenings {
    writer: Writer<Ledger>,
}

impl Screenings {
    pub(crate) fn new(writer: Writer<Ledger>) -> Self {
        Self { writer }
    }

    async fn submit(&self, command: Command) -> Result<(), Fault> {
        self.writer.submit(command, Instant::now() + PATIENCE).await
    }
}

#[async_trait]
impl Handler for Screenings {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let arrived = batch.iter().map(|incoming| {
            let fact = ScreeningFact::decode(&incoming.envelope).map_err(|malformed| Fault::internal(malformed.0))?;
            Ok(Arrived { mark: incoming.mark.clone(), event_id: incoming.event_id, fact })
        });
        let arrived = arrived.collect::<Result<_, Fault>>()?;
        self.submit(Command::Consume(arrived)).await
    }

    async fn bury(&self, letter: DeadLetter, mark: Mark) -> Result<(), Fault> {
        self.submit(Command::Bury(letter, mark)).await
    }
}
