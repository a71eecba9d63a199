//! Civil dates and instants, and their forms in the contract.
//!
//! A screening date is a date in the hospital's time zone; only audit times are instants.

use fault::{Reason, Violations};
use jiff::civil::Date;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Timestamp};

/// Reads a complete civil date; adds a violation if it is missing, partial or impossible.
pub fn decode_date(
    violations: &mut Violations,
    field: &str,
    date: Option<contract::google::r#type::Date>,
) -> Option<Date> {
    let Some(contract::google::r#type::Date { year, month, day }) = date else {
        violations.add(field, Reason::DateInvalid, "is required");
        return None;
    };
    let parsed = i16::try_from(year)
        .ok()
        .zip(i8::try_from(month).ok())
        .zip(i8::try_from(day).ok())
        .filter(|((year, _), _)| *year >= 1)
        .and_then(|((year, month), day)| Date::new(year, month, day).ok());
    if parsed.is_none() {
        violations.add(field, Reason::DateInvalid, format!("{year:04}-{month:02}-{day:02} is not a date"));
    }
    parsed
}

/// Writes a civil date as the contract's `Date`.
#[must_use]
pub fn encode_date(date: Date) -> contract::google::r#type::Date {
    contract::google::r#type::Date { year: date.year().into(), month: date.month().into(), day: date.day().into() }
}

/// Writes a span of time as the contract's `Duration`.
#[must_use]
pub fn encode_duration(duration: SignedDuration) -> prost_types::Duration {
    prost_types::Duration { seconds: duration.as_secs(), nanos: duration.subsec_nanos() }
}

/// Writes an instant as the contract's `Timestamp`, at most the second 9999-12-31T23:59:59Z.
#[must_use]
pub fn encode_time(time: Timestamp) -> prost_types::Timestamp {
    prost_types::Timestamp { seconds: time.as_second().min(MAX_SECOND), nanos: time.subsec_nanosecond().max(0) }
}

/// The last second that protobuf's Timestamp can carry: 9999-12-31T23:59:59Z.
const MAX_SECOND: i64 = 253_402_300_799;

/// Reads an instant; `None` if it is out of range.
#[must_use]
pub fn decode_time(time: &prost_types::Timestamp) -> Option<Timestamp> {
    Timestamp::new(time.seconds, time.nanos).ok()
}

/// Reads an IANA time zone name; `None` unless it is spelled as in the database.
#[must_use]
pub fn time_zone(name: &str) -> Option<TimeZone> {
    let zone = TimeZone::get(name).ok()?;
    (zone.iana_name() == Some(name)).then_some(zone)
}

/// The civil date at `now` in a zone.
#[must_use]
pub fn today(now: Timestamp, zone: &TimeZone) -> Date {
    zone.to_datetime(now).date()
}

/// The zone to use when a hospital's zone is not known. No day ends later than in this zone, so a date that is over
/// here is over everywhere.
#[must_use]
pub fn last_zone() -> TimeZone {
    const FIXED: TimeZone = TimeZone::fixed(Offset::constant(-12));
    TimeZone::get("Etc/GMT+12").unwrap_or(FIXED)
}

/// The instant at which a date begins in a zone. If a clock change skips midnight, the first instant after the gap.
#[must_use]
pub fn begin_of(date: Date, zone: &TimeZone) -> Timestamp {
    let midnight = date.at(0, 0, 0, 0);
    match zone.to_ambiguous_zoned(midnight).compatible() {
        Ok(zoned) => zoned.timestamp(),
        // Only dates at the limits of what an instant can express reach this arm.
        Err(_) if date.year() > 0 => Timestamp::MAX,
        Err(_) => Timestamp::MIN,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_date_begins_at_its_own_midnight() {
        let seoul = time_zone("Asia/Seoul").unwrap();
        let begin = begin_of(jiff::civil::date(2027, 1, 4), &seoul);
        assert_eq!(begin, "2027-01-03T15:00:00Z".parse().unwrap());
        assert_eq!(today(begin, &seoul), jiff::civil::date(2027, 1, 4));
        assert_eq!(today(begin - jiff::SignedDuration::from_nanos(1), &seoul), jiff::civil::date(2027, 1, 3));
    }

    #[test]
    fn a_skipped_midnight_begins_after_the_gap() {
        let cairo = time_zone("Africa/Cairo").unwrap();
        let begin = begin_of(jiff::civil::date(2027, 4, 30), &cairo);
        assert_eq!(begin, "2027-04-29T22:00:00Z".parse().unwrap());
    }

    #[test]
    fn impossible_dates_are_violations() {
        for (year, month, day) in [(2027, 2, 29), (0, 1, 1), (2027, 13, 1), (2027, 0, 0), (99_999, 1, 1), (2027, 1, -1)]
        {
            let mut violations = Violations::new();
            let date = contract::google::r#type::Date { year, month, day };
            assert_eq!(decode_date(&mut violations, "date", Some(date)), None);
            assert!(!violations.is_empty());
        }
    }

    #[test]
    fn unknown_zones_are_refused() {
        assert!(time_zone("Asia/Soul").is_none());
        assert!(time_zone("").is_none());
        assert!(time_zone("asia/seoul").is_none());
    }
}
