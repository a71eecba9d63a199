//! Between a service's tables and the roads events travel: the only crate that knows both `store` and `bus`.
//!
//! Outwards an [`OutboxLog`] shows a producer's outbox as a log. Inwards [`consume`] hands batches to a service's
//! [`Handler`], which applies them together with their inbox marks in one transaction. What an event means is not known here.

mod consume;
mod log;

pub use consume::{ConsumeOptions, Consumer, Handler, Incoming, consume};
pub use log::OutboxLog;
