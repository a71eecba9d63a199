//! Following the newest events of a log: where it begins, and where it goes on when the transport fails.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use bus::tail::Tailer;
use bus::{Delivery, Error, Follow, Position, Subscribe, Subscription};
use contract::event::v1::EventEnvelope;
use relay::{Follower, Listener, OutboxLog, follow};
use runtime::lifecycle::drain_pair;
use testkit::within;
use tokio::sync::watch;
use uuid::Uuid;

use crate::support::{Side, side};

/// A producer's log under a name that can change. Each subscription fails after a few reads.
struct Failing {
    tailer: Tailer,
    generation: Arc<AtomicU32>,
}

impl Failing {
    fn of(producing: &Side) -> Self {
        let log = OutboxLog::new("producer", producing.database.clone());
        Self { tailer: Tailer::new(vec![Arc::new(log)]), generation: Arc::default() }
    }

    fn source(&self) -> String {
        format!("producer@{}", self.generation.load(Ordering::SeqCst))
    }
}

#[async_trait]
impl Follow for Failing {
    async fn head(&self, producer: &str) -> Result<(String, i64), Error> {
        let (_, head) = self.tailer.head(producer).await?;
        Ok((self.source(), head))
    }
}

#[async_trait]
impl Subscribe for Failing {
    async fn subscribe(
        &self,
        name: &str,
        filter: &[String],
        from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let from = HashMap::from([("producer".to_owned(), from[&self.source()])]);
        let inner = self.tailer.subscribe(name, filter, from).await?;
        Ok(Box::new(FailingSubscription { inner, generation: Arc::clone(&self.generation), reads: 3 }))
    }
}

struct FailingSubscription {
    inner: Box<dyn Subscription>,
    generation: Arc<AtomicU32>,
    reads: u32,
}

#[async_trait]
impl Subscription for FailingSubscription {
    async fn next(&mut self, limit: usize) -> Result<Vec<Delivery>, Error> {
        let Some(reads) = self.reads.checked_sub(1) else { return Err(Error::new("producer", "it is gone")) };
        let mut deliveries = self.inner.next(limit).await?;
        self.reads = reads;
        // the name that the source has by now
        let source: Arc<str> = format!("producer@{}", self.generation.load(Ordering::SeqCst)).into();
        for delivery in &mut deliveries {
            let Position::Ordered { source: of, .. } = &mut delivery.position else { panic!("in order") };
            *of = Arc::clone(&source);
        }
        Ok(deliveries)
    }

    async fn acknowledge(&mut self, _: &[Delivery]) -> Result<(), Error> {
        panic!("a follower acknowledges nothing")
    }

    async fn postpone(&mut self, _: &[Delivery], _: std::time::Duration) -> Result<(), Error> {
        panic!("a follower postpones nothing")
    }

    async fn lag(&mut self) -> Result<u64, Error> {
        self.inner.lag().await
    }
}

/// What a listener was told.
#[derive(Debug, Clone, Default)]
struct Heard {
    begins: Vec<(String, i64)>,
    position: i64,
    /// The numbers of the events since it began.
    events: Vec<u128>,
}

#[derive(Clone, Default)]
struct Notes(watch::Sender<Heard>);

#[async_trait]
impl Listener for Notes {
    async fn wanted(&self) {}

    async fn unwanted(&self) {
        std::future::pending().await
    }

    fn position(&self) -> Option<(String, i64)> {
        let heard = self.0.borrow();
        heard.begins.last().map(|(source, _)| (source.clone(), heard.position))
    }

    fn begin(&self, source: &str, position: i64) {
        if self.position() == Some((source.to_owned(), position)) {
            return;
        }
        self.0.send_modify(|heard| {
            heard.begins.push((source.to_owned(), position));
            (heard.position, heard.events) = (position, Vec::new());
        });
    }

    fn end(&self) {
        panic!("it always wants events");
    }

    fn take(&self, position: i64, events: &[EventEnvelope]) {
        self.0.send_modify(|heard| {
            assert!(position > heard.position, "position {position} after {}", heard.position);
            heard.position = position;
            heard.events.extend(events.iter().map(|event| event.event_id.parse::<Uuid>().unwrap().as_u128()));
        });
    }
}

#[tokio::test]
async fn a_follower_begins_near_the_end_and_goes_on_after_each_failure() {
    let producing = side().await;
    producing.produce(1..=5_000).await;
    let (notes, transport) = (Notes::default(), Arc::new(Failing::of(&producing)));
    let generation = Arc::clone(&transport.generation);
    let filter = vec![domain::event::subject_filter("slot", "screening_refused")];
    let follower = Follower { producer: "producer", filter, listener: Arc::new(notes.clone()) };
    let (_trigger, drain) = drain_pair();
    drop(tokio::spawn(follow(follower, transport, drain)));
    let mut heard = notes.0.subscribe();
    let mut until = async |last: i64| {
        let heard = within(testkit::wait_limit(), "the events", heard.wait_for(|heard| heard.position == last)).await;
        heard.expect("the notes are kept").clone()
    };
    let first = until(5_000).await;
    assert_eq!(first.begins, [("producer@0".to_owned(), 904)]);
    assert_eq!(first.events, (905..=5_000).collect::<Vec<u128>>());
    producing.produce(5_001..=5_010).await;
    assert_eq!(until(5_010).await.events.len(), 4_106);

    // positions that mean something else are not mixed with those before
    generation.store(1, Ordering::SeqCst);
    producing.produce([5_011]).await;
    let anew = until(5_011).await;
    assert_eq!(anew.begins[1..], [("producer@1".to_owned(), 915)]);
    assert_eq!(anew.events, (916..=5_011).collect::<Vec<u128>>());
}
