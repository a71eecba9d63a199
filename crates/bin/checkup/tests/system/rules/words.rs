//! What the server enforces and no rule can say: the comments of the contract say it in words.

use super::Case;

/// A field whose refusals the words explain.
struct Said {
    /// The message of the request, or nothing for every message.
    request: &'static str,
    /// The field's path, or its end.
    field: &'static str,
    /// What the words say.
    why: &'static str,
    /// Whether they are about this case.
    about: fn(&Case) -> bool,
}

const fn said(request: &'static str, field: &'static str, why: &'static str, about: fn(&Case) -> bool) -> Said {
    Said { request, field, why, about }
}

fn any(_: &Case) -> bool {
    true
}

/// A text that people could not read as it was meant.
fn is_unreadable(case: &Case) -> bool {
    case.text().chars().any(char::is_control) || (!case.text().is_empty() && case.text().trim().is_empty())
}

/// The name of a slot whose date has the right form and is in no calendar.
fn is_in_no_calendar(case: &Case) -> bool {
    let date = case.text().rsplit_once("/slots/").map(|(_, date)| date);
    date.is_some_and(|date| date.starts_with("0000") || date.parse::<jiff::civil::Date>().is_err())
}

fn is_empty(case: &Case) -> bool {
    case.text().is_empty()
}

fn is_set(case: &Case) -> bool {
    case.value.is_some()
}

const SAID: &[Said] = &[
    said("", "display_name", "a text for people is readable", is_unreadable),
    said("", "reason", "a text for people is readable", is_unreadable),
    said("", "note", "a text for people is readable", is_unreadable),
    said("", "justification", "a text for people is readable", is_unreadable),
    said("", "name", "a slot's date is in the calendar", is_in_no_calendar),
    said("", "slot", "a slot's date is in the calendar", is_in_no_calendar),
    said("", "min_consistency_token", "the token of a screening", is_set),
    said("UpdateHospitalRequest", "hospital.display_name", "judged where it is written", any),
    said("UpdateHospitalRequest", "hospital.time_zone", "never changes", is_set),
    said("UpdateHospitalRequest", "hospital.booking_policy.min_notice", "judged where it is written", any),
    said("UpdateHospitalRequest", "hospital.booking_policy.max_advance", "judged where it is written", any),
    said("UpdateHospitalRequest", "hospital.booking_policy.cancellation_cutoff", "judged where it is written", any),
    said("UpdateHospitalRequest", "hospital.booking_policy.waitlist_limit", "judged where it is written", any),
    said("UpdateHospitalRequest", "hospital.booking_policy.promotion_min_notice", "judged where it is written", any),
    said("UpdateHospitalRequest", "hospital.booking_policy.reschedule_limit", "judged where it is written", any),
    said("UpdateHospitalRequest", "hospital.booking_policy.customer_limit", "judged where it is written", any),
    said(
        "UpdateHospitalRequest",
        "update_mask",
        "`*` stands alone, and a path of the policy is one of its fields",
        is_set,
    ),
    said("UpdateScreeningRequest", "update_mask", "`*` stands alone, and a path has none below it", is_set),
    said("UpdateScreeningRequest", "screening.etag", "no control character, at most 2000 characters", is_set),
    said("CreateHospitalRequest", "hospital.booking_policy.min_notice", "shorter than max_advance", any),
    said("CreateSlotRequest", "parent", "required outside of a batch", is_empty),
    said("CreateSlotRequest", "repeat", "only inside of a batch", any),
    said("BatchCreateSlotsRequest", "requests[0].parent", "the parent of its batch, or empty", any),
    said("BatchCreateSlotsRequest", "requests[0].request_id", "empty inside of a batch", is_set),
    said("BatchCreateSlotsRequest", "requests[0].repeat.end_date", "1 to 366 days after the slot's date", any),
    said("BatchCloseSlotsRequest", "ranges[0].repeat.end_date", "1 to 366 days after start_date", any),
    said("BatchCloseSlotsRequest", "ranges", "at most 366 dates in all", is_set),
    said("ListSlotsRequest", "end_date", "later than start_date", any),
    said("SearchAvailabilityRequest", "end_date", "1 to 62 days after start_date", any),
    said("WatchAvailabilityRequest", "end_date", "1 to 62 days after start_date", any),
    said("ProposeCapacityIncreaseRequest", "additional_capacity", "the outcome is a capacity", is_set),
    said("ReserveCapacityRequest", "slot", "the slot of the claim", any),
    said("ReleaseCapacityRequest", "slot", "the slot of the claim", any),
    said("CreateCapacityRequestRequest", "capacity_request.slot", "a slot of the parent", any),
    said("CreateCapacityRequestRequest", "capacity_request.expire_time", "later than now", is_set),
    said("CreateCapacityRequestRequest", "capacity_request.additional_capacity", "the outcome is a capacity", is_set),
];

/// The words, and which of them were needed.
#[derive(Debug, Default)]
pub(super) struct Words {
    needed: Vec<bool>,
}

impl Words {
    /// Whether the words explain that this field of the case is refused.
    pub(super) fn say(&mut self, case: &Case, field: &str) -> bool {
        self.needed.resize(SAID.len(), false);
        let request = case.method.input();
        let found = SAID.iter().position(|said| {
            let of_request = said.request.is_empty() || said.request == request.name();
            let of_field =
                field == said.field || field.strip_suffix(said.field).is_some_and(|rest| rest.ends_with(['.', '_']));
            of_request && of_field && (said.about)(case)
        });
        if let Some(at) = found {
            self.needed[at] = true;
        }
        found.is_some()
    }

    /// The words that explained nothing.
    pub(super) fn unused(&self) -> Vec<String> {
        let unused = SAID.iter().zip(&self.needed).filter(|(_, needed)| !**needed);
        unused.map(|(said, _)| format!("{} {}: {}", said.request, said.field, said.why)).collect()
    }
}
