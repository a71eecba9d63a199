//! What each user of the broker may do, with the configuration that this repository ships.

use std::collections::HashMap;
use std::time::Duration;

use async_nats::{ConnectOptions, Event, Subject};
use bus::jetstream::{JetStream, JetStreamOptions};
use bus::{Follow as _, Position, Publish, Subscribe as _};
use mesh::Nats;
use mesh::for_tests::or_skip;
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::broker::{outbound, publish, subscribe};
use crate::reader::{EVENT_TIMEOUT, number};
use crate::transports::{counted, message};

/// The consumers of the five services, by user; my-page reads by consumers without a name.
const CONSUMERS: [(&str, &str); 5] = [
    ("hospital", "hospital-releases"),
    ("screening", "screening-capacity"),
    ("reservation", "reservation-screenings"),
    ("marketing", "marketing-hospital"),
    ("marketing", "marketing-screening"),
];
const PRODUCERS: [&str; 3] = ["hospital", "screening", "reservation"];

async fn connect(server: &Nats, user: &str) -> JetStream {
    let owns_stream = PRODUCERS.contains(&user) || user == "operator";
    let options = JetStreamOptions { owns_stream, ..counted(server.url_of(user)) };
    JetStream::connect(options).await.expect("usable options")
}

/// A client as a program of its own would be, and what the broker refuses to it.
struct Stranger {
    client: async_nats::Client,
    refusals: mpsc::UnboundedReceiver<String>,
}

impl Stranger {
    async fn connect(server: &Nats, user: &str) -> Self {
        let (refused, refusals) = mpsc::unbounded_channel();
        let options = ConnectOptions::with_user_and_password(user.to_owned(), user.to_owned());
        let options = options.custom_inbox_prefix(format!("_INBOX.{user}")).event_callback(move |event| {
            if let Event::ServerError(error) = event {
                let _ = refused.send(error.to_string().to_lowercase());
            }
            std::future::ready(())
        });
        Self { client: options.connect(server.url()).await.expect("let in"), refusals }
    }

    /// Waits until the broker refuses something about this subject.
    async fn is_refused(&mut self, subject: &str) {
        let wanted = subject.to_lowercase();
        let refused = async { while !self.refusals.recv().await.is_some_and(|refusal| refusal.contains(&wanted)) {} };
        timeout(EVENT_TIMEOUT, refused).await.unwrap_or_else(|_| panic!("{subject} was not refused"));
    }

    async fn may_not_send(&mut self, subject: &str, payload: &str) {
        let reply = self.client.new_inbox();
        let sent = self.client.publish_with_reply(subject.to_owned(), reply, payload.to_owned().into()).await;
        sent.expect("sent");
        self.is_refused(subject).await;
    }

    async fn may_not_listen(&mut self, subject: &'static str) {
        let _subscription = self.client.subscribe(Subject::from_static(subject)).await.expect("asked for");
        self.is_refused(subject).await;
    }
}

/// What the broker says of every consumer of the services, without the time.
async fn described(server: &Nats) -> Vec<String> {
    let mut described = Vec::new();
    for (_, consumer) in CONSUMERS {
        let said = server.operate(&format!("$JS.API.CONSUMER.INFO.checkup.{consumer}"), "").await.expect("an answer");
        described.push(said.split_once(",\"ts\":").map_or_else(|| said.clone(), |(before, _)| before.to_owned()));
    }
    described
}

/// A consumer of another one's, written so that it would never be given an event again.
fn deaf(name: &str) -> String {
    format!(
        r#"{{"stream_name":"checkup","config":{{"durable_name":"{name}","name":"{name}","ack_policy":"explicit","filter_subject":"nothing"}}}}"#
    )
}

#[tokio::test]
async fn marketing_reads_by_its_own_consumers_and_may_do_nothing_else() {
    let Some(server) = or_skip("NATS", Nats::start_with_users("").await) else { return };
    let screening = connect(&server, "screening").await;
    let events: Vec<_> = (0..5)
        .map(|number| bus::Outbound {
            id: format!("id-{number}"),
            message: message("checkup.v1.screening.screening_cancelled.screening", number),
            headers: Vec::new(),
        })
        .collect();
    assert_eq!(publish(&screening, &events).await, [1, 2, 3, 4, 5]);
    for (user, consumer) in CONSUMERS {
        let bus = connect(&server, user).await;
        let filter = ["checkup.v1.screening.*.*".to_owned()];
        let mut reader = bus.durable().subscribe_to(consumer, &filter).await;
        let held = timeout(EVENT_TIMEOUT, reader.next(1)).await.expect("in time").unwrap();
        reader.acknowledge(&held).await.unwrap();
        assert_eq!(number(&held[0]), 0, "{consumer}");
        bus.close().await;
    }
    let (before, consumers) = (screening.state().await.unwrap(), described(&server).await);

    let mut stranger = Stranger::connect(&server, "marketing").await;
    for producer in ["hospital", "screening", "reservation", "marketing"] {
        stranger.may_not_send(&format!("checkup.v1.screening.screening_confirmed.{producer}"), "forged").await;
    }
    let deaf_stream = r#"{"name":"checkup","subjects":["checkup.v1.>"],"max_msgs":1,"discard":"old"}"#;
    for request in ["PURGE", "DELETE", "MSG.DELETE", "RESTORE", "SNAPSHOT", "CREATE", "UPDATE", "MSG.GET"] {
        stranger.may_not_send(&format!("$JS.API.STREAM.{request}.checkup"), deaf_stream).await;
    }
    for other in ["hospital-releases", "screening-capacity", "reservation-screenings"] {
        for request in ["DELETE", "CREATE", "DURABLE.CREATE", "MSG.NEXT", "PAUSE", "RESET", "INFO"] {
            stranger.may_not_send(&format!("$JS.API.CONSUMER.{request}.checkup.{other}"), &deaf(other)).await;
        }
        stranger.may_not_send(&format!("$JS.ACK.checkup.{other}.1.2.2.1.0"), "").await;
    }
    // Without a name in the subject the broker takes the one in the request, whosever it is.
    stranger.may_not_send("$JS.API.CONSUMER.CREATE.checkup", &deaf("hospital-releases")).await;
    stranger.may_not_send("$JS.API.CONSUMER.DELETE.checkup.marketing-hospital", "").await;
    for subject in ["checkup.v1.>", "_INBOX.hospital.>", "$JS.API.>", ">"] {
        stranger.may_not_listen(subject).await;
    }
    assert_eq!(screening.state().await.unwrap(), before);
    assert_eq!(described(&server).await, consumers);
}

#[tokio::test]
async fn a_producer_publishes_its_own_facts_and_nobody_elses() {
    let Some(server) = or_skip("NATS", Nats::start_with_users("").await) else { return };
    for (stored, producer) in (1_u64..).zip(PRODUCERS) {
        let bus = connect(&server, producer).await;
        let fact = |of: &str| bus::Outbound {
            id: format!("{producer}-of-{of}"),
            message: message(&format!("checkup.v1.slot.slot_opened.{of}"), 1),
            headers: Vec::new(),
        };
        assert_eq!(publish(&bus, &[fact(producer)]).await, [stored]);
        for other in PRODUCERS.into_iter().filter(|other| *other != producer) {
            let deadline = tokio::time::Instant::now() + Duration::from_millis(500);
            let refused = bus.publish(&[fact(other)], deadline).await.remove(0).unwrap_err();
            let why = refused.cause.to_string().to_lowercase();
            assert!(why.contains("refuses") && why.contains(&format!("slot_opened.{other}")), "{why}");
        }
        assert_eq!(bus.state().await.unwrap().last, stored, "nothing of others is stored");
    }
}

#[tokio::test]
async fn who_only_reads_waits_for_the_stream_and_does_not_change_it() {
    let Some(server) = or_skip("NATS", Nats::start_with_users("").await) else { return };
    let filter = ["checkup.v1.screening.*.*".to_owned()];
    let reading = connect(&server, "marketing").await;
    let none = reading.durable().try_to_subscribe("marketing-hospital", &filter).await.err().expect("no stream");
    assert_eq!(none.cause.to_string(), "there is no stream yet");
    let owner = connect(&server, "hospital").await;
    let made = owner.state().await.unwrap();
    let options = JetStreamOptions { max_bytes: 1 << 20, owns_stream: false, ..counted(server.url_of("marketing")) };
    let other_options = JetStream::connect(options).await.unwrap();
    drop(other_options.durable().subscribe_to("marketing-hospital", &filter).await);
    assert_eq!(owner.state().await.unwrap(), made);
    let said = server.operate("$JS.API.STREAM.INFO.checkup", "").await.unwrap();
    assert!(said.contains("\"max_bytes\":4294967296"), "{said}");
}

#[tokio::test]
async fn the_consumer_of_a_team_that_leaves_is_removed_by_the_tools_alone() {
    let Some(server) = or_skip("NATS", Nats::start_with_users("").await) else { return };
    let (owner, tools) = (connect(&server, "operator").await, connect(&server, "tools").await);
    assert_eq!(tools.consumers().await.unwrap(), [], "without a stream there are none");
    assert!(!tools.remove_consumer("test").await.unwrap());
    publish(&owner, &outbound(0..3)).await;
    let mut reader = subscribe(&owner.durable()).await;
    let _ordered = owner.ordered().subscribe_to("test", &["checkup.v1.>".to_owned()]).await;
    let taken = timeout(EVENT_TIMEOUT, reader.next(2)).await.expect("in time").unwrap();
    reader.acknowledge(&taken).await.unwrap();
    drop(reader);
    let found = tools.consumers().await.unwrap();
    assert_eq!(found.iter().map(|consumer| consumer.name.as_str()).collect::<Vec<_>>(), ["test"]);
    assert_eq!(found[0].filter, [crate::reader::WANTED_SUBJECTS]);
    let refused = connect(&server, "marketing").await.remove_consumer("test").await.unwrap_err();
    assert!(refused.cause.to_string().contains("refuses"), "{refused:?}");
    assert!(tools.remove_consumer("test").await.unwrap());
    assert!(!tools.remove_consumer("test").await.unwrap());
    assert_eq!(tools.consumers().await.unwrap(), []);
    assert_eq!(owner.state().await.unwrap().last, 3, "the events stay");
    let deadline = tokio::time::Instant::now() + Duration::from_millis(500);
    assert!(tools.publish(&outbound(3..4), deadline).await[0].is_err());
    assert_eq!(owner.state().await.unwrap().last, 3);
}

/// Subscriptions with a name and a filter of the test's choice.
trait SubscribeTo {
    async fn try_to_subscribe(&self, name: &str, filter: &[String]) -> Result<Box<dyn bus::Subscription>, bus::Error>;

    async fn subscribe_to(&self, name: &str, filter: &[String]) -> Box<dyn bus::Subscription> {
        self.try_to_subscribe(name, filter).await.unwrap_or_else(|error| panic!("{name}: {error:?}"))
    }
}

impl<T: bus::Subscribe> SubscribeTo for T {
    async fn try_to_subscribe(&self, name: &str, filter: &[String]) -> Result<Box<dyn bus::Subscription>, bus::Error> {
        self.subscribe(name, filter, std::collections::HashMap::new()).await
    }
}

#[tokio::test]
async fn hospital_follows_its_newest_facts() {
    let Some(server) = or_skip("NATS", Nats::start_with_users("").await) else { return };
    let hospital = connect(&server, "hospital").await;
    let events: Vec<_> = (0..5)
        .map(|number| bus::Outbound {
            id: format!("id-{number}"),
            message: message("checkup.v1.slot.slot_opened.hospital", number),
            headers: Vec::new(),
        })
        .collect();
    assert_eq!(publish(&hospital, &events).await, [1, 2, 3, 4, 5]);
    let follow = hospital.ordered();
    let (source, head) = follow.head("hospital").await.expect("an answer");
    assert_eq!(head, 5);
    let from = HashMap::from([(source.clone(), head - 2)]);
    let mut reader = follow.subscribe("hospital", &["checkup.v1.slot.*.*".to_owned()], from).await.expect("let in");
    let mut read = Vec::new();
    while read.len() < 2 {
        read.extend(timeout(EVENT_TIMEOUT, reader.next(9)).await.expect("in time").expect("events"));
    }
    let place = |position| Position::Ordered { source: source.as_str().into(), position };
    assert_eq!(read.iter().map(|held| held.position.clone()).collect::<Vec<_>>(), [place(4), place(5)]);
    assert_eq!(read.iter().map(number).collect::<Vec<_>>(), [3, 4]);
}
