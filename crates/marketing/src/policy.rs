//! The reaction to Hospital's and Screening's events: they are folded into the demand, each source at its own pace.

use std::time::Duration;

use ::store::Writer;
use ::store::dead_letter::DeadLetter;
use ::store::inbox::Mark;
use async_trait::async_trait;
use domain::demand::Fact;
use fault::Fault;
use relay::{Handler, Incoming};
use tokio::time::Instant;

use crate::unit::{Arrived, Command, Demand};

/// The durable consumer of Hospital's events.
pub(crate) const HOSPITAL: &str = "marketing-hospital";
/// The durable consumer of Screening's events.
pub(crate) const SCREENING: &str = "marketing-screening";

/// How long a batch may wait for its commit; it is handed in again after that.
const PATIENCE: Duration = Duration::from_secs(30);

/// Hands one consumer's events to the writer.
#[derive(Debug)]
pub(crate) struct Facts {
    consumer: &'static str,
    writer: Writer<Demand>,
}

impl Facts {
    pub(crate) fn new(consumer: &'static str, writer: Writer<Demand>) -> Self {
        Self { consumer, writer }
    }

    async fn submit(&self, command: Command) -> Result<(), Fault> {
        self.writer.submit(command, Instant::now() + PATIENCE).await.map(drop)
    }
}

fn decode(incoming: &Incoming) -> Result<Arrived, Fault> {
    let fact = Fact::decode(&incoming.envelope).map_err(|malformed| Fault::internal(malformed.0))?;
    Ok(Arrived { mark: incoming.mark.clone(), fact })
}

#[async_trait]
impl Handler for Facts {
    async fn handle(&self, batch: &[Incoming]) -> Result<(), Fault> {
        let arrived = batch.iter().map(decode).collect::<Result<Vec<_>, Fault>>()?;
        self.submit(Command::Consume(self.consumer, arrived)).await
    }

    async fn bury(&self, letter: DeadLetter, mark: Mark) -> Result<(), Fault> {
        self.submit(Command::Bury(self.consumer, letter, mark)).await
    }
}
