//! The configuration of a process: the default document, and its sections as those who use them want them.
//!
//! `checkup config check` and `dump` are here too. How layers are laid over each other is `runtime::config`'s.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bus::jetstream::JetStreamOptions;
use jiff::SignedDuration;
use runtime::client;
use runtime::config::{Config, ConfigError, Layers, Origin, duration, offset};
use runtime::server::ServerOptions;
use runtime::telemetry::{Format, TelemetryOptions};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use store::Location;
use tonic::transport::Uri;

use crate::cli::{ConfigArgs, ConfigCommand};
use crate::exit::{Exit, Failure, chain};
use crate::service::Service;
use crate::terminal;

/// Every key with its default and what it means: the manual, and the schema.
pub const DEFAULT: &str = include_str!("default.toml");

/// The effective configuration.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How far the rules' clock is from the machine's.
    pub clock_offset: SignedDuration,
    /// Limits of the server.
    pub server: ServerOptions,
    /// Whose tokens are accepted.
    pub identity: IdentityOptions,
    /// What is logged.
    pub telemetry: TelemetryOptions,
    /// The broker that `serve` needs; `None`: not configured.
    pub events: Option<JetStreamOptions>,
    /// Patience of the consumers of events.
    pub consume: relay::ConsumeOptions,
    /// Patience of the publishers of events.
    pub publish: relay::PublishOptions,
    /// Where services have their data that have a place of their own.
    pub databases: BTreeMap<Service, Location>,
    /// Hospital's own.
    pub hospital: hospital::Options,
    /// The replicas of Hospital that Screening calls; none: the one in this process.
    pub screening_hospital: Vec<Uri>,
    /// Screening's own.
    pub screening: screening::Options,
    /// Reservation's own.
    pub reservation: reservation::Options,
    /// MyPage's own.
    pub mypage: mypage::Options,
    /// The replicas of Hospital that Marketing calls; none: the one in this process.
    pub marketing_hospital: Vec<Uri>,
    /// Marketing's own.
    pub marketing: marketing::Options,
}

/// Section `clock`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct ClockSection {
    #[serde(with = "offset")]
    offset: SignedDuration,
}

/// Section `identity`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct IdentityOptions {
    /// A JWKS document with keys whose tokens are accepted besides the directory's own; empty: none.
    pub jwks_file: PathBuf,
    /// The directory of the key that services started with `serve` share; empty: none.
    pub key_dir: PathBuf,
    /// The file with the current token of such a service; empty: none.
    pub token_file: PathBuf,
}

/// Section `events`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsSection {
    nats: String,
    stream: String,
    replicas: usize,
    max_bytes: i64,
    #[serde(with = "duration")]
    max_age: Duration,
    #[serde(with = "duration")]
    duplicate_window: Duration,
    #[serde(with = "duration")]
    acknowledge_wait: Duration,
}

/// Section `telemetry`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct TelemetrySection {
    filter: String,
    format: LogFormat,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum LogFormat {
    Auto,
    Pretty,
    Json,
}

/// Section `relay`.
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
    outbox_retention: Duration,
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

/// Where a configuration comes from, besides the default document.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// A file.
    pub file: Option<PathBuf>,
    /// The environment.
    pub env: BTreeMap<String, String>,
    /// `key=value`, strongest.
    pub flags: Vec<String>,
}

impl Sources {
    /// A file, this process's environment and flags.
    #[must_use]
    pub fn of_process(args: &ConfigArgs) -> Self {
        // a variable that is not text is none of ours
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { file: args.config.clone(), env: env.collect(), flags: args.set.clone() }
    }

    /// The effective document.
    ///
    /// # Errors
    /// Everything that is wrong, one line each.
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

    /// The effective configuration.
    ///
    /// # Errors
    /// Everything that is wrong, one line each.
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
    /// The sections of a document.
    ///
    /// # Errors
    /// Every section that is not as its owner wants it.
    pub fn of(config: &Config) -> Result<Self, Vec<ConfigError>> {
        let mut errors = Vec::new();
        let clock: Option<ClockSection> = section(config, "clock", &mut errors);
        let server = section(config, "server", &mut errors);
        let identity = section(config, "identity", &mut errors);
        let telemetry: Option<TelemetrySection> = section(config, "telemetry", &mut errors);
        let events: Option<EventsSection> = section(config, "events", &mut errors);
        let relay: Option<RelaySection> = section(config, "relay", &mut errors);
        let mut databases = BTreeMap::new();
        let (_, hospital) = service(config, Service::Hospital, &mut databases, &mut errors);
        let (screening_hospital, screening) = service(config, Service::Screening, &mut databases, &mut errors);
        let (_, reservation) = service(config, Service::Reservation, &mut databases, &mut errors);
        let (_, mypage) = service(config, Service::MyPage, &mut databases, &mut errors);
        let (marketing_hospital, marketing) = service(config, Service::Marketing, &mut databases, &mut errors);
        let settings = (|| {
            let relay = relay?;
            Some(Self {
                clock_offset: clock?.offset,
                server: server?,
                identity: identity?,
                telemetry: telemetry?.into(),
                events: events?.options(),
                publish: relay.publish(),
                consume: relay.consume(),
                databases,
                hospital: hospital?,
                screening_hospital,
                screening: screening?,
                reservation: reservation?,
                mypage: mypage?,
                marketing_hospital,
                marketing: marketing?,
            })
        })();
        settings.filter(|_| errors.is_empty()).ok_or(errors)
    }
}

fn section<T: DeserializeOwned>(config: &Config, name: &str, errors: &mut Vec<ConfigError>) -> Option<T> {
    config.section(name).map_err(|error| errors.push(error)).ok()
}

/// The section of a service: its own options, and what is for the assembly to know, its database and the Hospitals it calls.
fn service<T: DeserializeOwned>(
    config: &Config,
    service: Service,
    databases: &mut BTreeMap<Service, Location>,
    errors: &mut Vec<ConfigError>,
) -> (Vec<Uri>, Option<T>) {
    let name = service.name();
    let wrong = |key: String, problem: String| ConfigError { origin: Origin::Several, key, problem };
    let Some(mut table) = section::<toml::Table>(config, name, errors) else { return (Vec::new(), None) };
    let mut take =
        |key: &str| table.remove(key).and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default();
    let (database, hospital) = (take("database"), take("hospital_address"));
    if !database.is_empty() {
        match database.parse() {
            Ok(location) => drop(databases.insert(service, location)),
            Err(error) => errors.push(wrong(format!("{name}.database"), error.to_string())),
        }
    }
    let addresses = if hospital.is_empty() { Ok(Vec::new()) } else { client::addresses(&hospital) };
    let addresses = addresses.map_err(|problem| errors.push(wrong(format!("{name}.hospital_address"), problem)));
    let options = toml::Value::Table(table).try_into();
    let options =
        options.map_err(|error: toml::de::Error| errors.push(wrong(name.to_owned(), error.message().to_owned())));
    (addresses.unwrap_or_default(), options.ok())
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
    fn options(self) -> Option<JetStreamOptions> {
        let Self { nats, stream, replicas, max_bytes, max_age, duplicate_window, acknowledge_wait } = self;
        let options = JetStreamOptions {
            url: nats,
            stream,
            replicas,
            max_bytes,
            max_age,
            duplicate_window,
            ack_wait: acknowledge_wait,
        };
        (!options.url.is_empty()).then_some(options)
    }
}

impl RelaySection {
    fn publish(&self) -> relay::PublishOptions {
        let Self {
            window, publish_pace: pace, publish_timeout: timeout, lease: term, outbox_retention: retention, ..
        } = *self;
        relay::PublishOptions { window, pace, timeout, term, retention, ..relay::PublishOptions::default() }
    }

    fn consume(&self) -> relay::ConsumeOptions {
        let Self { batch, pace, attempts, first_pause, last_pause, inbox_retention: memory, .. } = *self;
        relay::ConsumeOptions { batch, pace, attempts, first_pause, last_pause, memory }
    }
}

/// `checkup config`.
///
/// # Errors
/// Where the configuration is wrong.
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
            // the default document has the comments that a changed one has lost
            if is_default { terminal::print(DEFAULT)? } else { terminal::print(&config.dump())? }
        }
    }
    Ok(Exit::Ok)
}
