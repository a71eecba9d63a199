//! Wakes the streams of a customer when that customer's page may have changed.
//!
//! It carries no content: a stream that is woken reads the table, so a slow one piles up nothing, and a wake-up too many
//! costs one read. It holds one entry a customer who is being watched.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::ids::CustomerId;
use tokio::sync::watch;

type Watched = HashMap<CustomerId, watch::Sender<()>>;

/// A cheap handle.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<Watched>>);

/// One stream's ear. Dropping it forgets the stream, and the customer with the last one.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Hub,
    customer: CustomerId,
    woken: Option<watch::Receiver<()>>,
}

impl Hub {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        // every critical section is one map operation, so the map is whole even where a holder panicked
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to listen for a customer. Subscribe before the first read, or a change in between goes unheard.
    pub(crate) fn subscribe(&self, customer: &CustomerId) -> Subscription {
        let woken = self.watched().entry(customer.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        Subscription { hub: self.clone(), customer: customer.clone(), woken: Some(woken) }
    }

    /// Wakes the streams of these customers.
    pub(crate) fn wake<'a>(&self, customers: impl IntoIterator<Item = &'a CustomerId>) {
        let watched = self.watched();
        for sender in customers.into_iter().filter_map(|customer| watched.get(customer)) {
            sender.send_replace(());
        }
    }
}

impl Subscription {
    /// Takes note of every wake-up so far; what follows a read after this is heard.
    pub(crate) fn mark_heard(&mut self) {
        if let Some(woken) = &mut self.woken {
            woken.mark_unchanged();
        }
    }

    /// Waits for a wake-up since the last [`Subscription::mark_heard`].
    pub(crate) async fn woken(&mut self) {
        if let Some(woken) = &mut self.woken {
            // the sender lives in the hub for as long as this receiver does
            drop(woken.changed().await);
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut watched = self.hub.watched();
        self.woken = None;
        if watched.get(&self.customer).is_some_and(|sender| sender.receiver_count() == 0) {
            watched.remove(&self.customer);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn a_wake_up_is_heard_once_and_by_its_customer_alone() {
        let hub = Hub::default();
        let [kim, lee] = ["kim", "lee"].map(|id| CustomerId::from_segment(id).unwrap());
        let (mut first, mut second, mut other) = (hub.subscribe(&kim), hub.subscribe(&kim), hub.subscribe(&lee));
        hub.wake([&kim]);
        first.woken().await;
        second.woken().await;
        assert!(first.woken().now_or_never().is_none());
        assert!(other.woken().now_or_never().is_none());
        hub.wake([&kim]);
        first.mark_heard();
        assert!(first.woken().now_or_never().is_none());
    }

    #[test]
    fn who_left_is_forgotten() {
        let hub = Hub::default();
        let kim = CustomerId::from_segment("kim").unwrap();
        let (first, second) = (hub.subscribe(&kim), hub.subscribe(&kim));
        drop(first);
        assert_eq!(hub.watched().len(), 1);
        drop(second);
        assert!(hub.watched().is_empty());
        hub.wake([&kim]);
    }
}
