//! The configuration of a process: the default document, and its sections as those who use them want them.
//!
//! `checkup config check` and `dump` are here too. How layers are laid over each other is `runtime::config`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::SignedDuration;
use runtime::config::{Config, ConfigError, Layers, Origin, duration, offset};
use runtime::server::ServerOptions;
use runtime::telemetry::{Format, TelemetryOptions};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tonic::transport::Uri;

use crate::cli::{ConfigArgs, ConfigCommand};
use crate::exit::{Exit, Failure, chain};
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
    /// Patience of the consumers of events.
    pub relay: relay::ConsumeOptions,
    /// Hospital's own.
    pub hospital: hospital::Options,
    /// Where Screening finds Hospital; `None`: in this process.
    pub screening_hospital: Option<Uri>,
    /// Screening's own.
    pub screening: screening::Options,
    /// Reservation's own.
    pub reservation: reservation::Options,
    /// MyPage's own.
    pub mypage: mypage::Options,
    /// Where Marketing finds Hospital; `None`: in this process.
    pub marketing_hospital: Option<Uri>,
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
    batch: usize,
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
    pub fn of_process(file: Option<&Path>, flags: &[String]) -> Self {
        // a variable that is not text is none of ours
        let env =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        Self { file: file.map(Path::to_owned), env: env.collect(), flags: flags.to_vec() }
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
        let relay: Option<RelaySection> = section(config, "relay", &mut errors);
        let hospital = section(config, "hospital", &mut errors);
        let (screening_hospital, screening) = calling(config, "screening", &mut errors);
        let reservation = section(config, "reservation", &mut errors);
        let mypage = section(config, "mypage", &mut errors);
        let (marketing_hospital, marketing) = calling(config, "marketing", &mut errors);
        let settings = (|| {
            Some(Self {
                clock_offset: clock?.offset,
                server: server?,
                identity: identity?,
                telemetry: telemetry?.into(),
                relay: relay?.into(),
                hospital: hospital?,
                screening_hospital: screening_hospital?,
                screening: screening?,
                reservation: reservation?,
                mypage: mypage?,
                marketing_hospital: marketing_hospital?,
                marketing: marketing?,
            })
        })();
        settings.ok_or(errors)
    }
}

fn section<T: DeserializeOwned>(config: &Config, name: &str, errors: &mut Vec<ConfigError>) -> Option<T> {
    config.section(name).map_err(|error| errors.push(error)).ok()
}

/// The section of a service that calls Hospital: where that is, which is for the assembly to know, and the service's own options.
fn calling<T: DeserializeOwned>(
    config: &Config,
    name: &str,
    errors: &mut Vec<ConfigError>,
) -> (Option<Option<Uri>>, Option<T>) {
    const ADDRESS: &str = "hospital_address";
    let wrong = |key: String, problem: String| ConfigError { origin: Origin::Several, key, problem };
    let key = format!("{name}.{ADDRESS}");
    let address = section::<String>(config, &key, errors).and_then(|text| {
        let address = hospital_address(&text);
        address.map_err(|problem| errors.push(wrong(key, problem))).ok()
    });
    let options = section::<toml::Table>(config, name, errors).and_then(|mut table| {
        table.remove(ADDRESS);
        let options = toml::Value::Table(table).try_into();
        options.map_err(|error: toml::de::Error| errors.push(wrong(name.to_owned(), error.message().to_owned()))).ok()
    });
    (address, options)
}

fn hospital_address(text: &str) -> Result<Option<Uri>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let uri: Option<Uri> = text.parse().ok();
    let usable = uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some_and(|host| !host.is_empty()));
    usable.map(Some).ok_or_else(|| format!("{text:?} is not of the form http://HOST:PORT"))
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

impl From<RelaySection> for relay::ConsumeOptions {
    fn from(section: RelaySection) -> Self {
        let RelaySection { batch, attempts, first_pause, last_pause } = section;
        Self { batch, attempts, first_pause, last_pause }
    }
}

/// `checkup config`.
///
/// # Errors
/// Where the configuration is wrong.
pub fn run(command: ConfigCommand) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Check(args) => {
            sources(&args).settings()?;
            terminal::print("the configuration is good\n");
        }
        ConfigCommand::Dump(args) => {
            let sources = sources(&args);
            sources.settings()?;
            let config = sources.load()?;
            let is_default = config == Config::load(DEFAULT, &Layers::default()).map_err(|errors| wrong(&errors))?;
            // the default document has the comments that a changed one has lost
            if is_default { terminal::print(DEFAULT) } else { terminal::print(&config.dump()) }
        }
    }
    Ok(Exit::Ok)
}

fn sources(args: &ConfigArgs) -> Sources {
    Sources::of_process(args.config.as_deref(), &args.set)
}
