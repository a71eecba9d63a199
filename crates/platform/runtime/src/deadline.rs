//! The instant at which a caller stops waiting, on the monotonic clock.
//!
//! The server's door computes one deadline per call from `grpc-timeout`. Handlers read it, wait at most until then, and
//! pass the rest of it on to the calls that they make. The door enforces it, not the handlers.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Request;

/// How long a call without `grpc-timeout` may take, unless the configuration sets another time.
pub const DEFAULT: Duration = Duration::from_secs(30);

/// The shortest wait without an answer that says something about the peer. After a shorter wait the caller simply had
/// no time; after a longer one it may call the peer out of reach. Outgoing calls name at least this time, so no proxy
/// judges a replica by a shorter wait.
pub const FAIR: Duration = Duration::from_millis(500);

/// The instant by which a call must be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline this far from now, at most a year.
    #[must_use]
    pub fn within(span: Duration) -> Self {
        const YEAR: Duration = Duration::from_secs(365 * 24 * 60 * 60);
        Self(Instant::now() + span.min(YEAR))
    }

    /// The deadline that the door put on this request; [`DEFAULT`] from now if the call did not pass a door.
    #[must_use]
    pub fn from_request<T>(request: &Request<T>) -> Self {
        request.extensions().get::<Self>().copied().unwrap_or_else(|| Self::within(DEFAULT))
    }

    /// The instant itself, for `tokio::time::timeout_at`.
    #[must_use]
    pub fn instant(self) -> Instant {
        self.0
    }

    /// The time that is left; zero once the deadline has passed.
    #[must_use]
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Whether no time is left.
    #[must_use]
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// A deadline that is earlier by `reserve`, the time that work after the wait needs.
    #[must_use]
    pub fn earlier_by(self, reserve: Duration) -> Self {
        Self(self.0.checked_sub(reserve).unwrap_or(self.0))
    }

    /// Reads the value of a `grpc-timeout` header: at most eight digits and one of the units `H M S m u n`. `None` if
    /// it is malformed.
    #[must_use]
    pub fn parse_timeout(header: &str) -> Option<Duration> {
        let (digits, unit) = header.split_at_checked(header.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let amount: u64 = digits.parse().ok()?;
        match unit {
            "H" => Some(Duration::from_secs(amount * 60 * 60)),
            "M" => Some(Duration::from_secs(amount * 60)),
            "S" => Some(Duration::from_secs(amount)),
            "m" => Some(Duration::from_millis(amount)),
            "u" => Some(Duration::from_micros(amount)),
            "n" => Some(Duration::from_nanos(amount)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_are_read_as_the_protocol_writes_them() {
        assert_eq!(Deadline::parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(Deadline::parse_timeout("99999999H"), Some(Duration::from_secs(99_999_999 * 3600)));
        for malformed in ["", "m", "10", "-1S", "123456789S", "1s", "1 S", "+1S", "١S", "1é"] {
            assert_eq!(Deadline::parse_timeout(malformed), None, "{malformed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_remains_shrinks_to_zero() {
        let deadline = Deadline::within(Duration::from_secs(2));
        assert_eq!(deadline.earlier_by(Duration::from_secs(1)).remaining(), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(5)).await;
        assert!(deadline.has_passed());
        assert!(!Deadline::within(Duration::MAX).has_passed());
    }
}
