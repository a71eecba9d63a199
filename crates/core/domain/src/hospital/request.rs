//! Requests for more capacity, and the admins' decisions about them.

use contract::event::v1::event_envelope::Payload;
use contract::event::v1::{CapacityIncreaseDecided, CapacityIncreaseRequested};
use contract::hospital::v1 as message;
use fault::{Fault, Reason};
use jiff::{SignedDuration, Timestamp};

use crate::capacity::{
    Administered, CapacityChange, Claim, MAX_CAPACITY, Slot, field_invalid, require_on_sale, set_capacity,
};
use crate::civil::{encode_date, encode_time};
use crate::event::Fact;
use crate::hospital_state::Hospital;
use crate::ids::{CapacityRequestId, SlotId};
use crate::token::check_etag;
use crate::window::refuse_past;

/// How long a capacity request can be decided if the caller names no end.
pub const REQUEST_LIFETIME: SignedDuration = SignedDuration::from_hours(14 * 24);

/// The refusal of a call that names a capacity request that does not exist.
#[must_use]
pub fn capacity_request_not_found(request: &CapacityRequestId) -> Fault {
    Fault::new(Reason::CapacityRequestNotFound, format!("{request} does not exist"))
        .with("capacityRequest", request)
        .about("CapacityRequest", request)
}

/// The state of a capacity request. The numbers are those of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(i32)]
pub enum RequestState {
    /// An admin has yet to decide.
    Pending = message::capacity_request::State::Pending as i32,
    /// The capacity was raised; final.
    Approved = message::capacity_request::State::Approved as i32,
    /// An admin refused; final.
    Rejected = message::capacity_request::State::Rejected as i32,
    /// Nobody decided in time; final. It is never stored but follows from the time.
    Expired = message::capacity_request::State::Expired as i32,
}

impl RequestState {
    /// The state with this number, or `None` if there is none.
    #[must_use]
    pub fn from_number(number: i32) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Rejected, Self::Expired].into_iter().find(|state| *state as i32 == number)
    }

    /// The state as the contract's enum.
    #[must_use]
    pub fn message(self) -> message::capacity_request::State {
        match self {
            Self::Pending => message::capacity_request::State::Pending,
            Self::Approved => message::capacity_request::State::Approved,
            Self::Rejected => message::capacity_request::State::Rejected,
            Self::Expired => message::capacity_request::State::Expired,
        }
    }
}

/// A request for more places on a slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapacityRequest {
    /// The resource name, which contains the hospital.
    pub id: CapacityRequestId,
    /// The slot to enlarge.
    pub slot: SlotId,
    /// How many more places to add.
    pub additional: i32,
    /// The justification, for the admin who decides.
    pub justification: String,
    /// The stored state; never EXPIRED, which [`CapacityRequest::state_at`] computes.
    pub decision: RequestState,
    /// The note of the admin who decided.
    pub note: String,
    /// 1 for the request, one more for the decision. It is the version of its events and its etag.
    pub version: i64,
    /// When the request was made.
    pub create_time: Timestamp,
    /// The instant from which it can no longer be decided.
    pub expire_time: Timestamp,
}

/// The content of a new capacity request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CapacityIncrease {
    /// The slot to enlarge.
    pub slot: SlotId,
    /// How many more places to add, at least one.
    pub additional: i32,
    /// The justification, for the admin who decides.
    pub justification: String,
    /// The instant from which it can no longer be decided; `None` for [`REQUEST_LIFETIME`].
    pub expire_time: Option<Timestamp>,
}

impl CapacityRequest {
    /// Its state at a time, EXPIRED included.
    #[must_use]
    pub fn state_at(&self, now: Timestamp) -> RequestState {
        if self.decision == RequestState::Pending && self.expire_time <= now {
            RequestState::Expired
        } else {
            self.decision
        }
    }

    fn require_pending(&self, etag: &str, now: Timestamp) -> Result<(), Fault> {
        check_etag(etag, self.version).map_err(|fault| fault.about("CapacityRequest", &self.id))?;
        let state = self.state_at(now);
        if state == RequestState::Pending {
            return Ok(());
        }
        let state = state.message().as_str_name();
        Err(Fault::new(Reason::CapacityRequestDecided, format!("{} is {state} already", self.id))
            .with("capacityRequest", &self.id)
            .with("state", state)
            .about("CapacityRequest", &self.id))
    }

    fn decided(&self, decision: RequestState, note: &str) -> (Self, Fact) {
        let decided = Self { decision, note: note.to_owned(), version: self.version + 1, ..self.clone() };
        let fact = decided.fact(Payload::CapacityIncreaseDecided(CapacityIncreaseDecided {
            capacity_request: self.id.to_string(),
            slot: self.slot.to_string(),
            approved: decision == RequestState::Approved,
            note: note.to_owned(),
            date: Some(encode_date(self.slot.date)),
            additional_capacity: self.additional,
        }));
        (decided, fact)
    }

    fn fact(&self, payload: Payload) -> Fact {
        Fact { aggregate: self.id.to_string(), version: self.version, payload }
    }
}

/// Makes a request for more places on a slot of the hospital.
///
/// # Errors
/// HOSPITAL_DELETED; DATE_IN_PAST; FIELD_INVALID if the capacity would exceed [`MAX_CAPACITY`] or the request would
/// expire at once.
pub fn ask_for_capacity(
    id: CapacityRequestId,
    increase: &CapacityIncrease,
    hospital: &Hospital,
    slot: &Slot,
    now: Timestamp,
) -> Result<(CapacityRequest, Fact), Fault> {
    hospital.require_active()?;
    refuse_past(slot.id.date, &hospital.time_zone, now)?;
    if i64::from(slot.capacity) + i64::from(increase.additional) > i64::from(MAX_CAPACITY) {
        let description = format!("would lead above {MAX_CAPACITY}; the slot has {} places", slot.capacity);
        return Err(field_invalid("capacity_request.additional_capacity", description));
    }
    let expire_time = match increase.expire_time {
        None => now.checked_add(REQUEST_LIFETIME).unwrap_or(Timestamp::MAX),
        Some(time) if time > now => time,
        Some(time) => {
            let description = format!("must be later than now, which is {now}; it is {time}");
            return Err(field_invalid("capacity_request.expire_time", description));
        }
    };
    let request = CapacityRequest {
        id,
        slot: increase.slot.clone(),
        additional: increase.additional,
        justification: increase.justification.clone(),
        decision: RequestState::Pending,
        note: String::new(),
        version: 1,
        create_time: now,
        expire_time,
    };
    let fact = request.fact(Payload::CapacityIncreaseRequested(CapacityIncreaseRequested {
        capacity_request: request.id.to_string(),
        slot: request.slot.to_string(),
        additional_capacity: request.additional,
        date: Some(encode_date(request.slot.date)),
        justification: request.justification.clone(),
        expire_time: Some(encode_time(request.expire_time)),
    }));
    Ok((request, fact))
}

/// Approves a capacity request. Returns the raised slot too, whose fact comes before that of the decision. New places
/// go to the claims of `queue`, as in [`set_capacity`].
///
/// # Errors
/// HOSPITAL_DELETED, ETAG_MISMATCH, CAPACITY_REQUEST_DECIDED, DATE_IN_PAST, SLOT_CLOSED, or FIELD_INVALID if the
/// capacity would exceed [`MAX_CAPACITY`].
pub fn approve(
    request: &CapacityRequest,
    hospital: &Hospital,
    slot: &Slot,
    note: &str,
    etag: &str,
    queue: &[Claim],
    now: Timestamp,
) -> Result<(CapacityRequest, Administered, Fact), Fault> {
    hospital.require_active()?;
    request.require_pending(etag, now)?;
    refuse_past(slot.id.date, &hospital.time_zone, now)?;
    require_on_sale(slot)?;
    let more = CapacityChange::By(request.additional);
    let raised = set_capacity(hospital, slot, more, "", Some(&request.id), queue, now)?;
    let raised = raised.ok_or_else(|| Fault::internal(format!("{} asks for no place", request.id)))?;
    let (decided, decision) = request.decided(RequestState::Approved, note);
    Ok((decided, raised, decision))
}

/// Rejects a capacity request; the slot does not change.
///
/// # Errors
/// HOSPITAL_DELETED, ETAG_MISMATCH or CAPACITY_REQUEST_DECIDED.
pub fn reject(
    request: &CapacityRequest,
    hospital: &Hospital,
    note: &str,
    etag: &str,
    now: Timestamp,
) -> Result<(CapacityRequest, Fact), Fault> {
    hospital.require_active()?;
    request.require_pending(etag, now)?;
    Ok(request.decided(RequestState::Rejected, note))
}
