//! Durations that may be negative, such as the shift of a clock: `#[serde(with = "runtime::config::offset")]` reads
//! `-36h` and `90m`.

use jiff::SignedDuration;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serializer};

/// Reads an offset; `None` if the text is no duration.
pub(super) fn parse(text: &str) -> Option<SignedDuration> {
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(magnitude) => (true, magnitude),
        None => (false, text),
    };
    let magnitude = SignedDuration::try_from(humantime::parse_duration(magnitude).ok()?).ok()?;
    Some(if negative { -magnitude } else { magnitude })
}

/// Reads an offset such as `-36h`.
///
/// # Errors
/// The deserializer's error if the text is no duration.
pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SignedDuration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse(&text).ok_or_else(|| D::Error::custom(format!("{text:?} is not a duration such as \"-36h\"")))
}

/// Writes an offset such as `-36h`.
///
/// # Errors
/// The serializer's error.
pub fn serialize<S: Serializer>(offset: &SignedDuration, serializer: S) -> Result<S::Ok, S::Error> {
    let sign = if offset.is_negative() { "-" } else { "" };
    serializer.collect_str(&format_args!("{sign}{}", humantime::format_duration(offset.unsigned_abs())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets_go_both_ways() {
        assert_eq!(parse("-36h"), Some(SignedDuration::from_hours(-36)));
        assert_eq!(parse("0s"), Some(SignedDuration::ZERO));
        assert_eq!(parse("--1h"), None);
        assert_eq!(parse(""), None);
    }
}
