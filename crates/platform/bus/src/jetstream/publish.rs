//! Publishing: windows of events under one deadline.
//!
//! The acknowledgements of a window arrive at an inbox of its own. The client's own request machinery is not used,
//! because it never forgets a request whose answer was lost with a connection.

use std::ops::{Range, RangeInclusive};

use async_nats::header::NATS_MESSAGE_ID;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::response::Response;
use async_nats::{HeaderMap, HeaderValue, Message, StatusCode, Subscriber};
use async_trait::async_trait;
use futures::StreamExt;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use super::stream::id_of_another;
use super::{JetStream, Shared};
use crate::port::{Error, Outbound, Publish, StreamState};

/// The server refuses further events while ten thousand events of a stream are not stored yet; this stays well below.
const MAX_IN_FLIGHT: usize = 4_000;
const NOT_ACKNOWLEDGED: &str = "not acknowledged in time";
/// How many messages about one event the broker may know and have lost within its duplicate window.
const MAX_LOSSES: usize = 16;

/// The outcome of one event.
#[derive(Clone)]
enum Fate {
    Unknown,
    Stored(u64),
    /// The broker already knows the event's id and says that it stored it at this sequence.
    Known(u64),
    /// No stream listens to the event's subject.
    NoStream,
    Refused(String),
}

#[async_trait]
impl Publish for JetStream {
    async fn publish(&self, events: &[Outbound], deadline: Instant) -> Vec<Result<u64, Error>> {
        self.0.forget_refusal();
        let mut fates = vec![Fate::Unknown; events.len()];
        let mut reason = NOT_ACKNOWLEDGED.to_owned();
        for start in (0..events.len()).step_by(MAX_IN_FLIGHT) {
            let window = start..events.len().min(start + MAX_IN_FLIGHT);
            if let Err(failed) = self.0.window(events, window, &mut fates, deadline).await {
                reason = failed;
                break;
            }
        }
        let result = |fate| match fate {
            Fate::Stored(sequence) => Ok(sequence),
            Fate::Refused(refusal) => Err(self.0.error(refusal)),
            Fate::NoStream => Err(self.0.error("there is no stream")),
            Fate::Known(_) => Err(self.0.error("it is not known whether the broker still has it")),
            Fate::Unknown => Err(self.0.error(self.0.silence(&reason))),
        };
        fates.into_iter().map(result).collect()
    }

    async fn state(&self) -> Result<StreamState, Error> {
        self.0.stream_state().await
    }

    async fn id_at(&self, sequence: u64) -> Result<Option<String>, Error> {
        self.0.event_id_at(sequence).await
    }

    async fn gaps(&self) -> Result<Vec<RangeInclusive<u64>>, Error> {
        self.0.stream_gaps().await
    }

    async fn renumbered(&self) -> Result<(), Error> {
        self.0.count_renumbering().await
    }

    fn connections(&self) -> watch::Receiver<u64> {
        self.0.connections.subscribe()
    }
}

/// One event to send: its index in the slice of events, and the id of its message.
type Sending = (usize, String);

impl Shared {
    /// Publishes one window of the events. Events that met no stream are sent once more after the stream is made.
    /// Events that the broker takes for duplicates but has lost are sent under new ids.
    async fn window(
        &self,
        events: &[Outbound],
        window: Range<usize>,
        fates: &mut [Fate],
        deadline: Instant,
    ) -> Result<(), String> {
        let sending = |index: usize| (index, events[index].id.clone());
        self.attempt(events, window.clone().map(sending).collect(), fates, deadline).await?;
        let missed: Vec<_> =
            window.clone().filter(|index| matches!(fates[*index], Fate::NoStream)).map(sending).collect();
        if !missed.is_empty() {
            match timeout_at(deadline, self.stream()).await {
                Ok(Ok(_)) => self.attempt(events, missed, fates, deadline).await?,
                Ok(Err(error)) => return Err(format!("cannot make the stream: {}", error.cause)),
                Err(_) => return Err("cannot make the stream in time".into()),
            }
        }
        self.store_lost(events, window, fates, deadline).await
    }

    /// The broker remembers ids for a while, also those of events that it has since lost, and takes such events for
    /// duplicates. They are sent under new ids that name the sequence of the lost message. So each loss makes one more
    /// message, however often it is sent.
    async fn store_lost(
        &self,
        events: &[Outbound],
        window: Range<usize>,
        fates: &mut [Fate],
        deadline: Instant,
    ) -> Result<(), String> {
        for _ in 0..MAX_LOSSES {
            if !window.clone().any(|index| matches!(fates[index], Fate::Known(_))) {
                return Ok(());
            }
            let held = timeout_at(deadline, self.held())
                .await
                .map_err(|_| NOT_ACKNOWLEDGED)?
                .map_err(|error| error.cause.to_string())?;
            let mut again = Vec::new();
            for index in window.clone() {
                match fates[index] {
                    Fate::Known(sequence) if held.has(sequence) => fates[index] = Fate::Stored(sequence),
                    Fate::Known(lost) => again.push((index, id_of_another(&events[index].id, lost))),
                    _ => {}
                }
            }
            self.attempt(events, again, fates, deadline).await?;
        }
        Ok(())
    }

    async fn held(&self) -> Result<Held, Error> {
        let state = self.stream_state().await?;
        let gaps = if state.gaps == 0 { Vec::new() } else { self.stream_gaps().await? };
        Ok(Held { sequences: state.first..=state.last, gaps })
    }

    /// Sends these events and stores the broker's answer to each in `fates`. An error that concerns all of them is
    /// returned.
    async fn attempt(
        &self,
        events: &[Outbound],
        sending: Vec<Sending>,
        fates: &mut [Fate],
        deadline: Instant,
    ) -> Result<(), String> {
        if sending.is_empty() {
            return Ok(());
        }
        self.connected(deadline).await?;
        let mut connection = self.connection();
        let inbox = self.client.new_inbox();
        let subscribed = timeout_at(deadline, self.client.subscribe(format!("{inbox}.*"))).await;
        let mut acknowledgements = subscribed.map_err(|_| NOT_ACKNOWLEDGED)?.map_err(|error| error.to_string())?;
        let mut waiting = 0;
        for (index, id) in sending {
            let message = &events[index].message;
            let Ok(id) = id.parse::<HeaderValue>() else {
                fates[index] = Fate::Refused(format!("{id:?} is no event id"));
                continue;
            };
            let mut headers = HeaderMap::new();
            headers.insert(NATS_MESSAGE_ID, id);
            for (name, value) in &events[index].headers {
                headers.insert(*name, value.as_str());
            }
            let (subject, reply) = (message.subject.clone(), format!("{inbox}.{index}"));
            let payload = message.payload.clone().into();
            let sent = self.client.publish_with_reply_and_headers(subject, reply, headers, payload);
            match timeout_at(deadline, sent).await.map_err(|_| NOT_ACKNOWLEDGED)? {
                Ok(()) => waiting += 1,
                // The event is too large or its subject is invalid; the others may pass.
                Err(error) => fates[index] = Fate::Refused(error.to_string()),
            }
        }
        tokio::select! {
            biased;
            collected = collect(&mut acknowledgements, waiting, fates, deadline) => collected,
            // Events sent over the previous connection get no acknowledgement any more.
            () = connection.replaced(self) => Err("the connection was lost".into()),
        }
    }
}

/// The sequences that a stream still holds.
struct Held {
    sequences: RangeInclusive<u64>,
    gaps: Vec<RangeInclusive<u64>>,
}

impl Held {
    fn has(&self, sequence: u64) -> bool {
        self.sequences.contains(&sequence) && !self.gaps.iter().any(|gap| gap.contains(&sequence))
    }
}

async fn collect(
    acknowledgements: &mut Subscriber,
    mut waiting: usize,
    fates: &mut [Fate],
    deadline: Instant,
) -> Result<(), String> {
    while waiting > 0 {
        let answer = timeout_at(deadline, acknowledgements.next()).await.map_err(|_| NOT_ACKNOWLEDGED)?;
        let answer = answer.ok_or("the client was closed")?;
        let index = answer.subject.rsplit('.').next().and_then(|index| index.parse::<usize>().ok());
        if let Some(fate) = index.and_then(|index| fates.get_mut(index)) {
            *fate = read(&answer);
            waiting -= 1;
        }
    }
    Ok(())
}

fn read(answer: &Message) -> Fate {
    if answer.status == Some(StatusCode::NO_RESPONDERS) {
        return Fate::NoStream;
    }
    match serde_json::from_slice::<Response<PublishAck>>(&answer.payload) {
        Ok(Response::Ok(known)) if known.duplicate => Fate::Known(known.sequence),
        Ok(Response::Ok(stored)) => Fate::Stored(stored.sequence),
        Ok(Response::Err { error }) => Fate::Refused(error.to_string()),
        Err(error) => Fate::Refused(format!("unreadable acknowledgement: {error}")),
    }
}
