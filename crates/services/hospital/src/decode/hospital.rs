//! Decodes requests about hospitals.

use contract::hospital::v1::{
    CreateHospitalRequest, DeleteHospitalRequest, GetHospitalRequest, Hospital, ListHospitalsRequest,
    UpdateHospitalRequest,
};
use domain::filter::{self, Field, Kind};
use domain::hospital::{Draft, HospitalChange};
use domain::ids::HospitalId;
use domain::page::{KeyKind, Page};
use domain::request::decode_id;
use domain::text::{self, NAME_MAX};
use fault::{Fault, Reason, Violations};
use prost_types::FieldMask;
use uuid::Uuid;

use super::calendar::new_slots;
use super::policy::{policy, sent_policy};
use super::{Asked, List, remark, required};
use crate::command::Change;

/// Reads CreateHospital. `fresh` makes an id if the caller chose none.
pub(crate) fn create_hospital(
    message: &mut CreateHospitalRequest,
    fresh: impl FnOnce() -> HospitalId,
    uid: Uuid,
) -> Result<Asked, Fault> {
    let CreateHospitalRequest { hospital, hospital_id, initial_slots, request_id } = message;
    let mut violations = Violations::new();
    let draft = match hospital {
        Some(hospital) => draft(&mut violations, hospital),
        None => {
            required(&mut violations, "hospital");
            None
        }
    };
    let id = if hospital_id.is_empty() {
        Some(fresh())
    } else {
        violations.name("hospital_id", hospital_id, HospitalId::from_segment)
    };
    let numbered = initial_slots.iter().enumerate();
    let slots = new_slots(
        &mut violations,
        "initial_slots",
        numbered.map(|(i, slot)| (format!("initial_slots[{i}]"), Some(slot))),
    );
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = draft.zip(id).zip(slots).map(|((draft, id), slots)| Asked {
        hospital: id.clone(),
        request_id,
        change: Change::CreateHospital { id, uid, draft, slots },
    });
    violations.finish_with(decoded)
}

fn draft(violations: &mut Violations, hospital: &mut Hospital) -> Option<Draft> {
    let Hospital {
        name: _,
        uid: _,
        display_name,
        time_zone,
        state: _,
        booking_policy,
        active_booking_count: _,
        revocation_progress: _,
        create_time: _,
        update_time: _,
        delete_time: _,
        etag: _,
    } = hospital;
    text::check(violations, "hospital.display_name", display_name, 1, NAME_MAX);
    let time_zone = zone(violations, time_zone);
    let policy = policy(violations, booking_policy.as_ref());
    Some(Draft { display_name: display_name.clone(), time_zone: time_zone?, policy: policy? })
}

fn zone(violations: &mut Violations, name: &str) -> Option<jiff::tz::TimeZone> {
    const FIELD: &str = "hospital.time_zone";
    if name.is_empty() {
        required(violations, FIELD);
        return None;
    }
    let zone = domain::civil::time_zone(name);
    if zone.is_none() {
        violations.add(FIELD, Reason::TimeZoneUnknown, "must be an IANA time zone such as Asia/Seoul");
    }
    zone
}

pub(crate) fn get_hospital(message: &GetHospitalRequest) -> Result<HospitalId, Fault> {
    let GetHospitalRequest { name: hospital } = message;
    let mut violations = Violations::new();
    let hospital = violations.name("name", hospital, HospitalId::parse);
    violations.finish_with(hospital)
}

/// Reads ListHospitals. The parent says whether deleted hospitals are included.
pub(crate) fn list_hospitals(message: &ListHospitalsRequest) -> Result<List<bool>, Fault> {
    const FIELDS: &[Field] =
        &[Field { name: "display_name", kind: Kind::Text }, Field { name: "update_time", kind: Kind::Time }];
    let ListHospitalsRequest { page_size, page_token, filter, show_deleted } = message;
    let mut violations = Violations::new();
    let binding = ["ListHospitals", filter, if *show_deleted { "deleted" } else { "" }];
    let page = Page::decode(&mut violations, *page_size, page_token, &binding, &[KeyKind::Text]);
    let filter = filter::decode(&mut violations, filter, FIELDS);
    violations.finish_with(Some(List { parent: *show_deleted, filter, page }))
}

/// The fields that an update changes.
enum Mask<'a> {
    /// No mask was sent: every field that is set.
    Populated,
    /// The mask is `*`.
    All,
    /// The fields that the mask names.
    Paths(&'a [String]),
}

const PATHS: &[&str] = &[
    "display_name",
    "booking_policy",
    "booking_policy.min_notice",
    "booking_policy.max_advance",
    "booking_policy.cancellation_cutoff",
    "booking_policy.waitlist_limit",
    "booking_policy.promotion_min_notice",
    "booking_policy.reschedule_limit",
    "booking_policy.customer_limit",
];

impl<'a> Mask<'a> {
    fn of(mask: Option<&'a FieldMask>) -> Self {
        match mask.map_or(&[][..], |mask| mask.paths.as_slice()) {
            [] => Self::Populated,
            [star] if star == "*" => Self::All,
            paths => Self::Paths(paths),
        }
    }

    /// Adds a violation for a path that cannot be changed.
    fn check(&self, violations: &mut Violations) {
        let Self::Paths(paths) = self else { return };
        if let Some(unknown) = paths.iter().find(|path| !PATHS.contains(&path.as_str())) {
            let description = format!("{unknown:?} cannot be changed; use * alone, or any of {}", PATHS.join(", "));
            violations.add("update_mask", Reason::FieldInvalid, description);
        }
    }

    /// Whether the mask names this field, so that an unset value clears it.
    fn names(&self, path: &str) -> bool {
        match self {
            Self::Populated => false,
            Self::All => true,
            Self::Paths(paths) => paths.iter().any(|named| {
                named == path || path.strip_prefix(named.as_str()).is_some_and(|rest| rest.starts_with('.'))
            }),
        }
    }

    /// Whether the update changes this field if it is set.
    fn touches(&self, path: &str) -> bool {
        matches!(self, Self::Populated) || self.names(path)
    }
}

pub(crate) fn update_hospital(message: &mut UpdateHospitalRequest) -> Result<Asked, Fault> {
    let UpdateHospitalRequest { hospital, update_mask } = message;
    let mut violations = Violations::new();
    let Some(hospital) = hospital else {
        required(&mut violations, "hospital");
        return violations.finish_with(None);
    };
    let Hospital {
        name: id,
        uid: _,
        display_name,
        time_zone,
        state: _,
        booking_policy,
        active_booking_count: _,
        revocation_progress: _,
        create_time: _,
        update_time: _,
        delete_time: _,
        etag,
    } = hospital;
    let id = violations.name("hospital.name", id, HospitalId::parse);
    let mask = Mask::of(update_mask.as_ref());
    let names_it = mask.names("display_name") || (mask.touches("display_name") && !display_name.is_empty());
    if names_it {
        text::check(&mut violations, "hospital.display_name", display_name, 1, NAME_MAX);
    }
    let path = |field: &str| format!("booking_policy.{field}");
    let sent = sent_policy(&mut violations, booking_policy.as_ref(), |field| mask.touches(&path(field)));
    let decoded = id.zip(sent).map(|(id, sent)| {
        let change = HospitalChange {
            display_name: names_it.then(|| display_name.clone()),
            time_zone: (!time_zone.is_empty()).then(|| time_zone.clone()),
            ..sent.change(|field| mask.names(&path(field)))
        };
        let change = Change::UpdateHospital { id: id.clone(), change, etag: etag.clone() };
        Asked { hospital: id, request_id: None, change }
    });
    mask.check(&mut violations);
    violations.finish_with(decoded)
}

/// Reads DeleteHospital. The flag is `validate_only`.
pub(crate) fn delete_hospital(message: &mut DeleteHospitalRequest) -> Result<(Asked, bool), Fault> {
    let DeleteHospitalRequest { name: hospital, etag, force, validate_only, reason, request_id } = message;
    let mut violations = Violations::new();
    let hospital = violations.name("name", hospital, HospitalId::parse);
    remark(&mut violations, "reason", reason);
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = hospital.map(|hospital| {
        let (reason, etag) = (reason.clone(), etag.clone());
        let change = Change::DeleteHospital { id: hospital.clone(), force: *force, reason, etag };
        (Asked { hospital, request_id, change }, *validate_only)
    });
    violations.finish_with(decoded)
}

#[cfg(test)]
mod tests {
    use contract::hospital::v1::BookingPolicy as PolicyMessage;
    use domain::window::BookingPolicy;
    use jiff::SignedDuration;
    use prost_types::Duration;

    use super::*;

    fn update(hospital: Hospital, paths: Option<&[&str]>) -> Result<HospitalChange, Fault> {
        let hospital = Hospital { name: "hospitals/seoul".into(), ..hospital };
        let update_mask = paths.map(|paths| FieldMask { paths: paths.iter().map(ToString::to_string).collect() });
        let asked = update_hospital(&mut UpdateHospitalRequest { hospital: Some(hospital), update_mask })?;
        let Change::UpdateHospital { change, .. } = asked.change else { panic!("another change") };
        Ok(change)
    }

    fn seconds(seconds: i64) -> Option<Duration> {
        Some(Duration { seconds, nanos: 0 })
    }

    fn policy_message() -> PolicyMessage {
        PolicyMessage {
            min_notice: seconds(60),
            max_advance: None,
            cancellation_cutoff: seconds(0),
            waitlist_limit: Some(7),
            customer_limit: Some(2),
            ..PolicyMessage::default()
        }
    }

    #[test]
    fn without_a_mask_the_fields_that_are_set_are_changed() {
        let change = update(Hospital { booking_policy: Some(policy_message()), ..Hospital::default() }, None).unwrap();
        assert_eq!(change.display_name, None);
        assert_eq!(change.min_notice, Some(SignedDuration::from_secs(60)));
        assert_eq!(change.max_advance, None);
        assert_eq!(change.cancellation_cutoff, Some(SignedDuration::ZERO));
        assert_eq!((change.reschedule_limit, change.customer_limit), (None, Some(Some(2))));
        assert_eq!(update(Hospital::default(), Some(&[])).unwrap(), HospitalChange::default());
    }

    #[test]
    fn named_fields_that_are_unset_go_back_to_their_defaults() {
        let default = BookingPolicy::default();
        let hospital = Hospital { booking_policy: Some(policy_message()), ..Hospital::default() };
        let change = update(hospital.clone(), Some(&["booking_policy"])).unwrap();
        assert_eq!(change.max_advance, Some(default.max_advance));
        assert_eq!(change.min_notice, Some(SignedDuration::from_secs(60)));
        let change = update(Hospital::default(), Some(&["booking_policy.min_notice"])).unwrap();
        assert_eq!(change, HospitalChange { min_notice: Some(default.min_notice), ..HospitalChange::default() });
        let change = update(hospital.clone(), Some(&["booking_policy.max_advance"])).unwrap();
        assert_eq!((change.min_notice, change.customer_limit), (None, None));
        let change = update(Hospital::default(), Some(&["booking_policy.customer_limit"])).unwrap();
        assert_eq!(change, HospitalChange { customer_limit: Some(None), ..HospitalChange::default() });
        let fault = update(hospital.clone(), Some(&["*"])).unwrap_err();
        assert_eq!(fault.violations()[0].field, "hospital.display_name");
        let full = Hospital { display_name: "Seoul".into(), ..hospital };
        assert_eq!(update(full, Some(&["*"])).unwrap().display_name.as_deref(), Some("Seoul"));
    }

    #[test]
    fn other_paths_are_refused_and_ignored_fields_are_not_judged() {
        for path in ["time_zone", "state", "booking", "booking_policy.min", "", "display_name.x"] {
            let fault = update(Hospital::default(), Some(&["booking_policy", path])).unwrap_err();
            assert_eq!(fault.violations()[0].field, "update_mask", "{path}");
        }
        assert!(update(Hospital::default(), Some(&["*", "display_name"])).is_err());
        let long = Hospital { display_name: "x".repeat(101), state: 77, ..Hospital::default() };
        assert!(update(long.clone(), Some(&["booking_policy"])).is_ok());
        assert!(update(long, None).is_err());
    }

    #[test]
    fn offsets_stay_within_a_leap_year() {
        for (seconds, nanos, fine) in [
            (0, 0, true),
            (31_622_400, 0, true),
            (31_622_400, 1, false),
            (-1, 0, false),
            (0, -1, false),
            (0, 1_000_000_000, false),
            (i64::MAX, i32::MAX, false),
        ] {
            let policy = PolicyMessage { min_notice: Some(Duration { seconds, nanos }), ..PolicyMessage::default() };
            let hospital = Hospital { booking_policy: Some(policy), ..Hospital::default() };
            assert_eq!(update(hospital, None).is_ok(), fine, "{seconds} {nanos}");
        }
    }

    #[test]
    fn every_violation_of_a_new_hospital_is_named_in_field_order() {
        let mut message = CreateHospitalRequest {
            hospital: Some(Hospital { time_zone: "Asia/Soul".into(), ..Hospital::default() }),
            hospital_id: "Seoul".into(),
            initial_slots: Vec::new(),
            request_id: "x".into(),
        };
        let fresh = || HospitalId::from_segment("fresh").unwrap();
        let fault = create_hospital(&mut message, fresh, Uuid::nil()).unwrap_err();
        let fields: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["hospital.display_name", "hospital.time_zone", "hospital_id", "request_id"]);
        let reasons: Vec<_> = fault.violations().iter().map(|violation| violation.reason).collect();
        assert_eq!(reasons[1], Reason::TimeZoneUnknown);
        assert_eq!(reasons[3], Reason::RequestIdMalformed);
    }
}
