//! Decodes booking policies.

use std::ops::RangeInclusive;

use contract::hospital::v1::BookingPolicy as PolicyMessage;
use domain::hospital::HospitalChange;
use domain::window::{BookingPolicy, MAX_BOOKINGS, MAX_OFFSET, MAX_RESCHEDULES, MAX_WAITLIST};
use fault::{Reason, Violations};
use jiff::SignedDuration;
use prost_types::Duration;

/// The fields of a booking policy. An unset one is `None`.
#[derive(Debug, Clone, Copy)]
pub(super) struct SentPolicy {
    min_notice: Option<SignedDuration>,
    max_advance: Option<SignedDuration>,
    cancellation_cutoff: Option<SignedDuration>,
    waitlist_limit: Option<i32>,
    promotion_min_notice: Option<SignedDuration>,
    reschedule_limit: Option<i32>,
    customer_limit: Option<i32>,
}

impl SentPolicy {
    /// The change of a policy to what was sent. A field that is `cleared` and was not sent gets its default.
    pub(super) fn change(self, cleared: impl Fn(&str) -> bool) -> HospitalChange {
        let default = BookingPolicy::default();
        let offset = |field, sent: Option<SignedDuration>, default| sent.or_else(|| cleared(field).then_some(default));
        let number = |field, sent: Option<i32>, default| sent.or_else(|| cleared(field).then_some(default));
        HospitalChange {
            min_notice: offset("min_notice", self.min_notice, default.min_notice),
            max_advance: offset("max_advance", self.max_advance, default.max_advance),
            cancellation_cutoff: offset("cancellation_cutoff", self.cancellation_cutoff, default.cancellation_cutoff),
            waitlist_limit: number("waitlist_limit", self.waitlist_limit, default.waitlist_limit),
            promotion_min_notice: offset(
                "promotion_min_notice",
                self.promotion_min_notice,
                default.promotion_min_notice,
            ),
            reschedule_limit: number("reschedule_limit", self.reschedule_limit, default.reschedule_limit),
            customer_limit: self
                .customer_limit
                .map(Some)
                .or_else(|| cleared("customer_limit").then_some(default.customer_limit)),
            ..HospitalChange::default()
        }
    }
}

/// Reads those fields of a booking policy that `wanted` accepts by their names.
pub(super) fn sent_policy(
    violations: &mut Violations,
    policy: Option<&PolicyMessage>,
    wanted: impl Fn(&str) -> bool,
) -> Option<SentPolicy> {
    let PolicyMessage {
        min_notice,
        max_advance,
        cancellation_cutoff,
        waitlist_limit,
        promotion_min_notice,
        reschedule_limit,
        customer_limit,
    } = policy.copied().unwrap_or_default();
    let read = |violations: &mut Violations, field: &str, duration: Option<Duration>| match duration {
        Some(duration) if wanted(field) => offset(violations, field, duration).map(Some),
        _ => Some(None),
    };
    let limit = |violations: &mut Violations, field: &str, limit: Option<i32>, allowed: RangeInclusive<i32>| match limit
        .filter(|_| wanted(field))
    {
        Some(limit) if !allowed.contains(&limit) => {
            let description = format!("must be {}..{}, is {limit}", allowed.start(), allowed.end());
            violations.add(format!("hospital.booking_policy.{field}"), Reason::FieldInvalid, description);
            None
        }
        limit => Some(limit),
    };
    let min_notice = read(violations, "min_notice", min_notice);
    let max_advance = read(violations, "max_advance", max_advance);
    let cancellation_cutoff = read(violations, "cancellation_cutoff", cancellation_cutoff);
    let waitlist_limit = limit(violations, "waitlist_limit", waitlist_limit, 0..=MAX_WAITLIST);
    let promotion_min_notice = read(violations, "promotion_min_notice", promotion_min_notice);
    let reschedule_limit = limit(violations, "reschedule_limit", reschedule_limit, 0..=MAX_RESCHEDULES);
    let customer_limit = limit(violations, "customer_limit", customer_limit, 1..=MAX_BOOKINGS);
    Some(SentPolicy {
        min_notice: min_notice?,
        max_advance: max_advance?,
        cancellation_cutoff: cancellation_cutoff?,
        waitlist_limit: waitlist_limit?,
        promotion_min_notice: promotion_min_notice?,
        reschedule_limit: reschedule_limit?,
        customer_limit: customer_limit?,
    })
}

fn offset(violations: &mut Violations, field: &str, duration: Duration) -> Option<SignedDuration> {
    let Duration { seconds, nanos } = duration;
    let well_formed = seconds >= 0 && (0..1_000_000_000).contains(&nanos);
    let offset = well_formed.then(|| SignedDuration::new(seconds, nanos)).filter(|offset| *offset <= MAX_OFFSET);
    if offset.is_none() {
        let field = format!("hospital.booking_policy.{field}");
        violations.add(field, Reason::FieldInvalid, "must be 0 s to 8784 h (31622400 s)");
    }
    offset
}

/// Reads the booking policy of a new hospital.
pub(super) fn policy(violations: &mut Violations, policy: Option<&PolicyMessage>) -> Option<BookingPolicy> {
    let default = BookingPolicy::default();
    let sent = sent_policy(violations, policy, |_| true)?;
    let policy = BookingPolicy {
        min_notice: sent.min_notice.unwrap_or(default.min_notice),
        max_advance: sent.max_advance.unwrap_or(default.max_advance),
        cancellation_cutoff: sent.cancellation_cutoff.unwrap_or(default.cancellation_cutoff),
        waitlist_limit: sent.waitlist_limit.unwrap_or(default.waitlist_limit),
        promotion_min_notice: sent.promotion_min_notice.unwrap_or(default.promotion_min_notice),
        reschedule_limit: sent.reschedule_limit.unwrap_or(default.reschedule_limit),
        customer_limit: sent.customer_limit.or(default.customer_limit),
    };
    let contradiction = policy.contradiction();
    if let Some(description) = contradiction {
        violations.add("hospital.booking_policy.min_notice", Reason::FieldInvalid, description);
    }
    Some(policy)
}
