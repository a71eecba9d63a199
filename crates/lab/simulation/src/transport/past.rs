//! The broker as those see it who look for a lost past.

use async_trait::async_trait;
use bus::{Error, Message};
use checkup::past::{Events, Stream};

use super::{Broker, Sender, matches};

impl Broker {
    /// The events of a producer that the stream has, with their sequences. `None` if there is no stream.
    fn messages_of(&self, producer: &str) -> Option<(String, Vec<(u64, Message)>)> {
        let state = self.lock();
        let stream = state.stream.as_ref()?;
        let filter = format!("checkup.v1.*.*.{producer}");
        let numbered = (1..).zip(&stream.events).filter(|(sequence, _)| !stream.lost.contains(sequence));
        let messages = numbered.filter(|(_, stored)| matches(&filter, &stored.message.subject));
        Some((stream.identity.clone(), messages.map(|(sequence, stored)| (sequence, stored.message.clone())).collect()))
    }
}

#[async_trait]
impl Stream for Sender {
    async fn newest_of(&self, producer: &str) -> Result<Option<Message>, Error> {
        self.travel().await?;
        Ok(self.broker.messages_of(producer).and_then(|(_, mut messages)| messages.pop()).map(|(_, message)| message))
    }

    async fn events_of(&self, producer: &str, known: &str, after: u64) -> Result<Option<Box<dyn Events>>, Error> {
        self.travel().await?;
        let found = self.broker.messages_of(producer);
        Ok(found.map(|(identity, mut messages)| {
            messages.retain(|(sequence, _)| identity != known || *sequence > after);
            Box::new(Messages(messages)) as Box<dyn Events>
        }))
    }

    async fn read_again(&self, consumer: &str) -> Result<(), Error> {
        self.travel().await?;
        self.broker.lock().stream().consumers.remove(consumer);
        self.broker.wake();
        Ok(())
    }
}

struct Messages(Vec<(u64, Message)>);

#[async_trait]
impl Events for Messages {
    async fn next(&mut self) -> Result<Vec<(u64, Message)>, Error> {
        Ok(std::mem::take(&mut self.0))
    }
}
