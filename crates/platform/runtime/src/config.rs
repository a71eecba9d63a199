//! Configuration as one document: the commented default, overridden by a file, the environment and flags, in this
//! order.
//!
//! The default document is the schema: an unknown key is refused, and so is a value of another type. Each owner checks
//! whether its values make sense together. Nothing here reads the process's environment; it is passed in.

mod document;
pub mod duration;
mod error;
mod layer;
pub mod offset;

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::de::DeserializeOwned;
use toml::{Table, Value};

pub use error::{ConfigError, Origin};

/// Environment variables: the process's own in the binary, a map in tests.
pub type Source = BTreeMap<String, String>;

/// The layers that override the default document, weakest first.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The path and the text of a TOML file.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables. Those that begin with `CHECKUP_` are read, for example
    /// `CHECKUP_SCREENING__RECONCILE_GRACE=5s`.
    pub env: Source,
    /// Flags of the form `screening.reconcile_grace=5s`.
    pub flags: Vec<String>,
}

/// The effective configuration: the default document with its overrides.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    values: Table,
    origins: BTreeMap<String, Origin>,
}

impl Config {
    /// Applies the layers to the default document.
    ///
    /// # Errors
    /// All errors of all layers at once.
    pub fn load(default: &str, layers: &Layers) -> Result<Self, Vec<ConfigError>> {
        let schema: Table = default.parse().map_err(|error: toml::de::Error| {
            vec![ConfigError::new(Origin::Default, "", format!("is not TOML: {}", error.message()))]
        })?;
        let mut config = Self { values: schema.clone(), origins: BTreeMap::new() };
        let mut errors = Vec::new();
        let overrides = layer::overrides(layers, &schema, &mut errors);
        for (key, value, origin) in overrides {
            match document::set(&mut config.values, &schema, &key, value) {
                Ok(()) => {
                    config.origins.insert(key, origin);
                }
                Err(why) => errors.push(ConfigError::new(origin, &key, why)),
            }
        }
        if errors.is_empty() { Ok(config) } else { Err(errors) }
    }

    /// A value or a section by its dotted path, deserialized into its owner's type.
    ///
    /// # Errors
    /// [`ConfigError`] if the path does not exist or the values do not fit the type.
    pub fn section<T: DeserializeOwned>(&self, path: &str) -> Result<T, ConfigError> {
        let found = document::get(&self.values, path).cloned();
        let value = found.ok_or_else(|| ConfigError::new(Origin::Default, path, "does not exist".to_owned()))?;
        value.try_into().map_err(|error: toml::de::Error| {
            let origin = self.origin_of(path);
            ConfigError::new(origin, path, error.message().to_owned())
        })
    }

    /// The effective document. A comment gives the origin of each value that is not the default.
    #[must_use]
    pub fn dump(&self) -> String {
        document::write(&self.values, &self.origins)
    }

    /// The origin of a section's values: the default, the one layer that changed any of them, or several.
    fn origin_of(&self, path: &str) -> Origin {
        let inside = |key: &str| key == path || key.strip_prefix(path).is_some_and(|rest| rest.starts_with('.'));
        let mut origins = self.origins.iter().filter(|(key, _)| inside(key)).map(|(_, origin)| origin);
        match (origins.next(), origins.next()) {
            (Some(origin), None) => origin.clone(),
            (Some(_), Some(_)) => Origin::Several,
            (None, _) => Origin::Default,
        }
    }
}

/// A key's dotted path, its new value and the value's origin.
type Override = (String, Value, Origin);

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde::Deserialize;

    use super::*;

    const DEFAULT: &str = r#"
# shifts the time of day
clock_offset = "0s"
peers = ["a"]

[screening]
# how long a claim may wait for its row
reconcile_grace = "10s"
batch = 256
ratio = 0.5

[screening.retry]
attempts = 3
jitter = true
"#;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Screening {
        #[serde(with = "duration")]
        reconcile_grace: Duration,
        batch: usize,
        ratio: f64,
        retry: Retry,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Retry {
        attempts: u32,
        jitter: bool,
    }

    fn layers(file: &str, env: &[(&str, &str)], flags: &[&str]) -> Layers {
        Layers {
            file: Some(("/etc/checkup.toml".into(), file.to_owned())),
            env: env.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
        }
    }

    #[test]
    fn file_gives_way_to_env_and_env_to_flags() {
        let layers = layers(
            "[screening]\nbatch = 1\nratio = 2\n[screening.retry]\nattempts = 1\n",
            &[("CHECKUP_SCREENING__BATCH", "2"), ("CHECKUP_SCREENING__RETRY__ATTEMPTS", "2"), ("HOME", "/root")],
            &["screening.batch=3", "screening.reconcile_grace=1m 30s", "screening.retry.jitter=false"],
        );
        let config = Config::load(DEFAULT, &layers).unwrap();
        let screening: Screening = config.section("screening").unwrap();
        let expected = Screening {
            reconcile_grace: Duration::from_secs(90),
            batch: 3,
            ratio: 2.0,
            retry: Retry { attempts: 2, jitter: false },
        };
        assert_eq!(screening, expected);
        assert_eq!(config.section::<Vec<String>>("peers").unwrap(), ["a"]);
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once_with_its_origin() {
        let layers = layers(
            "surprise = 1\n[screening]\nbatch = \"many\"\nretry = 5\n",
            &[("CHECKUP_SCREENING__BATCH", "few"), ("CHECKUP_SCREENNG__BATCH", "1"), ("CHECKUP_SCREENING", "1")],
            &["screening.reconcile_grace=soon", "no-equals-sign", "peers=[1"],
        );
        let errors = Config::load(DEFAULT, &layers).unwrap_err();
        let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
        let expected = [
            "flag --set no-equals-sign: is not of the form key=value",
            "flag --set peers=[1: peers: is not an array in TOML",
            "/etc/checkup.toml: screening.batch: has to be an integer, but is a string",
            "/etc/checkup.toml: screening.retry: has to be a table, but is an integer",
            "/etc/checkup.toml: surprise: is not a known key",
            "environment variable CHECKUP_SCREENING: screening: is a section, not a value",
            "environment variable CHECKUP_SCREENING__BATCH: screening.batch: has to be an integer",
            "environment variable CHECKUP_SCREENNG__BATCH: screenng.batch: is not a known key",
            "flag --set screening.reconcile_grace=soon: screening.reconcile_grace: has to be a duration such as \"5s\" or \"1h 30m\"",
        ];
        for text in expected {
            assert!(texts.iter().any(|found| found == text), "{text}\nis not among\n{texts:#?}");
        }
        assert_eq!(texts.len(), expected.len(), "{texts:#?}");
    }

    #[test]
    fn what_is_dumped_loads_again_and_tells_its_origins() {
        let layers = layers("", &[("CHECKUP_SCREENING__RECONCILE_GRACE", "5s")], &["peers=[\"b\", \"c\"]"]);
        let config = Config::load(DEFAULT, &layers).unwrap();
        let dump = config.dump();
        assert!(
            dump.contains("reconcile_grace = \"5s\" # environment variable CHECKUP_SCREENING__RECONCILE_GRACE\n"),
            "{dump}"
        );
        let again = Config::load(&dump, &Layers::default()).unwrap();
        assert_eq!(again.values, config.values);
    }

    #[test]
    fn a_section_of_another_form_names_its_origin() {
        let config = Config::load(DEFAULT, &layers("", &[], &["screening.batch=-1"])).unwrap();
        let error = config.section::<Screening>("screening").unwrap_err();
        assert!(error.to_string().starts_with("flag --set screening.batch=-1: screening: "), "{error}");
        assert!(config.section::<Screening>("hospital").is_err());
    }
}
