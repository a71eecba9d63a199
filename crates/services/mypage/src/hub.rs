//! Wakes the streams of a customer when the customer's page may have changed.
//!
//! A wake-up carries no content: a stream that is woken reads the table. So nothing piles up for a slow stream, and a
//! needless wake-up costs one read. The hub has one entry per watched customer.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::ids::CustomerId;
use tokio::sync::watch;

type Watched = HashMap<CustomerId, watch::Sender<()>>;

/// The hub. Clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Hub(Arc<Mutex<Watched>>);

/// The subscription of one stream. Dropping the last one of a customer removes the customer's entry.
#[derive(Debug)]
pub(crate) struct Subscription {
    hub: Hub,
    customer: CustomerId,
    woken: Option<watch::Receiver<()>>,
}

impl Hub {
    fn watched(&self) -> MutexGuard<'_, Watched> {
        // a poisoned lock is harmless: every critical section is one operation on the map
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Subscribes to a customer's page. Subscribe before the first read, or a change between the two is missed.
    pub(crate) fn subscribe(&self, customer: &CustomerId) -> Subscription {
        let woken = self.watched().entry(customer.clone()).or_insert_with(|| watch::Sender::new(())).subscribe();
        Subscription { hub: self.clone(), customer: customer.clone(), woken: Some(woken) }
    }

    pub(crate) fn wake<'a>(&self, customers: impl IntoIterator<Item = &'a CustomerId>) {
        let watched = self.watched();
        for sender in customers.into_iter().filter_map(|customer| watched.get(customer)) {
            sender.send_replace(());
        }
    }
}

impl Subscription {
    /// Forgets every wake-up so far. A change after the next read wakes the stream again.
    pub(crate) fn mark_seen(&mut self) {
        if let Some(woken) = &mut self.woken {
            woken.mark_unchanged();
        }
    }

    /// Waits for a wake-up after the last [`Subscription::mark_seen`].
    pub(crate) async fn woken(&mut self) {
        if let Some(woken) = &mut self.woken {
            // the sender stays in the hub as long as this receiver exists
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
    async fn a_wake_up_ends_one_wait_of_each_stream_of_its_customer() {
        let hub = Hub::default();
        let [kim, lee] = ["kim", "lee"].map(|id| CustomerId::from_segment(id).unwrap());
        let (mut first, mut second, mut other) = (hub.subscribe(&kim), hub.subscribe(&kim), hub.subscribe(&lee));
        hub.wake([&kim]);
        first.woken().await;
        second.woken().await;
        assert!(first.woken().now_or_never().is_none());
        assert!(other.woken().now_or_never().is_none());
        hub.wake([&kim]);
        first.mark_seen();
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
