//! How events travel between services: a port, the transport without a broker, and the one over NATS JetStream.
//!
//! A consumer uses [`Subscribe`], a producer's relay uses [`Publish`]. [`tail::Tailer`] serves consumers by reading the
//! producers' own logs, in order and in the same process; nothing needs to be published. [`jetstream::JetStream`]
//! serves both sides with one stream. This crate handles messages without knowing their meaning, and knows no database.

pub mod jetstream;
mod port;
pub mod tail;

pub use port::{Delivery, Error, Follow, Message, Outbound, Position, Publish, StreamState, Subscribe, Subscription};
