//! Instants as column values: whole microseconds since 1970.

use jiff::Timestamp;

/// The column value of an instant: microseconds since 1970-01-01T00:00:00Z, negative before it. What is less than a
/// microsecond is cut off.
#[must_use]
pub fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// The instant of a column value in microseconds since 1970. A value out of range, which nothing here writes, becomes
/// the epoch.
#[must_use]
pub fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}
