//! When a date can be booked and cancelled: past dates, the booking window, the cancellation cut-off.
//!
//! Every offset of a policy counts back from the local midnight that begins the screening date. So a window is a pair
//! of instants and needs no calendar arithmetic. Who is exempt from a rule is decided elsewhere.

use fault::{Fault, Reason};
use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use crate::civil::{begin_of, today};

/// The longest offset a policy may have: 366 days.
pub const MAX_OFFSET: SignedDuration = SignedDuration::from_hours(8_784);
/// The most bookings that a policy may let wait for one slot.
pub const MAX_WAITLIST: i32 = 10_000;
/// The most moves of a booking that a policy may limit a customer to.
pub const MAX_RESCHEDULES: i32 = 100;
/// The most bookings that a policy may limit a customer to.
pub const MAX_BOOKINGS: i32 = 1_000;

/// How long before a date it can be booked and cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BookingPolicy {
    /// A date can be booked until this long before it begins.
    pub min_notice: SignedDuration,
    /// A date can be booked from this long before it begins.
    pub max_advance: SignedDuration,
    /// Customers can cancel until this long before the date begins.
    pub cancellation_cutoff: SignedDuration,
    /// The most bookings that may wait for one slot; 0: there are no queues.
    pub waitlist_limit: i32,
    /// Who waits gets a place until this long before the date begins.
    pub promotion_min_notice: SignedDuration,
    /// How often a customer may move one booking.
    pub reschedule_limit: i32,
    /// The most active and waiting bookings that one customer may have; `None`: any number.
    pub customer_limit: Option<i32>,
}

impl Default for BookingPolicy {
    fn default() -> Self {
        Self {
            min_notice: SignedDuration::ZERO,
            max_advance: MAX_OFFSET,
            cancellation_cutoff: SignedDuration::ZERO,
            waitlist_limit: 100,
            promotion_min_notice: SignedDuration::from_hours(24),
            reschedule_limit: 3,
            customer_limit: None,
        }
    }
}

/// From when (inclusive) until when (exclusive) a date can be booked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// The first instant inside.
    pub opens_at: Timestamp,
    /// The first instant after it.
    pub closes_at: Timestamp,
}

impl Window {
    /// Whether an instant is inside the window.
    #[must_use]
    pub fn contains(&self, now: Timestamp) -> bool {
        self.opens_at <= now && now < self.closes_at
    }
}

fn before(date: Date, zone: &TimeZone, offset: SignedDuration) -> Timestamp {
    let begin = begin_of(date, zone);
    begin.checked_sub(offset).unwrap_or(Timestamp::MIN)
}

impl BookingPolicy {
    /// The instants between which this date can be booked.
    #[must_use]
    pub fn window(&self, date: Date, zone: &TimeZone) -> Window {
        Window { opens_at: before(date, zone, self.max_advance), closes_at: before(date, zone, self.min_notice) }
    }

    /// The instant from which a customer can no longer cancel a booking of this date.
    #[must_use]
    pub fn cancellation_close(&self, date: Date, zone: &TimeZone) -> Timestamp {
        before(date, zone, self.cancellation_cutoff)
    }

    /// The instant from which who joins a queue now gets no place on this date any more.
    #[must_use]
    pub fn promotion_close(&self, date: Date, zone: &TimeZone) -> Timestamp {
        before(date, zone, self.promotion_min_notice)
    }

    /// Why no date could ever be booked under this policy; `None` if some can. A cancellation cut-off longer than
    /// `max_advance` is valid: customers of such a hospital cannot cancel, its admins can.
    #[must_use]
    pub fn contradiction(&self) -> Option<String> {
        let Self { min_notice, max_advance, .. } = self;
        (min_notice >= max_advance).then(|| {
            let (notice, advance) = (min_notice.as_secs_f64(), max_advance.as_secs_f64());
            format!(
                "min_notice ({notice} s) must be shorter than max_advance ({advance} s): no date could ever be booked"
            )
        })
    }

    /// Refuses a date that is over or cannot be booked now.
    ///
    /// # Errors
    /// DATE_IN_PAST, or OUTSIDE_BOOKING_WINDOW with the window's limits.
    pub fn judge(&self, date: Date, zone: &TimeZone, now: Timestamp) -> Result<(), Fault> {
        refuse_past(date, zone, now)?;
        let window = self.window(date, zone);
        if window.contains(now) {
            return Ok(());
        }
        let Window { opens_at, closes_at } = window;
        let (today, name) = (today(now, zone), zone_name(zone));
        let message = format!(
            "{date} can be booked from {opens_at} until {closes_at}; today is {today} in {name}, and it is {now} now"
        );
        Err(Fault::new(Reason::OutsideBookingWindow, message)
            .with("date", date)
            .with("now", now)
            .with("today", today)
            .with("timeZone", name)
            .with("opensAt", opens_at)
            .with("closesAt", closes_at))
    }
}

/// Refuses dates before today in their zone. Such a date is history: its places and bookings stay as they are, and only
/// attendance is still recorded.
///
/// # Errors
/// DATE_IN_PAST if the date is over.
pub fn refuse_past(date: Date, zone: &TimeZone, now: Timestamp) -> Result<(), Fault> {
    let today = today(now, zone);
    if date >= today {
        return Ok(());
    }
    let name = zone_name(zone);
    let message = format!("{date} is in the past: today is {today} in {name}");
    Err(Fault::new(Reason::DateInPast, message).with("date", date).with("today", today).with("timeZone", name))
}

/// The IANA name of a zone. A zone from [`crate::civil::time_zone`] always has one.
#[must_use]
pub fn zone_name(zone: &TimeZone) -> &str {
    zone.iana_name().unwrap_or("UTC")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::civil::time_zone;
    use jiff::civil::date;

    fn seoul() -> TimeZone {
        time_zone("Asia/Seoul").unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn by_default_a_date_is_bookable_until_it_begins() {
        let policy = BookingPolicy::default();
        let day = date(2027, 1, 4);
        let midnight = at("2027-01-03T15:00:00Z");
        assert!(policy.judge(day, &seoul(), midnight - SignedDuration::from_nanos(1)).is_ok());
        let same_day = policy.judge(day, &seoul(), midnight).unwrap_err();
        assert_eq!(same_day.reason(), Reason::OutsideBookingWindow);
        assert_eq!(same_day.metadata()["today"], "2027-01-04");
        assert_eq!(same_day.metadata()["timeZone"], "Asia/Seoul");
        assert_eq!(same_day.metadata()["closesAt"], "2027-01-03T15:00:00Z");
        assert_eq!(same_day.metadata()["opensAt"], "2026-01-02T15:00:00Z");
        let last_instant = at("2027-01-04T14:59:59Z");
        assert_eq!(policy.judge(day, &seoul(), last_instant).unwrap_err().reason(), Reason::OutsideBookingWindow);
        let over = policy.judge(day, &seoul(), at("2027-01-04T15:00:00Z")).unwrap_err();
        assert_eq!(over.reason(), Reason::DateInPast);
        assert_eq!(over.metadata()["today"], "2027-01-05");
    }

    #[test]
    fn a_window_opens_max_advance_and_closes_min_notice_before_the_date() {
        let policy = BookingPolicy {
            min_notice: SignedDuration::from_hours(24),
            max_advance: SignedDuration::from_hours(48),
            cancellation_cutoff: SignedDuration::from_hours(12),
            promotion_min_notice: SignedDuration::from_hours(36),
            ..BookingPolicy::default()
        };
        let day = date(2027, 1, 4);
        let window = policy.window(day, &seoul());
        assert_eq!(window.opens_at, at("2027-01-01T15:00:00Z"));
        assert_eq!(window.closes_at, at("2027-01-02T15:00:00Z"));
        assert!(window.contains(window.opens_at));
        assert!(!window.contains(window.closes_at));
        assert_eq!(policy.cancellation_close(day, &seoul()), at("2027-01-03T03:00:00Z"));
        assert_eq!(policy.promotion_close(day, &seoul()), at("2027-01-02T03:00:00Z"));
        let early = policy.judge(day, &seoul(), window.opens_at - SignedDuration::from_nanos(1)).unwrap_err();
        assert_eq!(early.reason(), Reason::OutsideBookingWindow);
    }

    #[test]
    fn the_same_instant_is_another_date_in_another_zone() {
        let now = at("2027-01-04T02:00:00Z");
        let los_angeles = time_zone("America/Los_Angeles").unwrap();
        assert!(refuse_past(date(2027, 1, 3), &los_angeles, now).is_ok());
        assert_eq!(refuse_past(date(2027, 1, 3), &seoul(), now).unwrap_err().reason(), Reason::DateInPast);
    }

    #[test]
    fn the_edges_of_the_calendar_have_windows() {
        let policy = BookingPolicy::default();
        for day in [date(1, 1, 1), date(9999, 12, 31)] {
            let window = policy.window(day, &seoul());
            assert!(window.opens_at < window.closes_at);
        }
    }
}
