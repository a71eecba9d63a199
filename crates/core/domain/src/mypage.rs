//! My-page as a fold: every booking of a customer as it stands, PENDING and REJECTED ones included.
//!
//! An item is the greatest version of its screening that has arrived, so events commute and may be repeated. Whether it
//! is upcoming depends on the day and is computed at the read.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use fault::Fault;
use jiff::Timestamp;
use jiff::civil::Date;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::access::{Caller, not_owner, role_required};
use crate::civil;
use crate::ids::{CustomerId, ScreeningId, SlotId};
use crate::screening::State;
use crate::screening_fact::{BookingFact, ScreeningFact};

/// The most items that a page shows as upcoming.
pub const UPCOMING_MAX: usize = 20;

/// One booking as its customer sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// The screening that is booked.
    pub screening: ScreeningId,
    /// The customer who booked.
    pub customer: CustomerId,
    /// The version of the screening that the item shows.
    pub version: i64,
    /// The hospital's display name; may be empty.
    pub hospital_display_name: String,
    /// The slot that is booked. `None`: the item was stored by a version that did not keep it.
    pub slot: Option<SlotId>,
    /// The screening's date in `time_zone`.
    pub date: Date,
    /// The hospital's IANA time zone; may be empty.
    pub time_zone: String,
    /// The booking's state at this version.
    pub state: State,
    /// How many bookings waited in front of it, and itself, when it joined the queue; 0 unless it is WAITLISTED.
    pub waitlist_position: i32,
    /// The code of why it is in this state; may be empty.
    pub reason: String,
    /// The message that a person gave for it; may be empty.
    pub message: String,
    /// When the screening changed to this version.
    pub update_time: Timestamp,
}

impl Item {
    /// Whether the booking is active or WAITLISTED and its date is not over. If the time zone is unknown, the date is
    /// over only once it is over everywhere.
    #[must_use]
    pub fn is_upcoming(&self, now: Timestamp) -> bool {
        let zone = civil::time_zone(&self.time_zone).unwrap_or_else(civil::last_zone);
        let today = civil::today(now, &zone);
        (self.state.is_active() || self.state == State::Waitlisted) && self.date >= today
    }

    fn of(fact: &BookingFact) -> Self {
        Self {
            screening: fact.screening,
            customer: fact.customer.clone(),
            version: fact.version,
            hospital_display_name: fact.hospital_display_name.clone(),
            slot: Some(fact.slot.clone()),
            date: fact.slot.date,
            time_zone: fact.time_zone.clone(),
            state: fact.state,
            waitlist_position: fact
                .queued
                .filter(|_| fact.state == State::Waitlisted)
                .map_or(0, |queued| queued.position),
            reason: fact.reason.clone(),
            message: fact.message.clone(),
            update_time: fact.occur_time,
        }
    }
}

/// Everything that the view stores about one screening.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Shown {
    /// The item that the customer sees, if there is one.
    pub item: Option<Item>,
    /// The greatest version seen that is shown to nobody; 0 for none.
    pub hidden_version: i64,
}

impl Shown {
    /// The greatest version of the screening that a read of this view includes.
    #[must_use]
    pub fn seen_version(&self) -> i64 {
        self.item.as_ref().map_or(0, |item| item.version).max(self.hidden_version)
    }

    /// Applies one event; returns whether the item changed.
    pub fn apply(&mut self, fact: &ScreeningFact) -> bool {
        match fact {
            ScreeningFact::Fence { version, .. } => {
                self.hidden_version = self.hidden_version.max(*version);
                false
            }
            ScreeningFact::Booking(booking) => {
                let newer = self.item.as_ref().is_none_or(|item| booking.version > item.version);
                if newer {
                    self.item = Some(Item::of(booking));
                }
                newer
            }
        }
    }
}

/// The upcoming bookings of a customer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Ahead {
    /// The upcoming bookings, soonest first, at most [`UPCOMING_MAX`].
    pub upcoming: Vec<Item>,
    /// How many active bookings are upcoming, including those beyond the limit.
    pub active_count: usize,
}

/// Selects the upcoming bookings from a customer's items, the WAITLISTED ones only with `show_waitlisted`.
#[must_use]
pub fn ahead(items: Vec<Item>, show_waitlisted: bool, now: Timestamp) -> Ahead {
    let mut upcoming: Vec<_> = items.into_iter().filter(|item| item.is_upcoming(now)).collect();
    let active_count = upcoming.iter().filter(|item| item.state.is_active()).count();
    upcoming.retain(|item| show_waitlisted || item.state.is_shown());
    upcoming.sort_by_key(|item| (item.date, item.screening));
    upcoming.truncate(UPCOMING_MAX);
    Ahead { upcoming, active_count }
}

/// The first check of every method: the caller is a customer or an auditor.
///
/// # Errors
/// CREDENTIALS_MISSING, or ROLE_REQUIRED.
pub fn require_reader(caller: &Caller) -> Result<(), Fault> {
    caller.require_token()?;
    match caller {
        Caller::Customer(_) | Caller::Auditor(_) => Ok(()),
        _ => Err(role_required("customer or auditor")),
    }
}

/// Checks a read of one customer's page; call [`require_reader`] first.
///
/// # Errors
/// NOT_OWNER for another customer.
pub fn require_page_of(caller: &Caller, customer: &CustomerId) -> Result<(), Fault> {
    match caller {
        Caller::Customer(own) if own != customer => Err(not_owner("my-page")),
        _ => require_reader(caller),
    }
}

/// A position in the changes of one customer's page, in the form that clients keep.
///
/// It is bound to the customer and to one build of the view. A view that was built again has other positions, so old
/// tokens expire instead of being misread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResumeToken {
    /// The build of the view that the position belongs to.
    pub epoch: Uuid,
    /// How many changes of this page come before it.
    pub position: i64,
}

const TOKEN_FORM: u8 = 1;
const CHECK_LENGTH: usize = 12;

impl ResumeToken {
    /// Writes the token for this customer.
    #[must_use]
    pub fn encode(self, customer: &CustomerId) -> String {
        let mut bytes = vec![TOKEN_FORM];
        bytes.extend(self.check(customer));
        bytes.extend(self.epoch.as_bytes());
        bytes.extend(self.position.to_be_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads a token; `None` if it was not made for this customer.
    #[must_use]
    pub fn parse(text: &str, customer: &CustomerId) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (form, rest) = bytes.split_first()?;
        let (check, rest) = rest.split_at_checked(CHECK_LENGTH)?;
        let (epoch, position) = rest.split_at_checked(16)?;
        let token =
            Self { epoch: Uuid::from_slice(epoch).ok()?, position: i64::from_be_bytes(position.try_into().ok()?) };
        (*form == TOKEN_FORM && check == token.check(customer) && token.position >= 0).then_some(token)
    }

    fn check(self, customer: &CustomerId) -> [u8; CHECK_LENGTH] {
        let digest = Sha256::new()
            .chain_update(self.epoch.as_bytes())
            .chain_update(self.position.to_be_bytes())
            .chain_update(customer.segment())
            .finalize();
        let mut check = [0; CHECK_LENGTH];
        check.copy_from_slice(&digest[..CHECK_LENGTH]);
        check
    }
}

#[cfg(test)]
mod tests {
    use fault::Reason;
    use proptest::prelude::*;

    use super::*;
    use crate::access::Hospitals;
    use crate::screening_fact::histories::delivered;

    fn fold(facts: &[ScreeningFact]) -> Shown {
        let mut shown = Shown::default();
        for fact in facts {
            shown.apply(fact);
        }
        shown
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn any_delivery_ends_as_the_ordered_one((history, delivery) in delivered()) {
            let shown = fold(&delivery);
            prop_assert_eq!(&shown, &fold(&history));
            prop_assert_eq!(shown.seen_version(), history.len() as i64);
            let mut again = shown.clone();
            for fact in &delivery {
                prop_assert!(!again.apply(fact));
            }
            prop_assert_eq!(again, shown);
        }
    }

    fn item(number: u128, date: &str, time_zone: &str, state: State) -> Item {
        Item {
            screening: ScreeningId(Uuid::from_u128(number)),
            customer: CustomerId::from_segment("kim").unwrap(),
            version: 1,
            hospital_display_name: String::new(),
            slot: None,
            date: date.parse().unwrap(),
            time_zone: time_zone.into(),
            state,
            waitlist_position: 0,
            reason: String::new(),
            message: String::new(),
            update_time: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn a_date_is_over_when_it_is_over_where_the_hospital_is() {
        // 2027-01-04 in Seoul, still 2027-01-03 in New York and in the last zone
        let now = "2027-01-03T16:00:00Z".parse().unwrap();
        assert!(!item(1, "2027-01-03", "Asia/Seoul", State::Confirmed).is_upcoming(now));
        assert!(item(1, "2027-01-04", "Asia/Seoul", State::Pending).is_upcoming(now));
        assert!(item(1, "2027-01-03", "America/New_York", State::Confirmed).is_upcoming(now));
        assert!(item(1, "2027-01-03", "", State::Pending).is_upcoming(now));
        assert!(!item(1, "2027-01-02", "", State::Pending).is_upcoming(now));
        assert!(!item(1, "2027-02-01", "Asia/Seoul", State::Cancelled).is_upcoming(now));
    }

    #[test]
    fn the_soonest_are_listed_and_all_are_counted() {
        let now = "2027-01-01T00:00:00Z".parse().unwrap();
        let date = |day: i8| jiff::civil::date(2027, 2, day).to_string();
        let mut items: Vec<_> =
            (1..=25).rev().map(|day| item(day, &date(day as i8), "Asia/Seoul", State::Confirmed)).collect();
        items.push(item(90, "2026-12-31", "Asia/Seoul", State::Confirmed));
        items.push(item(91, "2027-02-01", "Asia/Seoul", State::Rejected));
        items.push(item(92, "2027-01-31", "Asia/Seoul", State::Waitlisted));
        items.push(item(93, "2027-01-31", "Asia/Seoul", State::Expired));
        let with_waiting = ahead(items.clone(), true, now);
        assert_eq!((with_waiting.active_count, with_waiting.upcoming[0].state), (25, State::Waitlisted));
        assert_eq!(with_waiting.upcoming[1].date.to_string(), "2027-02-01");
        let ahead = ahead(items, false, now);
        assert_eq!(ahead.active_count, 25, "who waits has no place");
        assert_eq!(ahead.upcoming.len(), 20);
        assert_eq!(ahead.upcoming[0].date.to_string(), "2027-02-01");
        assert_eq!(ahead.upcoming[19].date.to_string(), "2027-02-20");
    }

    #[test]
    fn a_page_is_its_customers_and_auditors() {
        let kim = CustomerId::from_segment("kim").unwrap();
        let own = Caller::Customer(kim.clone());
        let other = Caller::Customer(CustomerId::from_segment("lee").unwrap());
        let admin = Caller::Admin { subject: "cho".into(), hospitals: Hospitals::All };
        assert_eq!(require_page_of(&own, &kim), Ok(()));
        assert_eq!(require_page_of(&Caller::Auditor("kang".into()), &kim), Ok(()));
        assert_eq!(require_page_of(&other, &kim).unwrap_err().reason(), Reason::NotOwner);
        assert_eq!(require_page_of(&admin, &kim).unwrap_err().reason(), Reason::RoleRequired);
        assert_eq!(require_reader(&Caller::Anonymous).unwrap_err().reason(), Reason::CredentialsMissing);
    }

    #[test]
    fn a_resume_token_is_one_customers() {
        let kim = CustomerId::from_segment("kim").unwrap();
        let lee = CustomerId::from_segment("lee").unwrap();
        let token = ResumeToken { epoch: Uuid::from_u128(3), position: 41 };
        let text = token.encode(&kim);
        assert_eq!(ResumeToken::parse(&text, &kim), Some(token));
        assert_eq!(ResumeToken::parse(&text, &lee), None);
        for broken in ["", "%", &text[1..], &text[..text.len() - 2]] {
            assert_eq!(ResumeToken::parse(broken, &kim), None, "{broken}");
        }
    }
}
