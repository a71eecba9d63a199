//! How events travel between services: a port, and the road it has without a broker.
//!
//! [`Subscribe`] is what a consumer sees. [`tail::Tailer`] serves it by reading the producers' own logs, in order, in the
//! same process; a broker serves it by durable consumers. It knows messages, not what they mean, and no database.

mod port;
pub mod tail;

pub use port::{Delivery, Error, Message, Place, Subscribe, Subscription};
