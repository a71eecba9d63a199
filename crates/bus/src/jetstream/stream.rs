//! The stream itself.

use async_nats::jetstream::ErrorCode;
use async_nats::jetstream::context::{CreateStreamErrorKind, GetStreamErrorKind};
use async_nats::jetstream::stream::{Config, DiscardPolicy, Info, RawMessageErrorKind, RetentionPolicy, StorageType};

use super::Shared;
use crate::port::{Error, StreamState};

/// Every event of the system; see [`Message::subject`](crate::Message::subject).
const SUBJECTS: &str = "checkup.v1.>";

impl Shared {
    /// Makes the stream where it is missing, and holds it to the options.
    pub(super) async fn stream(&self) -> Result<Info, Error> {
        let found = match self.ask(self.context.get_stream(&self.options.stream)).await? {
            Ok(stream) => stream.cached_info().clone(),
            Err(error) => match error.kind() {
                GetStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NOT_FOUND => {
                    self.create_stream().await?
                }
                _ => return Err(self.error(error)),
            },
        };
        let wanted = self.limits(found.config.clone());
        if wanted == found.config {
            return Ok(found);
        }
        self.answer(self.context.update_stream(wanted)).await
    }

    async fn create_stream(&self) -> Result<Info, Error> {
        let created = self.ask(self.context.create_stream(self.limits(Config::default()))).await?;
        let stream = match created {
            Ok(stream) => stream,
            Err(error) => match error.kind() {
                // Somebody with other options was faster.
                CreateStreamErrorKind::JetStream(error) if error.error_code() == ErrorCode::STREAM_NAME_EXIST => {
                    self.answer(self.context.get_stream(&self.options.stream)).await?
                }
                _ => return Err(self.error(error)),
            },
        };
        Ok(stream.cached_info().clone())
    }

    /// `config` with everything in it that this system cares about.
    fn limits(&self, config: Config) -> Config {
        Config {
            name: self.options.stream.clone(),
            subjects: vec![SUBJECTS.into()],
            storage: StorageType::File,
            retention: RetentionPolicy::Limits,
            // The oldest events must not go to make room: somebody may not have read them. Producers wait.
            discard: DiscardPolicy::New,
            max_bytes: self.options.max_bytes,
            max_age: self.options.max_age,
            duplicate_window: self.options.duplicate_window,
            num_replicas: self.options.replicas,
            ..config
        }
    }

    pub(super) async fn stream_state(&self) -> Result<StreamState, Error> {
        let info = self.stream().await?;
        let last = info.state.last_sequence;
        let first = if info.state.messages == 0 { last + 1 } else { info.state.first_sequence };
        Ok(StreamState { identity: identity(&info), first, last })
    }

    pub(super) async fn message_id_at(&self, sequence: u64) -> Result<Option<String>, Error> {
        let stream = self.context.get_stream_no_info(&self.options.stream).await.map_err(|error| self.error(error))?;
        match self.ask(stream.get_raw_message(sequence)).await? {
            Ok(message) => Ok(message.headers.get(async_nats::header::NATS_MESSAGE_ID).map(ToString::to_string)),
            Err(error) if error.kind() == RawMessageErrorKind::NoMessageFound => Ok(None),
            Err(error) => Err(self.error(error)),
        }
    }
}

/// A stream that was made anew has another time of creation, though the same name.
pub(super) fn identity(info: &Info) -> String {
    info.created.unix_timestamp_nanos().to_string()
}
