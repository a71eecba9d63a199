//! The link between a service's tables and the transports of events: the only crate that knows both `store` and `bus`.
//!
//! Outwards, [`publish`] sends a service's outbox to a broker; without a broker, [`OutboxLog`] presents it as a log.
//! Inwards, [`consume`] passes batches to a service's [`Handler`], which applies them and their inbox keys in one
//! transaction. A service that only folds events into tables gets its handler from a [`Projection`]; one that keeps
//! nothing of them [`follow`]s the newest. [`Retention`] removes old events. This crate does not know what an event
//! means.

mod apply;
mod consume;
mod consumer;
mod follow;
mod log;
mod pace;
mod projection;
mod publish;
mod retention;
mod upkeep;
mod witness;

pub use consume::consume;
pub use consumer::{ConsumeOptions, Consumer, Handler, Incoming};
pub use follow::{Follower, Listener, follow};
pub use log::OutboxLog;
pub use projection::{Admission, Projection, Projector, Task};
pub use publish::{PublishOptions, publish};
pub use retention::{Removed, Retention, Versions};
pub use witness::Witness;

/// An error and its causes on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text = format!("{text}: {next}");
        cause = next.source();
    }
    text
}
