//! Decodes messages into typed calls, and reports every violation of a request at once.
//!
//! Each message is destructured in full, so that a new field of the contract does not compile until somebody decides
//! what it means. Ownership is checked later.

use contract::screening::v1 as message;
use domain::access::{Caller, Scope};
use domain::filter::{self, Field, Kind};
use domain::ids::{CustomerId, ScreeningId, SlotId};
use domain::page::{Order, Page};
use domain::request::{Request, decode_id};
use domain::screening::{self, Party};
use domain::text::{self, NAME_MAX, REMARK_MAX};
use fault::{Fault, Reason, Violations};
use prost::Message;
use uuid::Uuid;

use crate::tables::list::{DEFAULT_ORDER, Listing, ORDERS, shape};

/// A decoded CreateScreening.
#[derive(Debug, Clone)]
pub(crate) struct Create {
    pub(crate) customer: CustomerId,
    /// How the hospital addresses the customer; may be empty.
    pub(crate) customer_display_name: String,
    pub(crate) slot: SlotId,
    /// Whether the booking is only judged.
    pub(crate) validate_only: bool,
    /// Whether the booking may be stored as PENDING while Hospital is out of reach.
    pub(crate) accept_pending: bool,
    /// Whether the booking waits for a place where none is left.
    pub(crate) join_waitlist: bool,
    pub(crate) request: Request,
}

/// A decoded change of one screening.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    pub(crate) id: ScreeningId,
    /// The caller's reason; empty if the method takes none.
    pub(crate) reason: String,
    /// The etag that the caller has seen; empty if the caller sent none.
    pub(crate) etag: String,
    pub(crate) request: Request,
}

/// A decoded RescheduleScreening.
#[derive(Debug, Clone)]
pub(crate) struct Reschedule {
    pub(crate) id: ScreeningId,
    pub(crate) asked: screening::Reschedule,
    /// Whether the move is only judged.
    pub(crate) validate_only: bool,
    pub(crate) request: Request,
}

/// A decoded UpdateScreening.
#[derive(Debug, Clone)]
pub(crate) struct Rename {
    pub(crate) id: ScreeningId,
    /// The new name of the customer, which may be empty. `None` if the call changes nothing.
    pub(crate) name: Option<String>,
    /// The etag that the caller has seen; empty if the caller sent none.
    pub(crate) etag: String,
    pub(crate) request: Request,
}

/// Identifies a call. `canonical` is the message without its request_id.
fn request(caller: &Caller, method: &'static str, id: Option<Uuid>, canonical: &impl Message) -> Request {
    Request::new(caller, method, id, runtime::entropy::uuid_v7(), canonical)
}

pub(crate) fn create(caller: &Caller, message: message::CreateScreeningRequest) -> Result<Create, Fault> {
    let message::CreateScreeningRequest { screening, validate_only, request_id, accept_pending, join_waitlist } =
        message;
    let mut violations = Violations::new();
    let content = screening.map(|screening| {
        let message::Screening {
            customer,
            mut customer_display_name,
            slot,
            // set by the server, ignored if a caller sends them
            name: _,
            date: _,
            hospital_display_name: _,
            time_zone: _,
            state: _,
            state_reason: _,
            claim_generation: _,
            version: _,
            create_time: _,
            update_time: _,
            etag: _,
            consistency_token: _,
            state_message: _,
            waitlist_position: _,
            promotion_close_time: _,
            reschedule_count: _,
        } = screening;
        let parsed_customer = violations.name("screening.customer", &customer, CustomerId::parse);
        text::check(&mut violations, "screening.customer_display_name", &mut customer_display_name, 0, NAME_MAX);
        let parsed_slot = violations.name("screening.slot", &slot, SlotId::parse_requested);
        let canonical = message::Screening { customer, customer_display_name, slot, ..message::Screening::default() };
        (parsed_customer, parsed_slot, canonical)
    });
    if content.is_none() {
        violations.add("screening", Reason::FieldInvalid, "is required");
    }
    let id = decode_id(&mut violations, "request_id", &request_id);
    let decoded = content.and_then(|(customer, slot, screening)| {
        // No flag is part of the fingerprint: judging a booking and making it are the same request, and a caller who
        // got no answer or no place may accept a PENDING or WAITLISTED booking when it repeats its request.
        let canonical = message::CreateScreeningRequest {
            screening: Some(screening.clone()),
            validate_only: false,
            request_id: String::new(),
            accept_pending: false,
            join_waitlist: false,
        };
        let named = request(caller, "CreateScreening", id, &canonical);
        let flagged = || message::CreateScreeningRequest { accept_pending: true, ..canonical.clone() };
        let request = if accept_pending { named.also_recorded_as(&flagged()) } else { named };
        Some(Create {
            customer: customer?,
            customer_display_name: screening.customer_display_name,
            slot: slot?,
            validate_only,
            accept_pending,
            join_waitlist,
            request,
        })
    });
    violations.finish_with(decoded)
}

pub(crate) fn get(message: message::GetScreeningRequest) -> Result<ScreeningId, Fault> {
    let message::GetScreeningRequest { name } = message;
    let mut violations = Violations::new();
    let id = violations.name("name", &name, ScreeningId::parse);
    violations.finish_with(id)
}

pub(crate) fn cancel(caller: &Caller, message: message::CancelScreeningRequest) -> Result<Change, Fault> {
    let message::CancelScreeningRequest { name, mut reason, etag, request_id } = message;
    let mut violations = Violations::new();
    let id = violations.name("name", &name, ScreeningId::parse);
    text::check(&mut violations, "reason", &mut reason, 0, REMARK_MAX);
    text::check_machine(&mut violations, "etag", &etag);
    let request_id = decode_id(&mut violations, "request_id", &request_id);
    let canonical =
        message::CancelScreeningRequest { name, reason: reason.clone(), etag: etag.clone(), request_id: String::new() };
    let request = request(caller, "CancelScreening", request_id, &canonical);
    violations.finish_with(id.map(|id| Change { id, reason, etag, request }))
}

pub(crate) fn reschedule(caller: &Caller, message: message::RescheduleScreeningRequest) -> Result<Reschedule, Fault> {
    let message::RescheduleScreeningRequest { name, slot, mut reason, etag, validate_only, request_id } = message;
    let mut violations = Violations::new();
    let id = violations.name("name", &name, ScreeningId::parse);
    let parsed_slot = violations.name("slot", &slot, SlotId::parse_requested);
    text::check(&mut violations, "reason", &mut reason, 0, REMARK_MAX);
    text::check_machine(&mut violations, "etag", &etag);
    let request_id = decode_id(&mut violations, "request_id", &request_id);
    // validate_only is not part of the fingerprint: judging a move and making it are the same request.
    let canonical = message::RescheduleScreeningRequest {
        name,
        slot,
        reason: reason.clone(),
        etag: etag.clone(),
        validate_only: false,
        request_id: String::new(),
    };
    let request = request(caller, "RescheduleScreening", request_id, &canonical);
    let by = party(caller);
    violations.finish_with(id.zip(parsed_slot).map(|(id, slot)| {
        let asked = screening::Reschedule { by, slot, message: reason, etag };
        Reschedule { id, asked, validate_only, request }
    }))
}

/// On whose behalf a caller cancels or moves a booking.
pub(crate) fn party(caller: &Caller) -> Party {
    if matches!(caller, Caller::Customer(_)) { Party::Customer } else { Party::Admin }
}

pub(crate) fn update(caller: &Caller, message: message::UpdateScreeningRequest) -> Result<Rename, Fault> {
    const FIELD: &str = "customer_display_name";
    let message::UpdateScreeningRequest { screening, update_mask } = message;
    let mut violations = Violations::new();
    let Some(mut screening) = screening else {
        violations.add("screening", Reason::FieldInvalid, "is required");
        return violations.finish_with(None);
    };
    let id = violations.name("screening.name", &screening.name, ScreeningId::parse);
    let named = &mut screening.customer_display_name;
    text::check(&mut violations, "screening.customer_display_name", named, 0, NAME_MAX);
    text::check_machine(&mut violations, "screening.etag", &screening.etag);
    let paths = update_mask.map(|mask| mask.paths).unwrap_or_default();
    if let Some(unknown) = paths.iter().find(|path| *path != FIELD && (*path != "*" || paths.len() > 1)) {
        let description = format!("{unknown:?} cannot be changed; use {FIELD}, or * alone");
        violations.add("update_mask", Reason::FieldInvalid, description);
    }
    let name = (!paths.is_empty() || !named.is_empty()).then(|| named.clone());
    let etag = screening.etag.clone();
    let canonical = message::UpdateScreeningRequest { screening: Some(screening), update_mask: None };
    let request = request(caller, "UpdateScreening", None, &canonical);
    violations.finish_with(id.map(|id| Rename { id, name, etag, request }))
}

pub(crate) fn complete(caller: &Caller, message: message::CompleteScreeningRequest) -> Result<Change, Fault> {
    let message::CompleteScreeningRequest { name, etag, request_id } = message;
    let canonical =
        message::CompleteScreeningRequest { name: name.clone(), etag: etag.clone(), request_id: String::new() };
    attendance(caller, "CompleteScreening", &name, etag, &request_id, &canonical)
}

pub(crate) fn mark_no_show(caller: &Caller, message: message::MarkNoShowRequest) -> Result<Change, Fault> {
    let message::MarkNoShowRequest { name, etag, request_id } = message;
    let canonical = message::MarkNoShowRequest { name: name.clone(), etag: etag.clone(), request_id: String::new() };
    attendance(caller, "MarkNoShow", &name, etag, &request_id, &canonical)
}

fn attendance(
    caller: &Caller,
    method: &'static str,
    name: &str,
    etag: String,
    request_id: &str,
    canonical: &impl Message,
) -> Result<Change, Fault> {
    let mut violations = Violations::new();
    let id = violations.name("name", name, ScreeningId::parse);
    text::check_machine(&mut violations, "etag", &etag);
    let request_id = decode_id(&mut violations, "request_id", request_id);
    let request = request(caller, method, request_id, canonical);
    violations.finish_with(id.map(|id| Change { id, reason: String::new(), etag, request }))
}

const STATES: &[&str] = &[
    "PENDING",
    "CONFIRMED",
    "CANCELLED",
    "FORCE_CANCELLED",
    "REJECTED",
    "COMPLETED",
    "NO_SHOW",
    "WAITLISTED",
    "EXPIRED",
];

const FIELDS: &[Field] = &[
    Field { name: "customer", kind: Kind::Customer },
    Field { name: "hospital", kind: Kind::Hospital },
    Field { name: "slot", kind: Kind::Slot },
    Field { name: "state", kind: Kind::OneOf(STATES) },
    Field { name: "date", kind: Kind::Date },
    Field { name: "update_time", kind: Kind::Time },
];

pub(crate) fn list(scope: &Scope, message: message::ListScreeningsRequest) -> Result<Listing, Fault> {
    let message::ListScreeningsRequest { page_size, page_token, filter, order_by, show_waitlisted } = message;
    let mut violations = Violations::new();
    // The page token depends on the order. The violation of `order_by` itself is added last, below.
    let order = Order::decode(&mut Violations::new(), &order_by, ORDERS, DEFAULT_ORDER);
    let (ordered, scoped) = (format!("{order:?}"), format!("{scope:?}"));
    let mut binding = vec!["ListScreenings", &filter, &ordered, &scoped];
    // a token of the version before is one of a list without them
    binding.extend(show_waitlisted.then_some("show_waitlisted"));
    let page = Page::decode(&mut violations, page_size, &page_token, &binding, shape(order));
    let comparisons = filter::decode(&mut violations, &filter, FIELDS);
    Order::decode(&mut violations, &order_by, ORDERS, DEFAULT_ORDER);
    violations.finish()?;
    Ok(Listing { comparisons, shows_waitlisted: show_waitlisted, order, page })
}

#[cfg(test)]
mod tests {
    use domain::screening::State;

    use super::*;

    fn kim() -> Caller {
        Caller::Customer(CustomerId::from_segment("kim").unwrap())
    }

    fn full() -> message::CreateScreeningRequest {
        message::CreateScreeningRequest {
            screening: Some(message::Screening {
                customer: "customers/kim".into(),
                customer_display_name: "김".into(),
                slot: "hospitals/seoul/slots/2027-01-04".into(),
                ..message::Screening::default()
            }),
            request_id: "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30".into(),
            ..message::CreateScreeningRequest::default()
        }
    }

    #[test]
    fn every_wrong_field_is_named_in_their_order() {
        let message = message::CreateScreeningRequest {
            screening: Some(message::Screening {
                customer: "kim".into(),
                customer_display_name: "a\nb".into(),
                slot: "hospitals/seoul/slots/2027-02-30".into(),
                ..message::Screening::default()
            }),
            request_id: "x".into(),
            ..message::CreateScreeningRequest::default()
        };
        let fault = create(&kim(), message).unwrap_err();
        let fields: Vec<_> = fault.violations().iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(fields, ["screening.customer", "screening.customer_display_name", "screening.slot", "request_id"]);
        let fault = create(&kim(), message::CreateScreeningRequest::default()).unwrap_err();
        assert_eq!(fault.violations()[0].field, "screening");
    }

    #[test]
    fn the_fingerprint_covers_what_is_meant_and_nothing_else() {
        let fingerprint = |message| create(&kim(), message).unwrap().request.fingerprint;
        let first = fingerprint(full());
        let mut same = full();
        same.validate_only = true;
        same.request_id = same.request_id.to_uppercase();
        let screening = same.screening.as_mut().unwrap();
        screening.state = 3;
        screening.etag = "\"9\"".into();
        assert_eq!(fingerprint(same), first);
        let mut patient = full();
        patient.accept_pending = true;
        let patient = create(&kim(), patient).unwrap().request;
        assert_eq!(patient.fingerprint, first);
        let joining = message::CreateScreeningRequest { join_waitlist: true, ..full() };
        assert_eq!(fingerprint(joining), first);
        let mut other = full();
        other.screening.as_mut().unwrap().customer_display_name = "Lee".into();
        assert_ne!(fingerprint(other.clone()), first);
        // versions before kept the flag in the fingerprints of their records
        let recorded = |message: message::CreateScreeningRequest| {
            let message = message::CreateScreeningRequest { request_id: String::new(), ..message };
            super::request(&kim(), "CreateScreening", None, &message).fingerprint
        };
        let flagged = |message| message::CreateScreeningRequest { accept_pending: true, ..message };
        assert!(patient.matches(&recorded(flagged(full()))).is_ok());
        assert!(patient.matches(&first).is_ok());
        assert!(patient.matches(&recorded(flagged(other))).is_err());
    }

    #[test]
    fn a_filter_can_name_every_state() {
        assert!(State::ALL.iter().map(|state| state.name()).eq(STATES.iter().copied()));
    }

    #[test]
    fn a_page_token_belongs_to_its_caller_order_and_filter() {
        let kim = kim().scope().unwrap();
        let message = |order_by: &str, page_token: String| message::ListScreeningsRequest {
            order_by: order_by.into(),
            page_token,
            ..message::ListScreeningsRequest::default()
        };
        let first = list(&kim, message("", String::new())).unwrap();
        let uid = Uuid::from_u128(1).to_string();
        let token = first.page.next_token(&[domain::page::Key::Int(1), domain::page::Key::Text(uid)]);
        assert!(list(&kim, message("create_time  desc", token.clone())).is_ok());
        let refused = |scope: &Scope, order: &str| list(scope, message(order, token.clone())).unwrap_err().reason();
        assert_eq!(refused(&kim, "create_time"), Reason::PageTokenInvalid);
        assert_eq!(refused(&Scope::Everything, ""), Reason::PageTokenInvalid);
        let wider = message::ListScreeningsRequest { show_waitlisted: true, ..message("", token.clone()) };
        assert_eq!(list(&kim, wider).unwrap_err().reason(), Reason::PageTokenInvalid);
        assert_eq!(list(&kim, message("name", String::new())).unwrap_err().reason(), Reason::FieldInvalid);
    }
}
