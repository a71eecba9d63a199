//! Decodes requests into typed queries and commands, and reports every violation of a request at once.

use contract::marketing::v1::{ListDemandSignalsRequest, ProposeCapacityIncreaseRequest};
use domain::filter::{self, Comparison, Field, Kind};
use domain::ids::SlotId;
use domain::page::{Order, Page};
use domain::request::decode_id;
use domain::text;
use fault::{Fault, Reason, Violations};
use uuid::Uuid;

use crate::tables::signals::keys;

/// The fields that a filter may name.
const FIELDS: &[Field] = &[
    Field { name: "hospital", kind: Kind::Hospital },
    Field { name: "date", kind: Kind::Date },
    Field { name: "fill_ratio", kind: Kind::Number },
    Field { name: "update_time", kind: Kind::Time },
];

const ORDERS: &[&str] = &["date", "fill_ratio"];

const BY_DATE: Order = Order { field: "date", descending: false };

/// The most places one proposal may ask for.
const MAX_PLACES: i32 = 100_000;

/// A decoded ListDemandSignals.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) filter: Vec<Comparison>,
    pub(crate) order: Order,
    pub(crate) page: Page,
}

/// A decoded ProposeCapacityIncrease.
#[derive(Debug)]
pub(crate) struct Propose {
    pub(crate) slot: SlotId,
    pub(crate) additional_capacity: i32,
    pub(crate) justification: String,
    pub(crate) request_id: Option<Uuid>,
}

pub(crate) fn list(request: ListDemandSignalsRequest) -> Result<List, Fault> {
    let ListDemandSignalsRequest { page_size, page_token, filter, order_by } = request;
    let mut violations = Violations::new();
    // The page token depends on the order. The violation of `order_by` itself is added last, below.
    let order = Order::decode(&mut Violations::new(), &order_by, ORDERS, BY_DATE);
    let direction = if order.descending { "desc" } else { "asc" };
    let binding = ["ListDemandSignals", &filter, order.field, direction];
    let page = Page::decode(&mut violations, page_size, &page_token, &binding, &keys(order));
    let comparisons = filter::decode(&mut violations, &filter, FIELDS);
    Order::decode(&mut violations, &order_by, ORDERS, BY_DATE);
    violations.finish()?;
    Ok(List { filter: comparisons, order, page })
}

pub(crate) fn propose(request: ProposeCapacityIncreaseRequest) -> Result<Propose, Fault> {
    let ProposeCapacityIncreaseRequest { slot, additional_capacity, mut justification, request_id } = request;
    let mut violations = Violations::new();
    let slot = violations.name("slot", &slot, SlotId::parse_requested);
    if !(1..=MAX_PLACES).contains(&additional_capacity) {
        violations.add("additional_capacity", Reason::FieldInvalid, format!("must be 1 to {MAX_PLACES}"));
    }
    text::check(&mut violations, "justification", &mut justification, 0, text::REMARK_MAX);
    let request_id = decode_id(&mut violations, "request_id", &request_id);
    violations.finish_with(slot.map(|slot| Propose { slot, additional_capacity, justification, request_id }))
}
