//! A team's consumer of checkup's events, from proto/ alone: it keeps bookings and places in a file of its own.
//!
//! ```text
//! cargo run -- --nats nats://partner:partner@127.0.0.1:4222 --store partner.json
//! cargo run -- --conformance ../../proto/conformance/messages.jsonl
//! ```
//!
//! `fold.rs` has the rules of docs/events.md, `store.rs` the file that stands for the team's database. Here messages
//! are read, applied, committed and only then acknowledged. Several processes may share one consumer if they share a
//! database; this file belongs to one process.

mod fold;
mod store;

use std::error::Error;
use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::jetstream::consumer::pull::Config;
use async_nats::jetstream::consumer::{AckPolicy, DeliverPolicy};
use async_nats::jetstream::stream::Stream;
use async_nats::jetstream::{AckKind, Message};
use async_nats::{ConnectOptions, ServerAddr};
use base64::Engine;
use futures::StreamExt;
use store::Store;

/// The messages of the contract.
#[allow(clippy::all, reason = "generated")]
pub mod contract {
    include!(concat!(env!("OUT_DIR"), "/contract.rs"));
}

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const STREAM: &str = "checkup";
const SUBJECTS: [&str; 3] = ["checkup.v1.screening.*.*", "checkup.v1.slot.*.*", "checkup.v1.claim.*.*"];
/// How many messages one commit takes at most.
const MESSAGES: usize = 64;
/// How often a message is tried before it is put aside, and the pauses between: they double from the first to the last.
const TRIES: i64 = 10;
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(5));
const RECONNECT_PAUSE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct Arguments {
    nats: Option<String>,
    consumer: Option<String>,
    store: Option<PathBuf>,
    conformance: Option<PathBuf>,
}

fn arguments() -> Outcome<Arguments> {
    let mut found = Arguments::default();
    let mut given = std::env::args().skip(1);
    while let Some(name) = given.next() {
        let value = given.next().ok_or_else(|| format!("{name} has no value"))?;
        match name.as_str() {
            "--nats" => found.nats = Some(value),
            "--consumer" => found.consumer = Some(value),
            "--store" => found.store = Some(value.into()),
            "--conformance" => found.conformance = Some(value.into()),
            _ => return Err(format!("{name} is not known: --nats, --consumer, --store, --conformance").into()),
        }
    }
    Ok(found)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome<()> {
    let Arguments { nats, consumer, store, conformance } = arguments()?;
    if let Some(file) = conformance {
        return replay(&std::fs::read_to_string(file)?);
    }
    let (Some(address), Some(file)) = (nats, store) else { return Err("--nats and --store, or --conformance".into()) };
    let store = Store::open(file)?;
    let consumer = consumer.unwrap_or_else(|| "partner".to_owned());
    tokio::select! {
        read = consume(&address, &consumer, store) => read,
        ended = tokio::signal::ctrl_c() => Ok(ended?),
    }
}

/// Applies the messages of a file, a line each, and prints the state that results.
fn replay(lines: &str) -> Outcome<()> {
    let mut state = fold::State::default();
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line)?;
        let message = line["message"].as_str().ok_or("a line has no message")?;
        state.apply(&base64::engine::general_purpose::STANDARD.decode(message)?)?;
    }
    let text = serde_json::to_string(&state.public())?;
    Ok(writeln!(std::io::stdout(), "{text}")?)
}

/// Reads for ever. After any trouble with the broker it begins again, where the broker knows that it was.
async fn consume(address: &str, consumer: &str, mut store: Store) -> Outcome<()> {
    let address: ServerAddr = address.parse()?;
    let (user, password) = (address.username().unwrap_or_default(), address.password().unwrap_or_default());
    let options = ConnectOptions::with_user_and_password(user.to_owned(), password.to_owned());
    // Answers come where this user alone may listen.
    let options = options.custom_inbox_prefix(format!("_INBOX.{user}")).retry_on_initial_connect();
    let client = options.connect(address).await?;
    let jetstream = async_nats::jetstream::new(client);
    loop {
        let read = async {
            let stream = jetstream.get_stream(STREAM).await?;
            read(&stream, consumer, &mut store).await
        };
        if let Err(error) = read.await {
            eprintln!("trying again: {error}");
        }
        tokio::time::sleep(RECONNECT_PAUSE).await;
    }
}

/// Makes the consumer, or finds it as it is, and reads until the broker fails.
async fn read(stream: &Stream, name: &str, store: &mut Store) -> Outcome<()> {
    let config = Config {
        durable_name: Some(name.to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        filter_subjects: SUBJECTS.map(str::to_owned).into(),
        ..Config::default()
    };
    let consumer = stream.create_consumer(config).await?;
    println!("reading");
    loop {
        let mut batch = consumer.fetch().max_messages(MESSAGES).messages().await?;
        let mut messages = Vec::new();
        while let Some(message) = batch.next().await {
            messages.push(message?);
        }
        if messages.is_empty() {
            // Waits for the next one. A stream that was made anew has no such consumer, which is an error here.
            let mut next = consumer.batch().max_messages(1).expires(Duration::from_secs(5)).messages().await?;
            match next.next().await {
                Some(message) => messages.push(message?),
                None => drop(stream.consumer_info(name).await?),
            }
        }
        settle(messages, store).await?;
    }
}

/// Applies the messages, commits, and acknowledges. One that cannot be applied does not hold up the others.
async fn settle(messages: Vec<Message>, store: &mut Store) -> Outcome<()> {
    let mut answers = Vec::new();
    for message in messages {
        let info = message.info().map_err(|error| error.to_string())?;
        let (tried, sequence) = (info.delivered, info.stream_sequence);
        let answer = match store.state.apply(&message.payload) {
            Ok(()) => AckKind::Ack,
            Err(_) if tried < TRIES => AckKind::Nak(Some(pause(tried))),
            Err(error) => {
                store.put_aside(sequence, &message.subject, &message.payload, &error.to_string());
                AckKind::Ack
            }
        };
        answers.push((message, answer));
    }
    if !answers.is_empty() {
        store.commit()?;
    }
    for (message, answer) in answers {
        message.ack_with(answer).await?;
    }
    Ok(())
}

fn pause(tried: i64) -> Duration {
    let doublings = u32::try_from(tried - 1).unwrap_or_default().min(16);
    (PAUSES.0 * 2_u32.pow(doublings)).min(PAUSES.1)
}
