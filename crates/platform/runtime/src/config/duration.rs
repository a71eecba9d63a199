//! Durations as people write them: `#[serde(with = "runtime::config::duration")]` reads `5s`, `250ms`, `1h 30m`.

use std::time::Duration;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Reads a duration such as `5s`.
///
/// # Errors
/// The deserializer's error if the text is no duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|_| D::Error::custom(format!("{text:?} is not a duration such as \"5s\"")))
}

/// Writes a duration such as `5s`.
///
/// # Errors
/// The serializer's error.
pub fn serialize<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(&humantime::format_duration(*duration))
}
