//! Instants as column values: whole microseconds since 1970.

use jiff::Timestamp;

/// The column value of an instant.
#[must_use]
pub fn micros(time: Timestamp) -> i64 {
    time.as_microsecond()
}

/// The instant of a column value. A value out of range, which nothing here writes, becomes the epoch.
#[must_use]
pub fn timestamp(micros: i64) -> Timestamp {
    Timestamp::from_microsecond(micros).unwrap_or_default()
}
