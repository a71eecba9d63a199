//! How events travel between services: a port, the transport without a broker, and the one over NATS JetStream.
//!
//! [`Subscribe`] is what a consumer sees and [`Publish`] what a producer's relay sees. [`tail::Tailer`] serves consumers by
//! reading the producers' own logs, in order, in the same process, and needs no publishing. [`jetstream::JetStream`] serves
//! both sides by one stream. It knows messages, not what they mean, and no database.

pub mod jetstream;
mod port;
pub mod tail;

pub use port::{Delivery, Error, Message, Outbound, Position, Publish, StreamState, Subscribe, Subscription};
