//! The stream: making it, its limits, and what it has lost.

use std::hash::{BuildHasher, RandomState};
use std::ops::RangeInclusive;
use std::time::Duration;

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RawMessageErrorKind, RetentionPolicy, StorageType};

use super::Shared;
use crate::port::{Error, StreamState};

/// Matches every event of the system; see [`Message::subject`](crate::Message::subject).
const SUBJECTS: &str = "checkup.v1.>";
/// The stream's metadata key that counts how often its sequences were given out again; see
/// [`Publish::renumbered`](crate::Publish::renumbered).
const RENUMBERED_SUBJECT: &str = "checkup.renumbered";
/// Separates the event's id from the rest of a message id if an event has more than one message.
const REPEAT_SEPARATOR: char = '#';

impl Shared {
    /// Returns the stream. An owner makes it if it is missing, and updates its settings to the options.
    pub(super) async fn stream(&self) -> Result<Info, Error> {
        let found = match self.ask(self.context.get_stream(&self.options.stream)).await? {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    if !self.options.owns_stream {
                        return Err(self.error("there is no stream yet"));
                    }
                    self.create_stream().await?
                }
                _ => return Err(self.error(error)),
            },
        };
        if !self.options.owns_stream {
            return Ok(found);
        }
        let wanted = self.limits(found.config.clone());
        if wanted == found.config {
            return Ok(found);
        }
        self.answer(self.context.update_stream(wanted)).await
    }

    async fn create_stream(&self) -> Result<Info, Error> {
        let first_sequence = Some(self.options.first_sequence.unwrap_or_else(random_sequence));
        let config = self.limits(Config { first_sequence, ..Config::default() });
        let created = self.ask(self.context.create_stream(config)).await?;
        let stream = match created {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                // Another process with other options made the stream first.
                CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                    self.answer(self.context.get_stream(&self.options.stream)).await?
                }
                _ => return Err(self.error(error)),
            },
        };
        Ok(stream.cached_info().clone())
    }

    /// `config` with every setting that this system relies on.
    fn limits(&self, config: Config) -> Config {
        // The broker refuses to know ids for longer than events.
        let max_age = Some(self.options.max_age).filter(|age| !age.is_zero());
        Config {
            name: self.options.stream.clone(),
            subjects: vec![SUBJECTS.into()],
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            // The oldest events must not be dropped to make room, because a consumer may not have read them. Producers
            // wait instead.
            discard: DiscardPolicy::New,
            max_bytes: self.options.max_bytes,
            // These limits would make the stream drop old events, whatever `discard` is.
            max_messages: -1,
            max_messages_per_subject: -1,
            // Nobody may delete events that others have not read. The broker never lets these two settings be undone.
            deny_delete: true,
            deny_purge: true,
            max_age: self.options.max_age,
            duplicate_window: self.options.duplicate_window.min(max_age.unwrap_or(Duration::MAX)),
            num_replicas: self.options.replicas,
            // A transform could store one producer's messages under another's subjects, and sources could add some.
            subject_transform: None,
            republish: None,
            sources: None,
            mirror: None,
            ..config
        }
    }

    pub(super) async fn stream_state(&self) -> Result<StreamState, Error> {
        let info = self.stream().await?;
        let (last, messages) = (info.state.last_sequence, info.state.messages);
        let first = if messages == 0 { last + 1 } else { info.state.first_sequence };
        let gaps = (last + 1).saturating_sub(first).saturating_sub(messages);
        let origin = info.config.first_sequence.unwrap_or(1);
        Ok(StreamState {
            identity: identity(&info),
            origin,
            first,
            last,
            gaps,
            max_age: info.config.max_age,
            bytes: info.state.bytes,
            // -1 for no limit
            max_bytes: u64::try_from(info.config.max_bytes).ok(),
        })
    }

    /// The id of the event at this sequence, even if the message is a repeated one.
    pub(super) async fn event_id_at(&self, sequence: u64) -> Result<Option<String>, Error> {
        let stream = self.context.get_stream_no_info(&self.options.stream).await.map_err(|error| self.error(error))?;
        match self.ask(stream.get_raw_message(sequence)).await? {
            Ok(message) => {
                let id = message.headers.get(async_nats::header::NATS_MESSAGE_ID);
                Ok(id.map(|id| id.as_str().split(REPEAT_SEPARATOR).next().unwrap_or_default().to_owned()))
            }
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }

    /// The sequences between the first and the last that have no event.
    pub(super) async fn stream_gaps(&self) -> Result<Vec<RangeInclusive<u64>>, Error> {
        let stream = self.context.get_stream_no_info(&self.options.stream).await.map_err(|error| self.error(error))?;
        let asking = async { stream.info_builder().with_deleted(true).fetch().await };
        let found = self.answer(asking).await?;
        Ok(ranges(found.info.state.deleted.unwrap_or_default()))
    }

    pub(super) async fn count_renumbering(&self) -> Result<(), Error> {
        let mut config = self.stream().await?.config;
        let count = renumberings(&config) + 1;
        config.metadata.insert(RENUMBERED_SUBJECT.to_owned(), count.to_string());
        self.answer(self.context.update_stream(config)).await.map(drop)
    }
}

/// The message id for an event whose earlier message, at sequence `lost`, the broker knows and has lost.
pub(super) fn id_of_another(event_id: &str, lost: u64) -> String {
    format!("{event_id}{REPEAT_SEPARATOR}{lost}")
}

/// A number from 1 to 2^52: every client can read it, and two streams hardly ever have the same sequences.
fn random_sequence() -> u64 {
    // Each state has keys of its own, at random.
    (RandomState::new().hash_one(0) >> 12) + 1
}

/// How often the stream gave out sequences again.
fn renumberings(config: &Config) -> u64 {
    config.metadata.get(RENUMBERED_SUBJECT).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The name of the stream for ordered readers. Positions keep their meaning for as long as it does not change.
pub(super) fn numbering(info: &Info) -> String {
    match renumberings(&info.config) {
        0 => identity(info),
        count => format!("{}+{count}", identity(info)),
    }
}

fn ranges(mut sequences: Vec<u64>) -> Vec<RangeInclusive<u64>> {
    sequences.sort_unstable();
    let runs = sequences.chunk_by(|one, next| *next <= one + 1);
    runs.filter_map(|run| Some(*run.first()?..=*run.last()?)).collect()
}

/// The identity of a stream: its time of creation, which differs for a stream that was recreated under the same name.
pub(super) fn identity(info: &Info) -> String {
    info.created.unix_timestamp_nanos().to_string()
}

#[cfg(test)]
mod tests {
    use super::ranges;

    #[test]
    fn sequences_that_follow_each_other_are_one_range() {
        assert_eq!(ranges(vec![]), []);
        assert_eq!(ranges(vec![7, 3, 4, 5, 9, 10]), [3..=5, 7..=7, 9..=10]);
    }
}
