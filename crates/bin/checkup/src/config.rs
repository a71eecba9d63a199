//! The configuration of a process: the default document, and its sections as typed options.
//!
//! `checkup config check` and `dump` are here too. `runtime::config` merges the layers.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bus::jetstream::JetStreamOptions;
use jiff::SignedDuration;
use runtime::client;
use runtime::config::{Config, ConfigError, Layers, Origin, duration, offset};
use runtime::server::ServerOptions;
use runtime::spans::SpanOptions;
use runtime::telemetry::{Format, TelemetryOptions};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use store::{Location, LocationError};
use tonic::transport::Uri;

use crate::cli::{ConfigArgs, ConfigCommand};
use crate::exit::{Exit, Failure, chain};
use crate::service::{Service, Slice};
use crate::terminal;

/// Every key with its default and a comment. It is the manual and the schema of the configuration.
pub const DEFAULT: &str = include_str!("default.toml");

/// The effective configuration, as typed options.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How far the clock of the rules is ahead of the machine's.
    pub clock_offset: SignedDuration,
    /// The limits of the gRPC server.
    pub server: ServerOptions,
    /// The keys and tokens of this process.
    pub identity: IdentityOptions,
    /// The level and the format of the log.
    pub telemetry: TelemetryOptions,
    /// Where spans are exported, if they are.
    pub spans: SpanOptions,
    /// How long every event is kept, in outboxes and in the stream. Zero: for ever.
    pub retention: Duration,
    /// The broker, which `serve` needs. `None` if it is not configured.
    pub events: Option<JetStreamOptions>,
    /// Options of the consumers of events.
    pub consume: relay::ConsumeOptions,
    /// Options of the publishers of events.
    pub publish: relay::PublishOptions,
    /// The configured databases. A service without one uses a file.
    pub databases: BTreeMap<Service, Location>,
    /// The replicas of Hospital that each service calls, of those that call it. Empty: Hospital in this process.
    pub hospitals: BTreeMap<Service, Vec<Uri>>,
    /// The own options of every service.
    pub(crate) slices: BTreeMap<Service, Arc<dyn Slice>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockSection {
    #[serde(with = "offset")]
    offset: SignedDuration,
}

/// The section `identity`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityOptions {
    /// A JWKS document. Tokens of its keys are accepted besides those of the own key. Empty: none.
    pub jwks_file: PathBuf,
    /// The directory of the signing key that services started with `serve` share. Empty: none.
    pub key_dir: PathBuf,
    /// The file with the current token of a service started with `serve`. Empty: none.
    pub token_file: PathBuf,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsSection {
    nats: String,
    stream: String,
    replicas: usize,
    max_bytes: i64,
    #[serde(with = "duration")]
    retention: Duration,
    #[serde(with = "duration")]
    duplicate_window: Duration,
    #[serde(with = "duration")]
    acknowledge_wait: Duration,
    cloud_events: bool,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TelemetrySection {
    filter: String,
    format: LogFormat,
    otlp_endpoint: String,
    trace_ratio: f64,
}

impl TelemetrySection {
    /// The part about spans.
    fn spans(&self) -> Result<SpanOptions, ConfigError> {
        let wrong = |key: &str, problem: String| ConfigError {
            origin: Origin::Several,
            key: format!("telemetry.{key}"),
            problem,
        };
        if !(0.0..=1.0).contains(&self.trace_ratio) {
            return Err(wrong("trace_ratio", format!("must be 0 to 1, is {}", self.trace_ratio)));
        }
        let one = |mut addresses: Vec<Uri>| match addresses.len() {
            1 => Ok(addresses.remove(0)),
            _ => Err("must be one address".to_owned()),
        };
        let endpoint = (!self.otlp_endpoint.is_empty()).then(|| client::addresses(&self.otlp_endpoint).and_then(one));
        let endpoint = endpoint.transpose().map_err(|problem| wrong("otlp_endpoint", problem))?;
        Ok(SpanOptions { endpoint, ratio: self.trace_ratio })
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogFormat {
    Auto,
    Pretty,
    Json,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RelaySection {
    window: usize,
    #[serde(with = "duration")]
    publish_pace: Duration,
    #[serde(with = "duration")]
    publish_timeout: Duration,
    #[serde(with = "duration")]
    lease: Duration,
    #[serde(with = "duration")]
    inbox_retention: Duration,
    batch: usize,
    #[serde(with = "duration")]
    pace: Duration,
    attempts: i32,
    #[serde(with = "duration")]
    first_pause: Duration,
    #[serde(with = "duration")]
    last_pause: Duration,
}

/// The layers of a configuration above the default document, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// The configuration file, if there is one.
    pub file: Option<PathBuf>,
    /// The environment variables of the process.
    pub env: BTreeMap<String, String>,
    /// Settings `key=value` of the command line.
    pub flags: Vec<String>,
}

impl Sources {
    /// The file and flags of the command line, and the environment of this process.
    #[must_use]
    pub fn of_process(args: &ConfigArgs) -> Self {
        // a variable that is not Unicode cannot be a key of checkup
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { file: args.config.clone(), env: env.collect(), flags: args.set.clone() }
    }

    /// Merges the layers into the effective document.
    ///
    /// # Errors
    /// Fails with every mistake, one per line.
    pub fn load(&self) -> Result<Config, Failure> {
        let file = match &self.file {
            None => None,
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let unreadable = |error| Failure::usage(format!("cannot read {}: {}", path.display(), chain(&error)));
                Some((path.clone(), text.map_err(unreadable)?))
            }
        };
        let layers = Layers { file, env: self.env.clone(), flags: self.flags.clone() };
        Config::load(DEFAULT, &layers).map_err(|errors| wrong(&errors))
    }

    /// Merges the layers and reads every section.
    ///
    /// # Errors
    /// Fails with every mistake, one per line.
    pub fn settings(&self) -> Result<Settings, Failure> {
        let mut settings = Settings::of(&self.load()?).map_err(|errors| wrong(&errors))?;
        settings.telemetry.rust_log = self.env.get("RUST_LOG").cloned();
        Ok(settings)
    }
}

fn wrong(errors: &[ConfigError]) -> Failure {
    let lines: Vec<String> = errors.iter().map(|error| format!("  {error}")).collect();
    Failure::usage(format!("the configuration is wrong:\n{}", lines.join("\n")))
}

impl Settings {
    /// Reads the sections of a document.
    ///
    /// # Errors
    /// Fails with the mistakes of every section.
    pub fn of(config: &Config) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let clock: Option<ClockSection> = section(config, "clock", &mut errors);
        let server = section(config, "server", &mut errors);
        let identity = section(config, "identity", &mut errors);
        let telemetry: Option<TelemetrySection> = section(config, "telemetry", &mut errors);
        let spans = telemetry.as_ref().and_then(|section| section.spans().map_err(|error| errors.push(error)).ok());
        let events: Option<EventsSection> = section(config, "events", &mut errors);
        let relay: Option<RelaySection> = section(config, "relay", &mut errors);
        let mut services = ServiceSections::default();
        for service in Service::ALL {
            services.read(config, service, &mut errors);
        }
        let ServiceSections { databases, hospitals, slices } = services;
        let settings = (|| {
            let (relay, events) = (relay?, events?);
            Some(Self {
                clock_offset: clock?.offset,
                server: server?,
                identity: identity?,
                telemetry: telemetry?.into(),
                spans: spans?,
                publish: relay::PublishOptions { cloud_events: events.cloud_events, ..relay.publish() },
                retention: events.retention,
                events: events.options(),
                consume: relay.consume(),
                databases,
                hospitals,
                slices,
            })
        })();
        settings.filter(|_| errors.is_empty()).ok_or(errors)
    }
}

fn section<T: DeserializeOwned>(config: &Config, name: &str, errors: &mut Vec<ConfigError>) -> Option<T> {
    config.section(name).map_err(|error| errors.push(error)).ok()
}

/// The sections of the services.
#[derive(Default)]
struct ServiceSections {
    databases: BTreeMap<Service, Location>,
    hospitals: BTreeMap<Service, Vec<Uri>>,
    slices: BTreeMap<Service, Arc<dyn Slice>>,
}

impl ServiceSections {
    /// Reads the section of a service: its database and the replicas of Hospital, and the rest as its own options.
    fn read(&mut self, config: &Config, service: Service, errors: &mut Vec<ConfigError>) {
        let name = service.name();
        let Some(mut table) = section::<toml::Table>(config, name, errors) else { return };
        let mut wrong = |key, problem| errors.push(ConfigError { origin: Origin::Several, key, problem });
        let mut take = |key: &str| Some(table.remove(key)?.as_str().unwrap_or_default().to_owned());
        let (database, hospital) = (take("database"), take("hospital_address"));
        match database.filter(|database| !database.is_empty()).map(|database| database.parse()) {
            None => {}
            Some(Ok(location)) => drop(self.databases.insert(service, location)),
            Some(Err(error)) => wrong(format!("{name}.database"), LocationError::to_string(&error)),
        }
        let addresses =
            |hospital: String| if hospital.is_empty() { Ok(Vec::new()) } else { client::addresses(&hospital) };
        match hospital.map(addresses) {
            None => {}
            Some(Ok(addresses)) => drop(self.hospitals.insert(service, addresses)),
            Some(Err(problem)) => wrong(format!("{name}.hospital_address"), problem),
        }
        match (service.row().options)(table) {
            Ok(slice) => drop(self.slices.insert(service, slice)),
            Err(error) => wrong(name.to_owned(), error.message().to_owned()),
        }
    }
}

impl From<TelemetrySection> for TelemetryOptions {
    fn from(section: TelemetrySection) -> Self {
        let format = match section.format {
            LogFormat::Auto => Format::Auto,
            LogFormat::Pretty => Format::Pretty,
            LogFormat::Json => Format::Json,
        };
        Self { level: section.filter, rust_log: None, format }
    }
}

impl EventsSection {
    /// How long the stream holds an event. Producers repeat events when their retention has passed; the stream waits
    /// half as long again, because a producer may be away for a while.
    fn stream_age(&self) -> Duration {
        self.retention.saturating_add(self.retention / 2)
    }

    fn options(self) -> Option<JetStreamOptions> {
        let max_age = self.stream_age();
        let Self { nats, stream, replicas, max_bytes, duplicate_window, acknowledge_wait, .. } = self;
        let options = JetStreamOptions {
            url: nats,
            stream,
            replicas,
            max_bytes,
            max_age,
            duplicate_window,
            ack_wait: acknowledge_wait,
            // A tool reads the stream and makes none; `serve` says otherwise of services that publish.
            owns_stream: false,
            first_sequence: None,
        };
        (!options.url.is_empty()).then_some(options)
    }
}

impl RelaySection {
    fn publish(&self) -> relay::PublishOptions {
        let Self { window, publish_pace: pace, publish_timeout: timeout, lease: term, .. } = *self;
        relay::PublishOptions { window, pace, timeout, term, ..relay::PublishOptions::default() }
    }

    fn consume(&self) -> relay::ConsumeOptions {
        let Self { batch, pace, attempts, first_pause, last_pause, inbox_retention: memory, .. } = *self;
        relay::ConsumeOptions { batch, pace, attempts, first_pause, last_pause, memory }
    }
}

/// `checkup config`: checks or prints the configuration.
///
/// # Errors
/// Fails if the configuration is wrong.
pub fn run(command: ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(args) => {
            Sources::of_process(&args).settings()?;
            terminal::print("the configuration is good\n")?;
        }
        ConfigCommand::Dump(args) => {
            let sources = Sources::of_process(&args);
            sources.settings()?;
            let config = sources.load()?;
            let is_default = config == Config::load(DEFAULT, &Layers::default()).map_err(|errors| wrong(&errors))?;
            // the default document has comments, which a merged one does not
            if is_default { terminal::print(DEFAULT)? } else { terminal::print(&config.dump())? }
        }
    }
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stream_keeps_events_for_half_as_long_again_as_outboxes() {
        let kept = |retention: &str| {
            let flags = vec!["events.nats=nats://127.0.0.1:4222".to_owned(), format!("events.retention={retention}")];
            let settings = Sources { flags, ..Sources::default() }.settings().expect("settings");
            (settings.retention.as_secs(), settings.events.expect("a broker").max_age.as_secs())
        };
        assert_eq!(kept("10d"), (864_000, 1_296_000));
        assert_eq!(kept("0s"), (0, 0), "for ever");
    }
}
