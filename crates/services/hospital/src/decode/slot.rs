//! Decodes requests about one slot, and searches.

use std::collections::BTreeSet;

use contract::hospital::v1::set_slot_capacity_request::Change as CapacityOf;
use contract::hospital::v1::{
    CloseSlotRequest, GetSlotRequest, ListSlotsRequest, ReopenSlotRequest, SearchAvailabilityRequest,
    SetSlotCapacityRequest, WatchAvailabilityRequest,
};
use domain::capacity::{CapacityChange, MAX_CAPACITY};
use domain::civil::decode_date;
use domain::ids::{HospitalId, SlotId};
use domain::page::{KeyKind, Page};
use domain::request::decode_id;
use fault::{Fault, Reason, Violations};
use jiff::civil::Date;

use super::{Asked, List, optional_date, remark, required, slot_name};
use crate::command::Change;
use crate::tables::read::{Dates, Search};

/// The most days that one search covers.
const MAX_SEARCH_DAYS: i32 = 62;
/// The most hospitals that one search names.
const MAX_SEARCH_HOSPITALS: usize = 100;
/// The most hospitals that one stream watches.
const MAX_WATCHED_HOSPITALS: usize = 20;

/// A decoded WatchAvailability.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Watch {
    /// In order, each once.
    pub(crate) hospitals: Vec<HospitalId>,
    pub(crate) dates: Dates,
    /// Binds the tokens; begins after the one of the request.
    pub(crate) page: Page,
}

pub(super) fn capacity_fits(violations: &mut Violations, field: &str, capacity: i32) -> bool {
    let fits = (0..=MAX_CAPACITY).contains(&capacity);
    if !fits {
        violations.add(field, Reason::FieldInvalid, format!("must be 0..{MAX_CAPACITY}, is {capacity}"));
    }
    fits
}

pub(crate) fn get_slot(message: &GetSlotRequest) -> Result<SlotId, Fault> {
    let GetSlotRequest { name: slot } = message;
    let mut violations = Violations::new();
    let slot = violations.name("name", slot, SlotId::parse_requested);
    violations.finish_with(slot)
}

/// Refuses a start date that is not before the end date, which is exclusive. The violation names `end_date`.
fn ordered(violations: &mut Violations, start: Option<Date>, end: Option<Date>) {
    if start.zip(end).is_some_and(|(start, end)| start >= end) {
        violations.add("end_date", Reason::FieldInvalid, "must be later than start_date: it is not included");
    }
}

/// A date as a page token is bound to it, valid or not.
fn binding(date: Option<contract::google::r#type::Date>) -> String {
    date.map(|date| format!("{}-{}-{}", date.year, date.month, date.day)).unwrap_or_default()
}

pub(crate) fn list_slots(message: &ListSlotsRequest) -> Result<List<(HospitalId, Dates)>, Fault> {
    let ListSlotsRequest { parent, page_size, page_token, start_date, end_date } = message;
    let mut violations = Violations::new();
    let hospital = violations.name("parent", parent, HospitalId::parse);
    let bound = ["ListSlots", parent, &binding(*start_date), &binding(*end_date)];
    let page = Page::decode(&mut violations, *page_size, page_token, &bound, &[KeyKind::Text]);
    let start = optional_date(&mut violations, "start_date", *start_date);
    let end = optional_date(&mut violations, "end_date", *end_date);
    ordered(&mut violations, start, end);
    let decoded = hospital.map(|hospital| List { parent: (hospital, Dates { start, end }), filter: Vec::new(), page });
    violations.finish_with(decoded)
}

pub(crate) fn set_slot_capacity(message: &SetSlotCapacityRequest) -> Result<Asked, Fault> {
    let SetSlotCapacityRequest { name: slot, change, etag, request_id } = message;
    let mut violations = Violations::new();
    let slot = slot_name(&mut violations, "name", slot);
    let change = match change {
        None => {
            violations.add("capacity", Reason::FieldInvalid, "one of capacity and delta is required");
            None
        }
        Some(CapacityOf::Capacity(capacity)) => {
            let fits = capacity_fits(&mut violations, "capacity", *capacity);
            if etag.is_empty() {
                let description = "an absolute capacity needs the etag of the slot it replaces; delta does not";
                violations.add("etag", Reason::EtagRequired, description);
            }
            fits.then_some(CapacityChange::To(*capacity))
        }
        Some(CapacityOf::Delta(delta)) => Some(CapacityChange::By(*delta)),
    };
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = slot.zip(change).map(|((hospital, slot), change)| Asked {
        hospital,
        request_id,
        change: Change::SetCapacity { slot, change, etag: etag.clone() },
    });
    violations.finish_with(decoded)
}

/// Reads CloseSlot. The flag is its validate_only.
pub(crate) fn close_slot(message: &mut CloseSlotRequest) -> Result<(Asked, bool), Fault> {
    let CloseSlotRequest { name: slot, cancel_bookings, reason, etag, request_id, validate_only } = message;
    let mut violations = Violations::new();
    let slot = slot_name(&mut violations, "name", slot);
    remark(&mut violations, "reason", reason);
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = slot.map(|(hospital, slot)| {
        let (reason, etag) = (reason.clone(), etag.clone());
        let change = Change::CloseSlot { slot, cancel_bookings: *cancel_bookings, reason, etag };
        (Asked { hospital, request_id, change }, *validate_only)
    });
    violations.finish_with(decoded)
}

pub(crate) fn reopen_slot(message: &ReopenSlotRequest) -> Result<Asked, Fault> {
    let ReopenSlotRequest { name: slot, etag, request_id } = message;
    let mut violations = Violations::new();
    let slot = slot_name(&mut violations, "name", slot);
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = slot.map(|(hospital, slot)| Asked {
        hospital,
        request_id,
        change: Change::ReopenSlot { slot, etag: etag.clone() },
    });
    violations.finish_with(decoded)
}

pub(crate) fn search_availability(message: &SearchAvailabilityRequest) -> Result<List<Search>, Fault> {
    let SearchAvailabilityRequest { start_date, end_date, hospitals, min_remaining, page_size, page_token } = message;
    let mut violations = Violations::new();
    let dates = search_dates(&mut violations, *start_date, *end_date);
    let hospitals = search_hospitals(&mut violations, hospitals, MAX_SEARCH_HOSPITALS);
    if !(0..=MAX_CAPACITY).contains(min_remaining) {
        violations.add("min_remaining", Reason::FieldInvalid, format!("must be 0..{MAX_CAPACITY}; 0 means 1"));
    }
    let min_remaining = (*min_remaining).max(1);
    let names: Vec<&str> = hospitals.iter().map(HospitalId::segment).collect();
    let (from, to, at_least) = (binding(*start_date), binding(*end_date), min_remaining.to_string());
    let bound = [&["SearchAvailability", &from, &to, &at_least], names.as_slice()].concat();
    let shape = [KeyKind::Text, KeyKind::Text];
    let page = Page::decode(&mut violations, *page_size, page_token, &bound, &shape);
    let search = Search { dates, hospitals, min_remaining };
    violations.finish_with(Some(List { parent: search, filter: Vec::new(), page }))
}

pub(crate) fn watch_availability(message: &WatchAvailabilityRequest) -> Result<Watch, Fault> {
    let WatchAvailabilityRequest { hospitals, start_date, end_date, resume_token } = message;
    let mut violations = Violations::new();
    if hospitals.is_empty() {
        required(&mut violations, "hospitals");
    }
    let hospitals = search_hospitals(&mut violations, hospitals, MAX_WATCHED_HOSPITALS);
    let dates = search_dates(&mut violations, *start_date, *end_date);
    let names: Vec<&str> = hospitals.iter().map(HospitalId::segment).collect();
    let (from, to) = (binding(*start_date), binding(*end_date));
    let bound = [&["WatchAvailability", &from, &to], names.as_slice()].concat();
    let page = Page::of_stream(&mut violations, resume_token, &bound, &[KeyKind::Text, KeyKind::Int]);
    violations.finish_with(Some(Watch { hospitals, dates, page }))
}

/// The dates of a search, both required.
fn search_dates(
    violations: &mut Violations,
    start_date: Option<contract::google::r#type::Date>,
    end_date: Option<contract::google::r#type::Date>,
) -> Dates {
    let start = decode_date(violations, "start_date", start_date);
    let end = decode_date(violations, "end_date", end_date);
    ordered(violations, start, end);
    let days = start.zip(end).map_or(0, |(start, end)| (end - start).get_days());
    if days > MAX_SEARCH_DAYS {
        let description = format!("must be at most {MAX_SEARCH_DAYS} days after start_date, is {days}");
        violations.add("end_date", Reason::FieldInvalid, description);
    }
    Dates { start, end }
}

/// The hospitals of a search, each once, in an order that does not depend on the caller's order.
fn search_hospitals(violations: &mut Violations, names: &[String], most: usize) -> Vec<HospitalId> {
    if names.len() > most {
        let description = format!("must have at most {most} entries, has {}", names.len());
        violations.add("hospitals", Reason::FieldInvalid, description);
        return Vec::new();
    }
    let numbered = names.iter().enumerate();
    let hospitals: BTreeSet<HospitalId> = numbered
        .filter_map(|(i, hospital)| violations.name(&format!("hospitals[{i}]"), hospital, HospitalId::parse))
        .collect();
    hospitals.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(day: i32) -> Option<contract::google::r#type::Date> {
        Some(contract::google::r#type::Date { year: 2027, month: 1, day })
    }

    fn fields(fault: &Fault) -> Vec<&str> {
        fault.violations().iter().map(|violation| violation.field.as_str()).collect()
    }

    #[test]
    fn an_absolute_capacity_needs_an_etag_and_a_shift_does_not() {
        let message = |change| SetSlotCapacityRequest {
            name: "hospitals/seoul/slots/2027-01-04".into(),
            change,
            ..SetSlotCapacityRequest::default()
        };
        let fault = set_slot_capacity(&message(Some(CapacityOf::Capacity(-1)))).unwrap_err();
        assert_eq!(fields(&fault), ["capacity", "etag"]);
        assert_eq!(fault.violations()[1].reason, Reason::EtagRequired);
        assert!(set_slot_capacity(&message(Some(CapacityOf::Delta(i32::MIN)))).is_ok());
        assert_eq!(fields(&set_slot_capacity(&message(None)).unwrap_err()), ["capacity"]);
    }

    #[test]
    fn a_search_is_at_most_62_days_long_and_not_empty() {
        let message = SearchAvailabilityRequest {
            start_date: date(1),
            end_date: date(1),
            min_remaining: -1,
            hospitals: vec!["hospitals/busan".into(), "x".into()],
            ..SearchAvailabilityRequest::default()
        };
        let fault = search_availability(&message).unwrap_err();
        assert_eq!(fields(&fault), ["end_date", "hospitals[1]", "min_remaining"]);
        let later = |month, day| Some(contract::google::r#type::Date { year: 2027, month, day });
        let until = |end_date| SearchAvailabilityRequest { start_date: date(1), end_date, ..Default::default() };
        assert!(search_availability(&until(later(3, 4))).is_ok());
        assert_eq!(fields(&search_availability(&until(later(3, 5))).unwrap_err()), ["end_date"]);
        assert_eq!(fields(&search_availability(&until(later(2, 30))).unwrap_err()), ["end_date"]);
    }

    #[test]
    fn a_token_does_not_depend_on_the_order_of_hospitals() {
        let search = |hospitals: [&str; 3], page_token: String| SearchAvailabilityRequest {
            start_date: date(1),
            end_date: date(2),
            hospitals: hospitals.iter().map(ToString::to_string).collect(),
            page_token,
            ..Default::default()
        };
        let first =
            search_availability(&search(["hospitals/seoul", "hospitals/busan", "hospitals/seoul"], String::new()));
        let keys = [domain::page::Key::Text("2027-01-01".into()), domain::page::Key::Text("busan".into())];
        let token = first.unwrap().page.next_token(&keys);
        let again = search(["hospitals/busan", "hospitals/seoul", "hospitals/busan"], token.clone());
        assert_eq!(search_availability(&again).unwrap().page.after.as_deref(), Some(&keys[..]));
        let other = search(["hospitals/busan", "hospitals/busan", "hospitals/busan"], token);
        assert_eq!(search_availability(&other).unwrap_err().reason(), Reason::PageTokenInvalid);
    }

    #[test]
    fn lists_take_open_ranges() {
        let list = |start_date, end_date| {
            list_slots(&ListSlotsRequest {
                parent: "hospitals/seoul".into(),
                start_date,
                end_date,
                ..Default::default()
            })
        };
        assert!(list(None, None).is_ok());
        assert!(list(date(2), None).is_ok());
        assert_eq!(fields(&list(date(2), date(2)).unwrap_err()), ["end_date"]);
        assert_eq!(list(date(0), None).unwrap_err().reason(), Reason::DateInvalid);
    }
}
