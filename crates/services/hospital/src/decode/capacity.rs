//! Decodes requests about claims and capacity requests.

use std::time::Duration;

use contract::capacity::v1::{
    BatchReserveCapacityRequest, ListCapacityClaimsRequest, ReserveCapacityCall, ReserveCapacityRequest,
};
use contract::hospital::v1::{
    ApproveCapacityRequestRequest, CapacityRequest, CreateCapacityRequestRequest, GetCapacityRequestRequest,
    ListCapacityRequestsRequest, RejectCapacityRequestRequest,
};
use domain::capacity::{MAX_BATCHED_CALLS, MAX_CAPACITY};
use domain::civil::decode_time;
use domain::filter::{self, Field, Kind};
use domain::hospital::CapacityIncrease;
use domain::ids::{CapacityRequestId, ClaimId, HospitalId, SlotId};
use domain::page::{KeyKind, Page};
use domain::request::decode_id;
use fault::{Fault, Reason, Violations};
use jiff::Timestamp;
use store::{micros, timestamp};
use uuid::Uuid;

use super::{Asked, List, remark, required};
use crate::command::Change;

/// Reads a request that holds a slot and a claim id.
pub(crate) fn claim(slot: &str, claim_id: &str) -> Result<(SlotId, ClaimId), Fault> {
    let mut violations = Violations::new();
    let slot = violations.name("slot", slot, SlotId::parse_requested);
    let claim = violations.name("claim_id", claim_id, ClaimId::parse);
    violations.finish_with(slot.zip(claim))
}

/// What a ReserveCapacity asks for.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) slot: SlotId,
    pub(crate) claim: ClaimId,
    /// Whether to take a ticket of the slot's queue where no place is left.
    pub(crate) allow_waitlist: bool,
}

pub(crate) fn reserve(message: &ReserveCapacityRequest) -> Result<Wanted, Fault> {
    let ReserveCapacityRequest { slot, claim_id, allow_waitlist } = message;
    let (slot, claim) = claim(slot, claim_id)?;
    Ok(Wanted { slot, claim, allow_waitlist: *allow_waitlist })
}

/// A ReserveCapacity of a batch.
#[derive(Debug)]
pub(crate) struct BatchedCall {
    pub(crate) wanted: Wanted,
    /// How long its caller waits; `None`: as long as the batch.
    pub(crate) timeout: Option<Duration>,
    pub(crate) traceparent: String,
}

/// Reads BatchReserveCapacity. One malformed call refuses the batch, because none of them is decided yet.
pub(crate) fn batch(message: &BatchReserveCapacityRequest) -> Result<Vec<BatchedCall>, Fault> {
    let BatchReserveCapacityRequest { calls } = message;
    let mut violations = Violations::new();
    if !(1..=MAX_BATCHED_CALLS).contains(&calls.len()) {
        let description = format!("must be 1..{MAX_BATCHED_CALLS}, are {}", calls.len());
        violations.add("calls", Reason::FieldInvalid, description);
        return violations.finish_with(None);
    }
    let decoded: Vec<_> = calls.iter().enumerate().map(|(i, call)| batched_call(&mut violations, i, call)).collect();
    violations.finish_with(decoded.into_iter().collect())
}

fn batched_call(violations: &mut Violations, i: usize, call: &ReserveCapacityCall) -> Option<BatchedCall> {
    let ReserveCapacityCall { request, timeout, traceparent } = call;
    let at = |field: &str| format!("calls[{i}].{field}");
    let Some(ReserveCapacityRequest { slot, claim_id, allow_waitlist }) = request else {
        required(violations, &at("request"));
        return None;
    };
    let slot = violations.name(&at("request.slot"), slot, SlotId::parse_requested);
    let claim = violations.name(&at("request.claim_id"), claim_id, ClaimId::parse);
    let timeout = match timeout {
        // the conversion cannot take the least seconds there are
        Some(timeout) if timeout.seconds < 0 || timeout.nanos < 0 => {
            violations.add(at("timeout"), Reason::FieldInvalid, "must not be negative");
            return None;
        }
        timeout => timeout.and_then(|timeout| Duration::try_from(timeout).ok()),
    };
    let (slot, claim) = slot.zip(claim)?;
    let wanted = Wanted { slot, claim, allow_waitlist: *allow_waitlist };
    Some(BatchedCall { wanted, timeout, traceparent: traceparent.clone() })
}

/// The name that stands for every slot (AIP-159).
const EVERY_SLOT: &str = "hospitals/-/slots/-";

/// Reads ListCapacityClaims. The parent is `None` for the claims of every slot.
pub(crate) fn list_capacity_claims(message: &ListCapacityClaimsRequest) -> Result<List<Option<SlotId>>, Fault> {
    const FIELDS: &[Field] =
        &[Field { name: "state", kind: Kind::OneOf(&["ACTIVE", "RELEASED", "REVOKED", "WAITING"]) }];
    let ListCapacityClaimsRequest { slot, page_size, page_token, filter } = message;
    let mut violations = Violations::new();
    let parent =
        if slot == EVERY_SLOT { Some(None) } else { violations.name("slot", slot, SlotId::parse_requested).map(Some) };
    let binding = ["ListCapacityClaims", slot, filter];
    let page = Page::decode(&mut violations, *page_size, page_token, &binding, &[KeyKind::Text, KeyKind::Int]);
    let filter = filter::decode(&mut violations, filter, FIELDS);
    violations.finish_with(parent.map(|parent| List { parent, filter, page }))
}

/// Reads CreateCapacityRequest. `fresh` becomes the capacity request's id.
pub(crate) fn create_capacity_request(message: &mut CreateCapacityRequestRequest, fresh: Uuid) -> Result<Asked, Fault> {
    let CreateCapacityRequestRequest { parent, capacity_request, request_id } = message;
    let mut violations = Violations::new();
    let hospital = violations.name("parent", parent, HospitalId::parse);
    let increase = match capacity_request {
        Some(request) => increase(&mut violations, request, hospital.as_ref()),
        None => {
            required(&mut violations, "capacity_request");
            None
        }
    };
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = hospital.zip(increase).map(|(hospital, increase)| {
        let id = CapacityRequestId { hospital: hospital.clone(), uid: fresh };
        Asked { hospital, request_id, change: Change::AskForCapacity { id, increase } }
    });
    violations.finish_with(decoded)
}

fn increase(
    violations: &mut Violations,
    request: &mut CapacityRequest,
    hospital: Option<&HospitalId>,
) -> Option<CapacityIncrease> {
    let CapacityRequest {
        name: _,
        slot,
        additional_capacity,
        justification,
        state: _,
        decision_note: _,
        create_time: _,
        expire_time,
        etag: _,
    } = request;
    let slot = violations.name("capacity_request.slot", slot, SlotId::parse_requested);
    if slot.as_ref().zip(hospital).is_some_and(|(slot, hospital)| slot.hospital != *hospital) {
        violations.add("capacity_request.slot", Reason::FieldInvalid, "must be a slot of parent");
    }
    if !(1..=MAX_CAPACITY).contains(additional_capacity) {
        let description = format!("must be 1..{MAX_CAPACITY}, is {additional_capacity}");
        violations.add("capacity_request.additional_capacity", Reason::FieldInvalid, description);
    }
    remark(violations, "capacity_request.justification", justification);
    let expire_time = match expire_time {
        None => None,
        Some(time) => Some(instant(violations, "capacity_request.expire_time", time)?),
    };
    let (additional, justification) = (*additional_capacity, justification.clone());
    slot.map(|slot| CapacityIncrease { slot, additional, justification, expire_time })
}

/// Reads a timestamp and cuts it to the precision that the database stores.
fn instant(violations: &mut Violations, field: &str, time: &prost_types::Timestamp) -> Option<Timestamp> {
    let well_formed = (0..1_000_000_000).contains(&time.nanos);
    let instant = well_formed.then(|| decode_time(time)).flatten();
    if instant.is_none() {
        violations.add(field, Reason::FieldInvalid, "is not an instant of the years 1 to 9999");
    }
    instant.map(|instant| timestamp(micros(instant)))
}

pub(crate) fn get_capacity_request(message: &GetCapacityRequestRequest) -> Result<CapacityRequestId, Fault> {
    let GetCapacityRequestRequest { name: request } = message;
    let mut violations = Violations::new();
    let request = violations.name("name", request, CapacityRequestId::parse);
    violations.finish_with(request)
}

pub(crate) fn list_capacity_requests(message: &ListCapacityRequestsRequest) -> Result<List<HospitalId>, Fault> {
    const FIELDS: &[Field] = &[
        Field { name: "slot", kind: Kind::Slot },
        Field { name: "state", kind: Kind::OneOf(&["PENDING", "APPROVED", "REJECTED", "EXPIRED"]) },
    ];
    let ListCapacityRequestsRequest { parent, page_size, page_token, filter } = message;
    let mut violations = Violations::new();
    let hospital = violations.name("parent", parent, HospitalId::parse);
    let binding = ["ListCapacityRequests", parent, filter];
    let page = Page::decode(&mut violations, *page_size, page_token, &binding, &[KeyKind::Text]);
    let filter = filter::decode(&mut violations, filter, FIELDS);
    violations.finish_with(hospital.map(|parent| List { parent, filter, page }))
}

pub(crate) fn approve_capacity_request(message: &mut ApproveCapacityRequestRequest) -> Result<Asked, Fault> {
    let ApproveCapacityRequestRequest { name, note, etag, request_id } = message;
    decision(name, true, note, etag, request_id)
}

pub(crate) fn reject_capacity_request(message: &mut RejectCapacityRequestRequest) -> Result<Asked, Fault> {
    let RejectCapacityRequestRequest { name, note, etag, request_id } = message;
    decision(name, false, note, etag, request_id)
}

fn decision(request: &str, approve: bool, note: &mut String, etag: &str, request_id: &str) -> Result<Asked, Fault> {
    let mut violations = Violations::new();
    let id = violations.name("name", request, CapacityRequestId::parse);
    remark(&mut violations, "note", note);
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let decoded = id.map(|id| Asked {
        hospital: id.hospital.clone(),
        request_id,
        change: Change::Decide { id, approve, note: note.clone(), etag: etag.to_owned() },
    });
    violations.finish_with(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fault: &Fault) -> Vec<&str> {
        fault.violations().iter().map(|violation| violation.field.as_str()).collect()
    }

    #[test]
    fn a_capacity_request_is_for_a_slot_of_its_hospital() {
        let request = CapacityRequest {
            slot: "hospitals/busan/slots/2027-01-04".into(),
            additional_capacity: 0,
            justification: "x".repeat(501),
            expire_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }),
            state: 99,
            ..CapacityRequest::default()
        };
        let mut message = CreateCapacityRequestRequest {
            parent: "hospitals/seoul".into(),
            capacity_request: Some(request),
            request_id: String::new(),
        };
        assert_eq!(
            fields(&create_capacity_request(&mut message, Uuid::nil()).unwrap_err()),
            [
                "capacity_request.slot",
                "capacity_request.additional_capacity",
                "capacity_request.justification",
                "capacity_request.expire_time"
            ]
        );
        message.capacity_request = None;
        assert_eq!(fields(&create_capacity_request(&mut message, Uuid::nil()).unwrap_err()), ["capacity_request"]);
    }

    #[test]
    fn both_halves_of_a_claim_are_named() {
        assert_eq!(fields(&claim("", "x").unwrap_err()), ["slot", "claim_id"]);
    }
}
