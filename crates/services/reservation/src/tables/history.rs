//! The history of reservations: one entry per change.
//!
//! Most reservations never change. So the entry of the version that began one is part of the reservation's row, if it
//! is a plain registration, and only what else happens has a row of its own.

use std::collections::{BTreeMap, BTreeSet};

use domain::ids::ScreeningId;
use domain::page::{Key, Page, Rows};
use domain::reservation::{Entry, Reservation, State};
use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{QueryOrder, QuerySelect};
use store::query::{self, Direction};
use store::rows::NoRelation as Relation;
use store::rows::{among, insert_missing};
use store::{Connection, Fetch as _};
use store::{micros, timestamp};

use super::{corrupt, reservation};

/// One row per change, except the registration that the reservation's row has.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "history")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub screening: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub version: i64,
    pub state: i32,
    pub reason: String,
    pub message: String,
    pub actor: String,
    pub event_id: Uuid,
    pub occur_time: i64,
    /// NULL if the change had no request_id, or if an older version of the service applied it.
    pub request_id: Option<Uuid>,
}

impl ActiveModelBehavior for ActiveModel {}

impl TryFrom<Model> for Entry {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        Ok(Self {
            screening: ScreeningId(row.screening),
            version: row.version,
            state: State::from_number(row.state).ok_or_else(|| corrupt("state", row.state))?,
            reason: row.reason,
            message: row.message,
            actor: row.actor,
            event_id: row.event_id,
            occur_time: timestamp(row.occur_time),
            request_id: row.request_id,
        })
    }
}

impl From<Entry> for ActiveModel {
    fn from(entry: Entry) -> Self {
        Self {
            screening: Set(entry.screening.0),
            version: Set(entry.version),
            state: Set(entry.state.number()),
            reason: Set(entry.reason),
            message: Set(entry.message),
            actor: Set(entry.actor),
            event_id: Set(entry.event_id),
            occur_time: Set(micros(entry.occur_time)),
            request_id: Set(entry.request_id),
        }
    }
}

/// Whether the columns of a reservation's row can say all of an entry.
fn is_plain(entry: &Entry) -> bool {
    entry.state == State::Registered && entry.reason.is_empty() && entry.message.is_empty()
}

impl reservation::ActiveModel {
    /// The row of a reservation that begins, with its plain registration, if it begins with one.
    pub(super) fn with_registration(self, entry: Option<Entry>) -> Self {
        let (version, time) = (entry.as_ref().map(|entry| entry.version), entry.as_ref().map(|entry| entry.occur_time));
        let (event_id, request_id) =
            (entry.as_ref().map(|entry| entry.event_id), entry.as_ref().and_then(|entry| entry.request_id));
        Self {
            registered_version: Set(version),
            registered_actor: Set(entry.map(|entry| entry.actor)),
            registered_event_id: Set(event_id),
            registered_time: Set(time.map(micros)),
            registered_request_id: Set(request_id),
            ..self
        }
    }
}

/// The entry that is part of a reservation's row.
fn registration(row: &reservation::Model) -> Option<Entry> {
    Some(Entry {
        screening: ScreeningId(row.screening),
        version: row.registered_version?,
        state: State::Registered,
        reason: String::new(),
        message: String::new(),
        actor: row.registered_actor.clone()?,
        event_id: row.registered_event_id?,
        occur_time: timestamp(row.registered_time?),
        request_id: row.registered_request_id,
    })
}

/// Divides new entries: for each reservation that begins the first one, if it is plain; and all others, except those of
/// versions that a reservation's row has already.
pub(super) fn registrations(
    begun: &BTreeSet<ScreeningId>,
    registered: &BTreeMap<ScreeningId, i64>,
    entries: Vec<Entry>,
) -> (BTreeMap<ScreeningId, Entry>, Vec<Entry>) {
    let (mut plain, mut rest): (BTreeMap<ScreeningId, Entry>, Vec<Entry>) = (BTreeMap::new(), Vec::new());
    for entry in entries {
        let id = entry.screening;
        let known = registered.get(&id).copied().or_else(|| plain.get(&id).map(|entry| entry.version));
        match known {
            Some(version) if version == entry.version => {}
            None if begun.contains(&id) && is_plain(&entry) => {
                plain.insert(id, entry);
            }
            _ => rest.push(entry),
        }
    }
    (plain, rest)
}

/// Inserts entries. If a version has an entry already, that one stays.
pub(super) async fn save(transaction: &dyn Connection, entries: Vec<Entry>) -> Result<(), DbErr> {
    insert_missing(transaction, entries.into_iter().map(ActiveModel::from).collect()).await
}

/// A page of the history of the reservation in this row, oldest first. A version that an earlier binary wrote once more
/// counts once.
pub(crate) async fn list(
    connection: &dyn Connection,
    of: &reservation::Model,
    asked: &Page,
) -> Result<Rows<Entry>, DbErr> {
    let select = Entity::find().filter(Column::Screening.eq(of.screening));
    let rows = query::page(select, &[(Column::Version, Direction::Ascending)], asked).fetch(connection).await?;
    let after = match asked.after.as_deref() {
        Some([Key::Int(version)]) => *version,
        _ => 0,
    };
    let registration = registration(of).filter(|entry| entry.version > after);
    let mut entries = rows.into_iter().map(Entry::try_from).collect::<Result<Vec<_>, _>>()?;
    entries.extend(registration);
    entries.sort_by_key(|entry| entry.version);
    entries.dedup_by_key(|entry| entry.version);
    Ok(query::split(entries, asked, |entry| vec![Key::Int(entry.version)]))
}

/// Those entries of these reservations that have rows of their own: all that have a reason or a message.
pub(crate) async fn with_rows(connection: &dyn Connection, reservations: &[Reservation]) -> Result<Vec<Entry>, DbErr> {
    let ids = among(connection, Column::Screening, reservations.iter().map(|row| row.screening.0));
    let rows = Entity::find().filter(ids).fetch(connection).await?;
    rows.into_iter().map(Entry::try_from).collect()
}

/// At most `limit` entries of changes at or after `since`, in the order of screening ids and versions, after `after`.
pub(crate) async fn since(
    connection: &dyn Connection,
    since: Timestamp,
    after: Option<(ScreeningId, i64)>,
    limit: u64,
) -> Result<Vec<Entry>, DbErr> {
    fn beyond<C: ColumnTrait>(key: [C; 2], after: Option<(ScreeningId, i64)>) -> Option<Expr> {
        let key = Expr::tuple(key.map(Expr::col));
        after.map(|(screening, version)| key.gt(Expr::tuple([Expr::val(screening.0), Expr::val(version)])))
    }
    let mut changes = Entity::find().filter(Column::OccurTime.gte(micros(since)));
    if let Some(beyond) = beyond([Column::Screening, Column::Version], after) {
        changes = changes.filter(beyond);
    }
    let changes = changes.order_by_asc(Column::Screening).order_by_asc(Column::Version).limit(limit);
    let changes = changes.fetch(connection).await?;
    let mut registered = reservation::Entity::find().filter(reservation::Column::RegisteredTime.gte(micros(since)));
    if let Some(beyond) = beyond([reservation::Column::Screening, reservation::Column::RegisteredVersion], after) {
        registered = registered.filter(beyond);
    }
    let registered = registered.order_by_asc(reservation::Column::Screening).limit(limit).fetch(connection).await?;
    let mut entries = changes.into_iter().map(Entry::try_from).collect::<Result<Vec<_>, _>>()?;
    entries.extend(registered.iter().filter_map(registration));
    entries.sort_by_key(|entry| (entry.screening, entry.version));
    entries.dedup_by_key(|entry| (entry.screening, entry.version));
    entries.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    Ok(entries)
}
