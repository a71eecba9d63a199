//! Reads outside the writer. Everybody may read hospitals, slots and availability. Before a claim or a capacity request
//! is read, the caller's permission has been checked.

use std::collections::{BTreeMap, HashMap};

use domain::capacity::{Claim, Slot, SlotState};
use domain::civil::today;
use domain::filter::{Comparison, Operator, Value as Operand};
use domain::hospital::{CapacityRequest, Held, Hospital, HospitalState, RequestState};
use domain::ids::{CapacityRequestId, ClaimId, HospitalId, SlotId};
use domain::page::{Key, Page, Rows};
use jiff::Timestamp;
use jiff::civil::Date;
use jiff::tz::{TimeZone, offset};
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Condition, ExprTrait};
use sea_orm::{QueryFilter, QuerySelect, Value};
use store::query::{self, Direction};
use store::rows::among;

use super::revocation::{self, Cancelling};
use super::{capacity_request, claim, corrupt, hospital, hospital_id, slot, slot_key};
use store::{Connection, Fetch as _};

/// A hospital and the number of its bookings.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HospitalView {
    pub(crate) hospital: Hospital,
    /// Its claims on dates from [`Hospital::counts_from`] on.
    pub(crate) held: Held,
}

/// How many claims each hospital holds on dates from [`Hospital::counts_from`] on. A hospital without slots from then
/// on is missing in the map. The index on hospital and date skips dates that are over. Hospitals that count from the
/// same date share a statement.
pub(crate) async fn held_at(
    connection: &dyn Connection,
    hospitals: impl IntoIterator<Item = &Hospital>,
    now: Timestamp,
) -> Result<HashMap<String, Held>, DbErr> {
    let mut by_date: BTreeMap<Date, Vec<&str>> = BTreeMap::new();
    for hospital in hospitals {
        by_date.entry(hospital.counts_from(now)).or_default().push(hospital.id.segment());
    }
    let mut held = HashMap::new();
    for (from, segments) in by_date {
        let sums = slot::Entity::find()
            .select_only()
            .column(slot::Column::Hospital)
            .column_as(slot::Column::BookedCount.sum().cast_as("bigint"), "booked")
            .column_as(slot::Column::WaitlistedCount.sum().cast_as("bigint"), "waiting")
            .filter(among(connection, slot::Column::Hospital, segments))
            .filter(slot::Column::Date.gte(from.to_string()))
            .group_by(slot::Column::Hospital);
        let sums: Vec<(String, i64, i64)> = sums.fetch_values(connection).await?;
        held.extend(sums.into_iter().map(|(hospital, active, waiting)| (hospital, Held { active, waiting })));
    }
    Ok(held)
}

pub(crate) async fn hospital(
    connection: &dyn Connection,
    id: &HospitalId,
    now: Timestamp,
) -> Result<Option<HospitalView>, DbErr> {
    let row = hospital::Entity::find_by_id(id.segment()).fetch_one(connection).await?;
    let Some(hospital) = row.map(Hospital::try_from).transpose()? else { return Ok(None) };
    let held = held_at(connection, [&hospital], now).await?;
    let held = held.get(hospital.id.segment()).copied().unwrap_or_default();
    Ok(Some(HospitalView { hospital, held }))
}

/// A page of hospitals in the order of their ids.
pub(crate) async fn hospitals(
    connection: &dyn Connection,
    filter: &[Comparison],
    show_deleted: bool,
    page: &Page,
    now: Timestamp,
) -> Result<Rows<HospitalView>, DbErr> {
    let column = |field| match field {
        "update_time" => hospital::Column::UpdateTime,
        _ => hospital::Column::DisplayName,
    };
    let filter = query::condition(filter, column, |_, _| None);
    let mut select = hospital::Entity::find().filter(filter);
    if !show_deleted {
        select = select.filter(hospital::Column::State.eq(HospitalState::Active as i32));
    }
    let rows = query::page(select, &[(hospital::Column::Id, Direction::Ascending)], page).fetch(connection).await?;
    let rows = query::split(rows, page, |row| vec![Key::Text(row.id.clone())]).try_map(Hospital::try_from)?;
    let held = held_at(connection, rows.iter(), now).await?;
    Ok(rows.map(|hospital| {
        let held = held.get(hospital.id.segment()).copied().unwrap_or_default();
        HospitalView { hospital, held }
    }))
}

/// Those of these hospitals that exist.
pub(crate) async fn known_hospitals(
    connection: &dyn Connection,
    ids: impl IntoIterator<Item = &str>,
) -> Result<HashMap<HospitalId, Hospital>, DbErr> {
    let ids = among(connection, hospital::Column::Id, ids);
    let rows = hospital::Entity::find().filter(ids).fetch(connection).await?;
    let hospitals = rows.into_iter().map(Hospital::try_from);
    hospitals.map(|hospital| hospital.map(|hospital| (hospital.id.clone(), hospital))).collect()
}

pub(crate) async fn slot(connection: &dyn Connection, id: &SlotId) -> Result<Option<Slot>, DbErr> {
    slot::Entity::find_by_id(slot_key(id)).fetch_one(connection).await?.map(Slot::try_from).transpose()
}

/// A slot, and how far the cancelling of its bookings has come while it is under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SlotView {
    pub(crate) slot: Slot,
    pub(crate) cancelling: Option<Cancelling>,
}

/// Reads how far the cancelling of these slots' bookings has come. Only a closed slot with claims can have some to
/// cancel, so most slots need no statement.
pub(super) async fn cancelling<'a>(
    connection: &dyn Connection,
    slots: impl Iterator<Item = &'a Slot>,
) -> Result<HashMap<SlotId, Cancelling>, DbErr> {
    let candidates = slots.filter(|slot| slot.state == SlotState::Closed && slot.to_cancel(true) > 0);
    revocation::cancelling(connection, candidates.map(|slot| &slot.id)).await
}

/// Adds to a slot how far the cancelling of its bookings has come.
pub(crate) async fn with_cancelling(connection: &dyn Connection, slot: Slot) -> Result<SlotView, DbErr> {
    let cancelling = cancelling(connection, std::iter::once(&slot)).await?;
    Ok(SlotView { cancelling: cancelling.get(&slot.id).copied(), slot })
}

/// The slots of a hospital on these dates, by date.
pub(crate) async fn slots_on(
    connection: &dyn Connection,
    hospital: &HospitalId,
    dates: impl IntoIterator<Item = Date>,
) -> Result<Vec<SlotView>, DbErr> {
    let keys = dates.into_iter().map(|date| slot_key(&SlotId::new(hospital.clone(), date)));
    let rows = slot::Entity::find().filter(among(connection, slot::Column::Id, keys));
    let slots: Vec<Slot> =
        rows.fetch(connection).await?.into_iter().map(Slot::try_from).collect::<Result<_, DbErr>>()?;
    views(connection, slots).await
}

/// Adds to slots of one hospital how far the cancelling of their bookings has come, and sorts them by date.
pub(crate) async fn views(connection: &dyn Connection, mut slots: Vec<Slot>) -> Result<Vec<SlotView>, DbErr> {
    slots.sort_by_key(|slot| slot.id.date);
    let cancelling = cancelling(connection, slots.iter()).await?;
    Ok(slots.into_iter().map(|slot| SlotView { cancelling: cancelling.get(&slot.id).copied(), slot }).collect())
}

/// A range of dates.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Dates {
    /// Inclusive; `None` for no lower bound.
    pub(crate) start: Option<Date>,
    /// Exclusive; `None` for no upper bound.
    pub(crate) end: Option<Date>,
}

impl Dates {
    pub(crate) fn contains(self, date: Date) -> bool {
        self.start.is_none_or(|start| start <= date) && self.end.is_none_or(|end| date < end)
    }

    pub(super) fn condition(self) -> Condition {
        Condition::all()
            .add_option(self.start.map(|start| slot::Column::Date.gte(start.to_string())))
            .add_option(self.end.map(|end| slot::Column::Date.lt(end.to_string())))
    }
}

/// A page of a hospital's slots in the order of their dates.
pub(crate) async fn slots(
    connection: &dyn Connection,
    hospital: &HospitalId,
    dates: Dates,
    page: &Page,
) -> Result<Rows<SlotView>, DbErr> {
    let select = slot::Entity::find().filter(slot::Column::Hospital.eq(hospital.segment())).filter(dates.condition());
    let rows = query::page(select, &[(slot::Column::Date, Direction::Ascending)], page).fetch(connection).await?;
    let slots = query::split(rows, page, |row| vec![Key::Text(row.date.clone())]).try_map(Slot::try_from)?;
    let cancelling = cancelling(connection, slots.iter()).await?;
    Ok(slots.map(|slot| SlotView { cancelling: cancelling.get(&slot.id).copied(), slot }))
}

/// The conditions of an availability search.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Search {
    pub(crate) dates: Dates,
    /// The hospitals to search. Empty: all.
    pub(crate) hospitals: Vec<HospitalId>,
    /// How many places a slot has to have left, at least.
    pub(crate) min_remaining: i32,
}

/// A slot that can be booked, and what a customer needs to know of its hospital.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Available {
    pub(crate) slot: Slot,
    pub(crate) hospital_display_name: String,
    pub(crate) time_zone: TimeZone,
}

/// The least number of rows that every statement after the first one reads, so that a small page behind many slots
/// outside their booking windows costs few statements. The first statement reads only a page: each row may belong to
/// another hospital, whose policy has to be read.
const LOOK_AHEAD: u64 = 200;

/// A page of the slots that can be booked now, in the order of date and hospital. It reads on past slots outside their
/// booking windows until the page is full: a window depends on each hospital's time zone and policy, which no index
/// holds.
pub(crate) async fn availability(
    connection: &dyn Connection,
    search: &Search,
    page: &Page,
    now: Timestamp,
) -> Result<Rows<Available>, DbErr> {
    let mut chunk = page.clone();
    let wanted = usize::try_from(page.size).unwrap_or(usize::MAX).saturating_add(1);
    let mut hospitals: HashMap<String, Option<Hospital>> = HashMap::new();
    let mut found: Vec<slot::Model> = Vec::new();
    loop {
        let order = [(slot::Column::Date, Direction::Ascending), (slot::Column::Hospital, Direction::Ascending)];
        let rows = query::page(bookable(search, now), &order, &chunk).fetch(connection).await?;
        let last = rows.last().map(position);
        let exhausted = (rows.len() as u64) <= chunk.size;
        learn_hospitals(connection, &mut hospitals, &rows).await?;
        for row in rows {
            let hospital = hospitals.get(&row.hospital).and_then(Option::as_ref);
            if hospital.is_some_and(|hospital| in_window(hospital, &row.date, now)) {
                found.push(row);
            }
        }
        if exhausted || found.len() >= wanted {
            break;
        }
        chunk.after = last;
        chunk.size = Ord::max(page.size, LOOK_AHEAD);
    }
    query::split(found, page, position).try_map(|row| {
        let hospital = hospitals.get(&row.hospital).and_then(Option::as_ref);
        let hospital = hospital.ok_or_else(|| corrupt("slot of the hospital", &row.hospital))?;
        let (hospital_display_name, time_zone) = (hospital.display_name.clone(), hospital.time_zone.clone());
        Ok(Available { slot: Slot::try_from(row)?, hospital_display_name, time_zone })
    })
}

pub(super) fn position(row: &slot::Model) -> Vec<Key> {
    vec![Key::Text(row.date.clone()), Key::Text(row.hospital.clone())]
}

/// Slots that a search may find, before their booking windows are checked. Dates that are over everywhere are left out.
fn bookable(search: &Search, now: Timestamp) -> Select<slot::Entity> {
    let earliest_today = today(now, &TimeZone::fixed(offset(-12)));
    let mut select = slot::Entity::find()
        .filter(search.dates.condition())
        .filter(slot::Column::Date.gte(earliest_today.to_string()))
        .filter(slot::Column::State.eq(SlotState::Open as i32))
        .filter(Expr::col(slot::Column::Capacity).sub(Expr::col(slot::Column::BookedCount)).gte(search.min_remaining));
    if !search.hospitals.is_empty() {
        let segments = search.hospitals.iter().map(HospitalId::segment);
        select = select.filter(slot::Column::Hospital.is_in(segments));
    }
    select
}

async fn learn_hospitals(
    connection: &dyn Connection,
    hospitals: &mut HashMap<String, Option<Hospital>>,
    rows: &[slot::Model],
) -> Result<(), DbErr> {
    let mut unknown: Vec<&str> = rows.iter().map(|row| row.hospital.as_str()).collect();
    unknown.retain(|segment| !hospitals.contains_key(*segment));
    unknown.sort_unstable();
    unknown.dedup();
    if unknown.is_empty() {
        return Ok(());
    }
    let mut known = known_hospitals(connection, unknown.iter().copied()).await?;
    for segment in unknown {
        let hospital = known.remove(&hospital_id(segment)?);
        hospitals.insert(segment.to_owned(), hospital);
    }
    Ok(())
}

fn in_window(hospital: &Hospital, date: &str, now: Timestamp) -> bool {
    let Some(date) = domain::ids::parse_date(date) else { return false };
    hospital.state() == HospitalState::Active && hospital.policy.window(date, &hospital.time_zone).contains(now)
}

/// A claim, and its position in the queue of its slot; 0 unless it waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimView {
    pub(crate) claim: Claim,
    pub(crate) position: i32,
}

pub(crate) async fn claim(connection: &dyn Connection, slot: &SlotId, id: ClaimId) -> Result<Option<ClaimView>, DbErr> {
    let row = claim::Entity::find_by_id((id.screening.0, id.generation)).fetch_one(connection).await?;
    match row.map(Claim::try_from).transpose()?.filter(|claim| claim.slot == *slot) {
        Some(claim) => claim_view(connection, claim).await.map(Some),
        None => Ok(None),
    }
}

/// Adds to a claim its position. Only a claim that waits needs a statement.
pub(crate) async fn claim_view(connection: &dyn Connection, claim: Claim) -> Result<ClaimView, DbErr> {
    let positions = claim::positions(connection, [&claim]).await?;
    Ok(ClaimView { position: positions.get(&claim.id).copied().unwrap_or(0), claim })
}

/// A page of the claims of one slot, or of every slot, in the order of claim ids.
pub(crate) async fn claims(
    connection: &dyn Connection,
    slot: Option<&SlotId>,
    filter: &[Comparison],
    page: &Page,
) -> Result<Rows<ClaimView>, DbErr> {
    use contract::capacity::v1::capacity_claim::State;
    let number = |_: &'static str, operand: &Operand| match operand {
        Operand::Text(name) => State::from_str_name(name).map(|state| Value::from(state as i32)),
        Operand::Date(_) | Operand::Time(_) | Operand::Number(_) => None,
    };
    let of_slot = slot.map(|slot| claim::Column::Slot.eq(slot_key(slot)));
    let select = claim::Entity::find().filter(Condition::all().add_option(of_slot)).filter(query::condition(
        filter,
        |_| claim::Column::State,
        number,
    ));
    let order = [(claim::Column::Screening, Direction::Ascending), (claim::Column::Generation, Direction::Ascending)];
    let rows = query::page(select, &order, page).fetch(connection).await?;
    let keys = |row: &claim::Model| vec![Key::Text(row.screening.to_string()), Key::Int(i64::from(row.generation))];
    let claims = query::split(rows, page, keys).try_map(Claim::try_from)?;
    let positions = claim::positions(connection, claims.iter()).await?;
    Ok(claims.map(|claim| ClaimView { position: positions.get(&claim.id).copied().unwrap_or(0), claim }))
}

pub(crate) async fn capacity_request(
    connection: &dyn Connection,
    id: &CapacityRequestId,
) -> Result<Option<CapacityRequest>, DbErr> {
    let row = capacity_request::Entity::find_by_id(id.uid).fetch_one(connection).await?;
    Ok(row.map(CapacityRequest::try_from).transpose()?.filter(|request| request.id == *id))
}

/// A page of a hospital's capacity requests, newest first.
pub(crate) async fn capacity_requests(
    connection: &dyn Connection,
    hospital: &HospitalId,
    filter: &[Comparison],
    page: &Page,
    now: Timestamp,
) -> Result<Rows<CapacityRequest>, DbErr> {
    let select = capacity_request::Entity::find()
        .filter(capacity_request::Column::Hospital.eq(hospital.segment()))
        .filter(filter.iter().fold(Condition::all(), |all, comparison| all.add(request_condition(comparison, now))));
    let order = [(capacity_request::Column::Uid, Direction::Descending)];
    let rows = query::page(select, &order, page).fetch(connection).await?;
    query::split(rows, page, |row| vec![Key::Text(row.uid.to_string())]).try_map(CapacityRequest::try_from)
}

/// The condition of one comparison. Whether a capacity request has expired depends on `now`.
fn request_condition(comparison: &Comparison, now: Timestamp) -> Condition {
    use capacity_request::Column;
    use contract::hospital::v1::capacity_request::State;
    let Operand::Text(text) = &comparison.value else { return Condition::all() };
    let equal = if comparison.field == "slot" {
        // The decoder has accepted only names of slots.
        Condition::all().add(Column::Slot.eq(SlotId::parse(text).map(|slot| slot_key(&slot)).unwrap_or_default()))
    } else {
        let pending = Column::State.eq(RequestState::Pending as i32);
        let expired = Column::ExpireTime.lte(store::micros(now));
        match State::from_str_name(text) {
            Some(State::Pending) => Condition::all().add(pending).add(expired.not()),
            Some(State::Expired) => Condition::all().add(pending).add(expired),
            state => Condition::all().add(Column::State.eq(state.unwrap_or_default() as i32)),
        }
    };
    if comparison.operator == Operator::NotEqual { equal.not() } else { equal }
}
