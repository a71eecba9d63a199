//! Decodes requests into typed queries, and reports every violation of a request at once.

use contract::reservation::v1::{GetReservationRequest, ListReservationHistoryRequest, ListReservationsRequest};
use domain::filter::{self, Comparison, Field, Kind};
use domain::ids::ScreeningId;
use domain::page::{KeyKind, Order, Page};
use domain::reservation::State;
use domain::token::ConsistencyToken;
use fault::{Fault, Violations};

use crate::tables;

/// The fields that a filter may name.
const FIELDS: &[Field] = &[
    Field { name: "customer", kind: Kind::Customer },
    Field { name: "hospital", kind: Kind::Hospital },
    Field { name: "slot", kind: Kind::Slot },
    Field { name: "state", kind: Kind::OneOf(State::NAMES) },
    Field { name: "date", kind: Kind::Date },
    Field { name: "update_time", kind: Kind::Time },
];

const ORDERS: &[&str] = &["create_time", "date"];

const NEWEST_FIRST: Order = Order { field: "create_time", descending: true };

/// A decoded GetReservation.
#[derive(Debug)]
pub(crate) struct Get {
    pub(crate) screening: ScreeningId,
    pub(crate) not_before: Option<ConsistencyToken>,
}

/// A decoded ListReservations.
#[derive(Debug)]
pub(crate) struct List {
    pub(crate) filter: Vec<Comparison>,
    pub(crate) order: Order,
    pub(crate) page: Page,
}

/// A decoded request for a page of one reservation's history.
#[derive(Debug)]
pub(crate) struct ListHistory {
    pub(crate) screening: ScreeningId,
    pub(crate) page: Page,
}

pub(crate) fn get(request: GetReservationRequest) -> Result<Get, Fault> {
    let GetReservationRequest { name, min_consistency_token } = request;
    let mut violations = Violations::new();
    let screening = violations.name("name", &name, ScreeningId::parse_reservation);
    let not_before = ConsistencyToken::decode(&mut violations, "min_consistency_token", &min_consistency_token);
    violations.finish_with(screening.map(|screening| Get { screening, not_before }))
}

pub(crate) fn list(request: ListReservationsRequest) -> Result<List, Fault> {
    let ListReservationsRequest { page_size, page_token, filter, order_by } = request;
    let mut violations = Violations::new();
    // The page token depends on the order. The violation of `order_by` itself is added last, below.
    let order = Order::decode(&mut Violations::new(), &order_by, ORDERS, NEWEST_FIRST);
    let direction = if order.descending { "desc" } else { "asc" };
    let binding = ["ListReservations", &filter, order.field, direction];
    let page = Page::decode(&mut violations, page_size, &page_token, &binding, &tables::keys(order));
    let comparisons = filter::decode(&mut violations, &filter, FIELDS);
    Order::decode(&mut violations, &order_by, ORDERS, NEWEST_FIRST);
    violations.finish()?;
    Ok(List { filter: comparisons, order, page })
}

pub(crate) fn list_history(request: ListReservationHistoryRequest) -> Result<ListHistory, Fault> {
    let ListReservationHistoryRequest { parent, page_size, page_token } = request;
    let mut violations = Violations::new();
    let screening = violations.name("parent", &parent, ScreeningId::parse_reservation);
    let bound = screening.map(ScreeningId::reservation_name).unwrap_or_default();
    let binding = ["ListReservationHistory", &bound];
    let page = Page::decode(&mut violations, page_size, &page_token, &binding, &[KeyKind::Int]);
    violations.finish_with(screening.map(|screening| ListHistory { screening, page }))
}
