//! Decodes requests that open dates, or close several.

use std::collections::BTreeSet;

use contract::hospital::v1::{BatchCloseSlotsRequest, BatchCreateSlotsRequest, CreateSlotRequest, Slot};
use domain::civil::decode_date;
use domain::ids::HospitalId;
use domain::request::decode_id;
use fault::{Fault, Reason, Violations};
use jiff::civil::Date;

use super::dates::{dates_of, repeated};
use super::slot::capacity_fits;
use super::{Asked, remark, required, too_many, too_many_dates};
use crate::command::{Change, NewSlot};

/// Reads one of several slots to open. `dates` holds the dates of the slots read before, to refuse a repeated date.
fn new_slot(
    violations: &mut Violations,
    path: &str,
    slot: Option<&Slot>,
    dates: &mut BTreeSet<Date>,
) -> Option<NewSlot> {
    let Some(slot) = slot else {
        required(violations, path);
        return None;
    };
    let Slot {
        name: _,
        date,
        capacity,
        booked_count: _,
        remaining_count: _,
        state: _,
        version: _,
        create_time: _,
        update_time: _,
        etag: _,
        revocation_progress: _,
        waitlisted_count: _,
    } = slot;
    let date = decode_date(violations, &format!("{path}.date"), *date);
    let once = date.filter(|date| dates.insert(*date));
    if let Some(date) = date.filter(|_| once.is_none()) {
        violations.add(format!("{path}.date"), Reason::FieldInvalid, format!("{date} is there twice"));
    }
    let fits = capacity_fits(violations, &format!("{path}.capacity"), *capacity);
    once.filter(|_| fits).map(|date| NewSlot { date, capacity: *capacity })
}

/// Reads slots to open together. Each comes with its field path, for violations.
pub(super) fn new_slots<'a>(
    violations: &mut Violations,
    list: &str,
    slots: impl ExactSizeIterator<Item = (String, Option<&'a Slot>)>,
) -> Option<Vec<NewSlot>> {
    let count = slots.len();
    if too_many(violations, list, count) {
        return None;
    }
    let mut dates = BTreeSet::new();
    let read: Vec<NewSlot> = slots.filter_map(|(path, slot)| new_slot(violations, &path, slot, &mut dates)).collect();
    (read.len() == count).then_some(read)
}

pub(crate) fn create_slot(message: &CreateSlotRequest) -> Result<Asked, Fault> {
    let CreateSlotRequest { parent, slot, request_id, repeat } = message;
    let mut violations = Violations::new();
    let hospital = violations.name("parent", parent, HospitalId::parse);
    let slots = new_slots(&mut violations, "slot", [("slot".to_owned(), slot.as_ref())].into_iter());
    let request_id = decode_id(&mut violations, "request_id", request_id);
    if repeat.is_some() {
        violations.add("repeat", Reason::FieldInvalid, "opens more dates than one: use BatchCreateSlots");
        repeated(&mut violations, "repeat", None, repeat.as_ref());
    }
    let decoded = hospital.zip(slots).map(|(hospital, slots)| Asked {
        hospital: hospital.clone(),
        request_id,
        change: Change::CreateSlots { hospital, slots },
    });
    violations.finish_with(decoded)
}

/// Reads BatchCreateSlots. The flag is its validate_only.
pub(crate) fn batch_create_slots(message: &BatchCreateSlotsRequest) -> Result<(Asked, bool), Fault> {
    let BatchCreateSlotsRequest { parent, requests, request_id, validate_only } = message;
    let mut violations = Violations::new();
    let hospital = violations.name("parent", parent, HospitalId::parse);
    if requests.is_empty() {
        required(&mut violations, "requests");
    }
    let slots = nested_slots(&mut violations, parent, requests);
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = hospital.zip(slots).map(|(hospital, slots)| {
        let change = Change::CreateSlots { hospital: hospital.clone(), slots };
        (Asked { hospital, request_id, change }, *validate_only)
    });
    violations.finish_with(decoded)
}

/// Reads the requests inside a BatchCreateSlots, and the dates that their rules name.
fn nested_slots(violations: &mut Violations, parent: &str, requests: &[CreateSlotRequest]) -> Option<Vec<NewSlot>> {
    if too_many(violations, "requests", requests.len()) {
        return None;
    }
    let (mut dates, mut complete) = (BTreeSet::new(), true);
    let mut read = Vec::with_capacity(requests.len());
    for (i, CreateSlotRequest { parent: nested, slot, request_id, repeat }) in requests.iter().enumerate() {
        let path = format!("requests[{i}]");
        if !nested.is_empty() && nested != parent {
            violations.add(format!("{path}.parent"), Reason::FieldInvalid, "must be empty or the batch's parent");
        }
        // the dates that a rule names are compared with the others, and the first one may not be one of them
        let mut alone = BTreeSet::new();
        let compared = if repeat.is_some() { &mut alone } else { &mut dates };
        let first = new_slot(violations, &format!("{path}.slot"), slot.as_ref(), compared);
        if !request_id.is_empty() {
            violations.add(format!("{path}.request_id"), Reason::FieldInvalid, "must be empty inside of a batch");
        }
        let Some(rule) = repeat else {
            complete &= first.is_some();
            read.extend(first);
            continue;
        };
        // a wrong capacity does not keep the rule from being judged
        let date = slot.as_ref().and_then(|slot| decode_date(&mut Violations::new(), "date", slot.date));
        let named = repeated(violations, &format!("{path}.repeat"), date, Some(rule));
        complete &= first.is_some() && named.is_some();
        for (date, first) in named.into_iter().flatten().zip(first.into_iter().cycle()) {
            if dates.insert(date) {
                read.push(NewSlot { date, ..first });
            } else {
                violations.add(format!("{path}.repeat"), Reason::FieldInvalid, format!("{date} is there twice"));
                complete = false;
                break;
            }
        }
    }
    (complete && !too_many_dates(violations, "requests", read.len())).then_some(read)
}

/// Reads BatchCloseSlots. The flag is its validate_only.
pub(crate) fn batch_close_slots(message: &mut BatchCloseSlotsRequest) -> Result<(Asked, bool), Fault> {
    let BatchCloseSlotsRequest { parent, ranges, cancel_bookings, reason, validate_only, request_id } = message;
    let mut violations = Violations::new();
    let hospital = violations.name("parent", parent, HospitalId::parse);
    let dates = dates_of(&mut violations, ranges);
    remark(&mut violations, "reason", reason);
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = hospital.zip(dates).map(|(hospital, dates)| {
        let (cancel_bookings, reason) = (*cancel_bookings, reason.clone());
        let change = Change::CloseSlots { hospital: hospital.clone(), dates, cancel_bookings, reason };
        (Asked { hospital, request_id, change }, *validate_only)
    });
    violations.finish_with(decoded)
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

    fn nested(day: i32, parent: &str, request_id: &str) -> CreateSlotRequest {
        let slot = Slot { date: date(day), capacity: 1, ..Slot::default() };
        CreateSlotRequest { parent: parent.into(), slot: Some(slot), request_id: request_id.into(), repeat: None }
    }

    #[test]
    fn a_batch_names_every_wrong_entry() {
        let mut message = BatchCreateSlotsRequest {
            parent: "hospitals/seoul".into(),
            requests: vec![nested(1, "", ""), nested(1, "hospitals/busan", ""), nested(31, "hospitals/seoul", "x")],
            ..BatchCreateSlotsRequest::default()
        };
        message.requests.push(CreateSlotRequest::default());
        let fault = batch_create_slots(&message).unwrap_err();
        assert_eq!(
            fields(&fault),
            ["requests[1].parent", "requests[1].slot.date", "requests[2].request_id", "requests[3].slot"]
        );
        message.requests = (0..367).map(|_| nested(1, "", "")).collect();
        assert_eq!(fields(&batch_create_slots(&message).unwrap_err()), ["requests"]);
        message.requests.clear();
        assert_eq!(fields(&batch_create_slots(&message).unwrap_err()), ["requests"]);
    }

    #[test]
    fn a_rule_opens_its_dates_with_one_capacity_and_none_twice() {
        use contract::google::r#type::DayOfWeek;
        use contract::hospital::v1::DateRepetition;

        let rule = |end, days: &[DayOfWeek]| {
            let days_of_week = days.iter().map(|day| *day as i32).collect();
            Some(DateRepetition { end_date: date(end), days_of_week })
        };
        let weekly =
            |day, end, days: &[DayOfWeek]| CreateSlotRequest { repeat: rule(end, days), ..nested(day, "", "") };
        let batch = |requests| BatchCreateSlotsRequest {
            parent: "hospitals/seoul".into(),
            requests,
            ..BatchCreateSlotsRequest::default()
        };
        // 2027-01-04 is a Monday
        let requests = vec![weekly(4, 20, &[DayOfWeek::Monday, DayOfWeek::Wednesday]), nested(5, "", "")];
        let (asked, _) = batch_create_slots(&batch(requests)).unwrap();
        let Change::CreateSlots { slots, .. } = asked.change else { panic!() };
        let days: Vec<i8> = slots.iter().map(|slot| slot.date.day()).collect();
        assert_eq!(days, [4, 6, 11, 13, 18, 5]);
        assert!(slots.iter().all(|slot| slot.capacity == 1));

        let twice = batch(vec![nested(11, "", ""), weekly(4, 20, &[DayOfWeek::Monday])]);
        assert_eq!(fields(&batch_create_slots(&twice).unwrap_err()), ["requests[1].repeat"]);
        let mut negative = weekly(4, 4, &[]);
        negative.slot.as_mut().unwrap().capacity = -1;
        let both = batch_create_slots(&batch(vec![negative])).unwrap_err();
        assert_eq!(fields(&both), ["requests[0].slot.capacity", "requests[0].repeat.end_date"]);
        let wrong = batch(vec![weekly(4, 4, &[]), CreateSlotRequest { slot: None, ..weekly(4, 9, &[]) }]);
        assert_eq!(
            fields(&batch_create_slots(&wrong).unwrap_err()),
            ["requests[0].repeat.end_date", "requests[1].slot"]
        );
        let alone = CreateSlotRequest { parent: "hospitals/seoul".into(), ..weekly(4, 9, &[]) };
        assert_eq!(fields(&create_slot(&alone).unwrap_err()), ["repeat"]);
    }
}
