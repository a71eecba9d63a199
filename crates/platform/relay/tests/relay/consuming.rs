//! Events from a real outbox through a real inbox: each takes effect once, despite duplicates, reordering, redelivery,
//! poison and a store that fails.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bus::tail::Tailer;
use bus::{Delivery, Error, Message, Position, Subscribe, Subscription};
use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{EventEnvelope, HospitalDeleted};
use jiff::Timestamp;
use prost::Message as _;
use relay::{ConsumeOptions, Consumer, OutboxLog, consume};
use runtime::clock::Clock;
use runtime::lifecycle::{DrainTrigger, Readiness, drain_pair};
use sea_orm::ConnectionTrait as _;
use store::{dead_letter, outbox};
use tokio::time::timeout;

use crate::support::{Applier, Command, MALFORMED, POISON, Side, event, numbers, side, soon};

fn start(consuming: &Side, transport: Arc<dyn Subscribe>, troubles: u32) -> DrainTrigger {
    let pauses = Duration::from_millis(1);
    let options = ConsumeOptions { attempts: 3, first_pause: pauses, last_pause: pauses, ..ConsumeOptions::default() };
    start_with(consuming, transport, troubles, options)
}

fn start_with(consuming: &Side, transport: Arc<dyn Subscribe>, troubles: u32, options: ConsumeOptions) -> DrainTrigger {
    let (writer, troubles) = (consuming.writer.clone(), AtomicU32::new(troubles));
    start_handler(consuming, transport, Applier { writer, troubles, refusals: Arc::default() }, options)
}

fn start_handler(
    consuming: &Side,
    transport: Arc<dyn Subscribe>,
    handler: Applier,
    options: ConsumeOptions,
) -> DrainTrigger {
    let (trigger, drain) = drain_pair();
    let consumer = Consumer {
        name: "ledger",
        filter: vec![domain::event::subject_filter("slot", "screening_refused")],
        handler: Arc::new(handler),
        database: consuming.database.clone(),
        pace: None,
    };
    drop(tokio::spawn(consume(consumer, transport, options, Clock::system(), drain, None)));
    trigger
}

/// Waits until the consumer's outbox holds `count` effects, then returns the ids in order.
async fn effects(side: &Side, count: usize) -> Vec<u128> {
    let mut commits = side.database.commits();
    let read = async {
        loop {
            let rows = outbox::read_after(side.database.reader(), 0, 10_000).await.expect("read");
            let events = numbers(&rows);
            if events.len() >= count {
                return events;
            }
            commits.changed().await.expect("the database lives");
        }
    };
    timeout(Duration::from_secs(20), read).await.expect("all effects in time")
}

fn tail(producing: &Side) -> Arc<dyn Subscribe> {
    Arc::new(Tailer::new(vec![Arc::new(OutboxLog::new("producer", producing.database.clone()))]))
}

#[tokio::test]
async fn every_event_takes_effect_once_and_in_order_across_restarts() {
    let (producing, consuming) = (side().await, side().await);
    for round in 0..5_u128 {
        let trigger = start(&consuming, tail(&producing), 0);
        let events = (1..=300).map(|number| event(round * 300 + number)).collect();
        producing.writer.submit(Command::Produce(events), soon()).await.expect("produced");
        // Cuts the consumer off as soon as some of the round's effects exist.
        effects(&consuming, (round * 300 + 1) as usize).await;
        trigger.request();
    }
    let _running = start(&consuming, tail(&producing), 0);
    assert_eq!(effects(&consuming, 1_500).await, (1..=1_500).collect::<Vec<u128>>());
}

/// The frames that a consumer of the same process reads right after their commit do not come from the table.
#[tokio::test]
async fn what_was_just_committed_is_read_from_memory() {
    let (producing, consuming) = (side().await, side().await);
    producing.produce(1..=5).await;
    let store::Location::Sqlite(path) = producing.database.location() else { panic!("a file") };
    let other = sea_orm::Database::connect(format!("sqlite://{}", path.display())).await.expect("a connection");
    other.execute_unprepared("DELETE FROM outbox WHERE position <= 4").await.expect("removed");
    assert_eq!(outbox::read_after(producing.database.reader(), 0, 9).await.expect("read").len(), 1);
    let _running = start(&consuming, tail(&producing), 0);
    assert_eq!(effects(&consuming, 5).await, [1, 2, 3, 4, 5]);
}

#[tokio::test]
async fn a_poison_event_becomes_a_dead_letter_and_the_others_go_on() {
    let (producing, consuming) = (side().await, side().await);
    let mut events: Vec<_> = (1..=100).map(event).collect();
    events[41].aggregate = POISON.into();
    producing.writer.submit(Command::Produce(events), soon()).await.expect("produced");
    let _running = start(&consuming, tail(&producing), 0);
    let expected: Vec<u128> = (1..=100).filter(|number| *number != 42).collect();
    assert_eq!(effects(&consuming, 99).await, expected);
    assert_eq!(dead_letter::count(consuming.database.reader()).await.expect("counted"), 1);
}

#[tokio::test]
async fn a_store_in_trouble_is_waited_for_and_buries_nothing() {
    let (producing, consuming) = (side().await, side().await);
    producing.writer.submit(Command::Produce((1..=50).map(event).collect()), soon()).await.expect("produced");
    let _running = start(&consuming, tail(&producing), 40);
    assert_eq!(effects(&consuming, 50).await.len(), 50);
    assert_eq!(dead_letter::count(consuming.database.reader()).await.expect("counted"), 0);
}

/// A transport that repeats and reorders messages by a fixed schedule, as a broker may, with one undecodable message in
/// the middle.
struct Chaos(Vec<Vec<u8>>, Vec<u8>);

/// Each event as a message of an earlier version.
fn envelopes(events: &[EventEnvelope]) -> Vec<Vec<u8>> {
    events.iter().map(prost::Message::encode_to_vec).collect()
}

/// Frames of this many events.
fn frames(events: &[EventEnvelope], size: usize) -> Vec<Vec<u8>> {
    let frame = |events: &[EventEnvelope]| domain::frame::frames(events).expect("frames").remove(0).payload;
    events.chunks(size).map(frame).collect()
}

struct ChaosSubscription(VecDeque<Vec<Delivery>>);

#[async_trait]
impl Subscribe for Chaos {
    async fn subscribe(
        &self,
        _name: &str,
        _filter: &[String],
        _from: HashMap<String, i64>,
    ) -> Result<Box<dyn Subscription>, Error> {
        let deliver = |payload: Vec<u8>, sequence: usize| Delivery {
            message: Arc::new(Message { subject: "checkup.v1.slot.screening_refused.x".into(), payload }),
            position: Position::Unordered { sequence: sequence as u64 },
        };
        let mut deliveries: Vec<_> =
            self.0.iter().enumerate().map(|(at, payload)| deliver(payload.clone(), at)).collect();
        deliveries.extend(deliveries.clone());
        // A permutation, because 7 is coprime to the number of deliveries.
        let count = deliveries.len();
        let mut permuted: Vec<_> = (0..count).map(|at| deliveries[at * 7 % count].clone()).collect();
        permuted.insert(count / 2, deliver(self.1.clone(), count));
        Ok(Box::new(ChaosSubscription(permuted.chunks(13).map(<[Delivery]>::to_vec).collect())))
    }
}

#[async_trait]
impl Subscription for ChaosSubscription {
    async fn next(&mut self, _limit: usize) -> Result<Vec<Delivery>, Error> {
        match self.0.pop_front() {
            Some(deliveries) => Ok(deliveries),
            None => std::future::pending().await,
        }
    }

    async fn acknowledge(&mut self, _deliveries: &[Delivery]) -> Result<(), Error> {
        Ok(())
    }

    async fn postpone(&mut self, deliveries: &[Delivery], _pause: Duration) -> Result<(), Error> {
        self.0.push_back(deliveries.to_vec());
        Ok(())
    }

    async fn lag(&mut self) -> Result<u64, Error> {
        Ok(self.0.len() as u64)
    }
}

#[tokio::test]
async fn duplicates_and_disorder_have_no_effect_of_their_own() {
    let events: Vec<_> = (1..=101).map(event).collect();
    for messages in [envelopes(&events), frames(&events, 7)] {
        take_effect_once(messages).await;
    }
}

/// Asserts that messages with the events 1 to 101 take effect once, however often they are delivered.
async fn take_effect_once(messages: Vec<Vec<u8>>) {
    let consuming = side().await;
    let transport = |broken| Arc::new(Chaos(messages.clone(), vec![0xff, broken]));
    let _first = start(&consuming, transport(1), 0);
    let mut seen = effects(&consuming, 101).await;
    // Delivers everything a second time, as after a lost acknowledgement. Its own broken message shows that it was
    // read.
    let _second = start(&consuming, transport(1), 0);
    let _third = start(&consuming, transport(2), 0);
    let mut commits = consuming.database.commits();
    let both = async {
        while dead_letter::count(consuming.database.reader()).await.expect("counted") < 2 {
            commits.changed().await.expect("the database lives");
        }
    };
    timeout(Duration::from_secs(20), both).await.expect("both deliveries in time");
    assert_eq!(effects(&consuming, 101).await.len(), 101);
    seen.sort_unstable();
    assert_eq!(seen, (1..=101).collect::<Vec<u128>>());
}

/// On a transport without order, an event that fails for a while must not delay later events, and is not lost.
#[tokio::test]
async fn an_event_that_fails_is_overtaken_and_comes_again() {
    let consuming = side().await;
    let mut events: Vec<_> = (1..=50).map(event).collect();
    events[0].aggregate = POISON.into();
    let _running = start(&consuming, Arc::new(Chaos(envelopes(&events), vec![0xff])), 0);
    let others = effects(&consuming, 49).await;
    assert!(!others.contains(&1), "{others:?}");
    dead_letters(&consuming, 2).await;
}

/// The events of a frame before one that fails take effect at once. Those behind it wait for its last try, and those of
/// other frames overtake it.
#[tokio::test]
async fn an_event_that_fails_holds_the_rest_of_its_frame_and_no_other() {
    let consuming = side().await;
    let mut events: Vec<_> = (1..=50).map(event).collect();
    events[12].aggregate = POISON.into();
    let _running = start(&consuming, Arc::new(Chaos(frames(&events, 10), vec![0xff])), 0);
    let applied = effects(&consuming, 49).await;
    let at = |number: u128| applied.iter().position(|applied| *applied == number).expect("applied");
    assert!(at(14) > at(12) && (1..=10).chain(21..=50).all(|other| at(other) < at(14)), "{applied:?}");
    let different: HashSet<u128> = applied.iter().copied().collect();
    assert!(different.len() == 49 && !different.contains(&13), "{applied:?}");
    let event_ids: Vec<String> = dead_letters(&consuming, 2).await.into_iter().map(|row| row.event_id).collect();
    assert!(event_ids.contains(&events[12].event_id), "{event_ids:?}");
}

/// Several events of one frame that the handler refuses, whatever the inbox knows, are tried as often as one.
#[tokio::test]
async fn several_malformed_events_of_a_frame_are_each_put_aside_after_their_tries() {
    const ATTEMPTS: i32 = 3;
    let consuming = side().await;
    let mut events: Vec<_> = (1..=10).map(event).collect();
    for malformed in [1, 4, 5, 8] {
        events[malformed].aggregate = MALFORMED.into();
    }
    let refusals = Arc::new(AtomicU32::new(0));
    let handler =
        Applier { writer: consuming.writer.clone(), troubles: AtomicU32::new(0), refusals: Arc::clone(&refusals) };
    let pause = Duration::from_millis(1);
    let options =
        ConsumeOptions { attempts: ATTEMPTS, first_pause: pause, last_pause: pause, ..ConsumeOptions::default() };
    let transport = Arc::new(Chaos(frames(&events, 10), vec![0xff]));
    let _running = start_handler(&consuming, transport, handler, options);
    let mut applied = effects(&consuming, 6).await;
    applied.sort_unstable();
    assert_eq!(applied, [1, 3, 4, 7, 8, 10]);
    assert_eq!(dead_letters(&consuming, 5).await.len(), 5);
    // Two deliveries of one frame share the tries of its events.
    let tries = refusals.load(Ordering::Relaxed);
    assert!(tries <= 2 * 4 * ATTEMPTS.unsigned_abs(), "{tries}");
}

/// In order, too, a frame is applied around its poison event, and the cursor stands behind it.
#[tokio::test]
async fn a_frame_in_order_is_applied_around_its_poison_event() {
    let (producing, consuming) = (side().await, side().await);
    let mut events: Vec<_> = (1..=30).map(event).collect();
    events[12].aggregate = POISON.into();
    producing.writer.submit(Command::ProduceTogether(events.clone()), soon()).await.expect("produced");
    let trigger = start(&consuming, tail(&producing), 0);
    let expected: Vec<u128> = (1..=30).filter(|number| *number != 13).collect();
    assert_eq!(effects(&consuming, 29).await, expected);
    trigger.request();
    let [dead_letter] = &*dead_letters(&consuming, 1).await else { panic!("one dead letter") };
    assert_eq!(dead_letter.payload, events[12].encode_to_vec());
    // Another run finds nothing to do before the next frame.
    producing.produce([31]).await;
    let _running = start(&consuming, tail(&producing), 0);
    assert_eq!(effects(&consuming, 30).await, [&expected[..], &[31]].concat());
    // A replay applies the event alone.
    consuming.poisonous.store(false, Ordering::Relaxed);
    assert!(dead_letter::ask_for_replay(&consuming.database, dead_letter.id, Timestamp::now()).await.expect("asked"));
    assert_eq!(effects(&consuming, 31).await[30], 13);
}

/// An event of a frame that nobody can decode becomes a dead letter of its own.
#[tokio::test]
async fn an_undecodable_event_of_a_frame_is_put_aside_alone() {
    let consuming = side().await;
    let events: Vec<_> = (1..=3).map(event).collect();
    let mut payload = frames(&events[..2], 2).remove(0);
    prost::encoding::bytes::encode(16, &vec![0xff_u8, 0xfe], &mut payload);
    prost::encoding::message::encode(16, &events[2], &mut payload);
    // Another frame has the same bytes.
    let mut other = frames(&[event(4)], 1).remove(0);
    prost::encoding::bytes::encode(16, &vec![0xff_u8, 0xfe], &mut other);
    let _running = start(&consuming, Arc::new(Chaos(vec![payload, other], vec![0xff])), 0);
    let mut applied = effects(&consuming, 4).await;
    applied.sort_unstable();
    assert_eq!(applied, [1, 2, 3, 4]);
    let bytes: Vec<_> = dead_letters(&consuming, 3).await.into_iter().map(|row| row.payload).collect();
    assert_eq!(bytes.iter().filter(|bytes| **bytes == [0xff, 0xfe]).count(), 2, "{bytes:?}");
}

/// A consumer that is cut off in the middle of a frame goes on where it was.
#[tokio::test]
async fn a_frame_that_was_applied_in_part_is_finished_by_the_next_run() {
    let (producing, consuming) = (side().await, side().await);
    let mut events: Vec<_> = (1..=30).map(event).collect();
    events[12].aggregate = POISON.into();
    producing.writer.submit(Command::ProduceTogether(events), soon()).await.expect("produced");
    // Its pause after the first failure is longer than the test.
    let patient = ConsumeOptions { first_pause: Duration::from_secs(600), ..ConsumeOptions::default() };
    let trigger = start_with(&consuming, tail(&producing), 0, patient);
    assert_eq!(effects(&consuming, 12).await, (1..=12).collect::<Vec<u128>>());
    trigger.request();
    consuming.poisonous.store(false, Ordering::Relaxed);
    let _running = start(&consuming, tail(&producing), 0);
    assert_eq!(effects(&consuming, 30).await, (1..=30).collect::<Vec<u128>>());
}

/// Waits until this many dead letters are stored.
async fn dead_letters(side: &Side, count: u64) -> Vec<dead_letter::Model> {
    let mut commits = side.database.commits();
    let wait = async {
        loop {
            let dead_letters = dead_letter::list(side.database.reader(), 0, 100).await.expect("the dead letters");
            if dead_letters.len() as u64 == count {
                return dead_letters;
            }
            commits.changed().await.expect("the database lives");
        }
    };
    timeout(Duration::from_secs(20), wait).await.expect("the dead letters in time")
}

#[tokio::test]
async fn a_dead_letter_is_applied_again_when_somebody_asks_and_its_cause_is_gone() {
    let (producing, consuming) = (side().await, side().await);
    let mut events: Vec<_> = (1..=10).map(event).collect();
    events[4].aggregate = POISON.into();
    producing.writer.submit(Command::Produce(events), soon()).await.expect("produced");
    let _running = start(&consuming, tail(&producing), 0);
    effects(&consuming, 9).await;
    let dead_letter = dead_letters(&consuming, 1).await.remove(0);

    // A replay that comes too early keeps the dead letter, with one more try.
    assert!(dead_letter::ask_for_replay(&consuming.database, dead_letter.id, Timestamp::now()).await.expect("asked"));
    let mut commits = consuming.database.commits();
    let tried = async {
        loop {
            let row = dead_letter::get(consuming.database.reader(), dead_letter.id).await.expect("read").expect("kept");
            if row.attempts > dead_letter.attempts {
                return row;
            }
            commits.changed().await.expect("the database lives");
        }
    };
    assert_eq!(timeout(Duration::from_secs(20), tried).await.expect("tried in time").replay_time, None);

    consuming.poisonous.store(false, Ordering::Relaxed);
    assert!(dead_letter::ask_for_replay(&consuming.database, dead_letter.id, Timestamp::now()).await.expect("asked"));
    assert_eq!(effects(&consuming, 10).await[9], 5);
    dead_letters(&consuming, 0).await;
    assert!(!dead_letter::ask_for_replay(&consuming.database, dead_letter.id, Timestamp::now()).await.expect("asked"));
}

#[tokio::test]
async fn a_consumer_says_when_it_has_caught_up() {
    let (producing, consuming) = (side().await, side().await);
    producing.produce(1..=300).await;
    // The last events do not concern the consumer, so no event shows that it has caught up.
    let others = (301..=310).map(|number| EventEnvelope {
        payload: Some(Payload::HospitalDeleted(HospitalDeleted::default())),
        ..event(number)
    });
    producing.writer.submit(Command::Produce(others.collect()), soon()).await.expect("produced");
    let readiness = Readiness::new();
    let latch = readiness.latch("events");
    let (_trigger, drain) = drain_pair();
    let handler = Applier { writer: consuming.writer.clone(), troubles: AtomicU32::new(3), refusals: Arc::default() };
    let consumer = Consumer {
        name: "ledger",
        filter: vec![domain::event::subject_filter("slot", "screening_refused")],
        handler: Arc::new(handler),
        database: consuming.database.clone(),
        pace: None,
    };
    let transport = tail(&producing);
    let consuming_task = consume(consumer, transport, ConsumeOptions::default(), Clock::system(), drain, Some(latch));
    drop(tokio::spawn(consuming_task));
    assert!(!readiness.is_ready());
    timeout(Duration::from_secs(20), readiness.ready()).await.expect("it catches up");
    assert_eq!(effects(&consuming, 300).await.len(), 300);
}
