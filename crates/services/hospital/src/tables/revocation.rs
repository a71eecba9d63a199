//! The table of revocations under way, so that a restart continues them.

use std::collections::HashMap;

use contract::capacity::v1::capacity_claim::State;
use domain::capacity::{Claim, RevokeReason};
use domain::event::Cause;
use domain::ids::{ClaimId, HospitalId, ScreeningId, SlotId};
use jiff::civil::Date;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::{Expr, ExprTrait};
use sea_orm::{JoinType, QueryOrder, QuerySelect, Select};
use store::rows::NoRelation as Relation;

use super::{claim, corrupt, slot, slot_id, slot_key};
use store::{Connection, Fetch as _};

/// One revocation. The cursor is the last claim that was looked at. Claims before it are not looked at again, because
/// none becomes ACTIVE or WAITING once a revocation has begun.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "revocation")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub target: String,
    #[sea_orm(column_type = "Text")]
    pub message: String,
    pub revoked: i64,
    #[sea_orm(column_type = "Text")]
    pub cursor_slot: String,
    pub cursor_screening: Option<Uuid>,
    pub cursor_generation: Option<i32>,
    pub actor: String,
    pub request_id: String,
    pub traceparent: String,
}

impl ActiveModelBehavior for ActiveModel {}

/// The slots whose claims are revoked.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Target {
    /// Every slot of a deleted hospital.
    Hospital(HospitalId),
    /// A slot whose bookings are cancelled.
    Slot(SlotId),
}

impl Target {
    /// The reason that its claims are revoked with.
    pub(crate) fn reason(&self) -> RevokeReason {
        match self {
            Self::Hospital(_) => RevokeReason::HospitalDeleted,
            Self::Slot(_) => RevokeReason::SlotCancelled,
        }
    }

    /// The key of the hospital or of the slot. Only the key of a slot contains a slash.
    pub(crate) fn key(&self) -> String {
        match self {
            Self::Hospital(hospital) => hospital.segment().to_owned(),
            Self::Slot(slot) => slot_key(slot),
        }
    }

    fn from_key(key: &str) -> Result<Self, DbErr> {
        if key.contains('/') {
            return slot_id(key).map(Self::Slot);
        }
        HospitalId::from_segment(key).map(Self::Hospital).map_err(|_| corrupt("revocation of", key))
    }
}

/// A revocation under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Revocation {
    pub(crate) target: Target,
    /// The reason that the admin gave.
    pub(crate) message: String,
    /// How many claims are revoked so far.
    pub(crate) revoked: i64,
    /// The last claim that was looked at, in the order of slots and claim ids.
    pub(crate) cursor: Option<(SlotId, ClaimId)>,
    /// Who asked for it, and in which request and trace.
    pub(crate) cause: Cause,
}

impl From<&Revocation> for ActiveModel {
    fn from(revocation: &Revocation) -> Self {
        let cursor = revocation.cursor.as_ref();
        Self {
            target: Set(revocation.target.key()),
            message: Set(revocation.message.clone()),
            revoked: Set(revocation.revoked),
            cursor_slot: Set(cursor.map(|(slot, _)| slot_key(slot)).unwrap_or_default()),
            cursor_screening: Set(cursor.map(|(_, claim)| claim.screening.0)),
            cursor_generation: Set(cursor.map(|(_, claim)| claim.generation)),
            actor: Set(revocation.cause.actor.clone()),
            request_id: Set(revocation.cause.request_id.clone()),
            traceparent: Set(revocation.cause.traceparent.clone()),
        }
    }
}

impl TryFrom<Model> for Revocation {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let cursor = match (row.cursor_screening, row.cursor_generation) {
            (Some(screening), Some(generation)) => {
                Some((slot_id(&row.cursor_slot)?, ClaimId { screening: ScreeningId(screening), generation }))
            }
            _ => None,
        };
        Ok(Self {
            target: Target::from_key(&row.target)?,
            message: row.message,
            revoked: row.revoked,
            cursor,
            cause: Cause {
                actor: row.actor,
                request_id: row.request_id,
                causation_id: String::new(),
                traceparent: row.traceparent,
            },
        })
    }
}

/// The targets of at most `limit` revocations, in the order of their keys, after `after`.
pub(crate) async fn targets(
    connection: &dyn Connection,
    after: Option<&Target>,
    limit: u64,
) -> Result<Vec<Target>, DbErr> {
    let mut select = Entity::find().select_only().column(Column::Target).order_by_asc(Column::Target).limit(limit);
    if let Some(after) = after {
        select = select.filter(Column::Target.gt(after.key()));
    }
    let keys: Vec<String> = select.fetch_values(connection).await?;
    keys.iter().map(|key| Target::from_key(key)).collect()
}

/// How far the cancelling of a slot's bookings has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cancelling {
    /// How many of its claims are revoked so far.
    pub(crate) revoked: i64,
    /// How many are left.
    pub(crate) left: i64,
}

/// How many ACTIVE and WAITING claims a slot has.
fn held() -> Expr {
    Expr::col((slot::Entity, slot::Column::BookedCount)).add(Expr::col((slot::Entity, slot::Column::WaitlistedCount)))
}

/// Those of these slots whose bookings are being cancelled. Both numbers of a slot are of the same moment.
pub(crate) async fn cancelling<'a>(
    connection: &dyn Connection,
    slots: impl IntoIterator<Item = &'a SlotId>,
) -> Result<HashMap<SlotId, Cancelling>, DbErr> {
    let keys: Vec<String> = slots.into_iter().map(slot_key).collect();
    if keys.is_empty() {
        return Ok(HashMap::new());
    }
    let slot_of: RelationDef = Entity::belongs_to(slot::Entity).from(Column::Target).to(slot::Column::Id).into();
    let rows = Entity::find()
        .select_only()
        .columns([Column::Target, Column::Revoked])
        .column_as(held(), "held")
        .join(JoinType::InnerJoin, slot_of)
        .filter(Column::Target.is_in(keys));
    let rows: Vec<(String, i64, i32)> = rows.fetch_values(connection).await?;
    rows.into_iter()
        .map(|(key, revoked, left)| Ok((slot_id(&key)?, Cancelling { revoked, left: left.into() })))
        .collect()
}

/// A run of a target's slots that have claims, in the order of their dates.
#[derive(Debug)]
pub(crate) struct Stretch {
    pub(crate) slots: Vec<SlotId>,
    /// Whether no slot with claims follows these.
    pub(crate) last: bool,
}

/// The target's slots with ACTIVE or WAITING claims from `from` on, as many as are needed to cover `wanted` claims.
pub(crate) async fn stretch(
    connection: &dyn Connection,
    target: &Target,
    from: Option<Date>,
    wanted: usize,
) -> Result<Stretch, DbErr> {
    let slots = slot::Entity::find().select_only().column(slot::Column::Id).column_as(held(), "held");
    let slots = slots.filter(held().gt(0));
    let slots = match target {
        Target::Hospital(hospital) => slots.filter(slot::Column::Hospital.eq(hospital.segment())),
        Target::Slot(id) => slots.filter(slot::Column::Id.eq(slot_key(id))),
    };
    let slots = match from {
        Some(first) => slots.filter(slot::Column::Date.gte(first.to_string())),
        None => slots,
    };
    let found = slots.order_by_asc(slot::Column::Date).limit(wanted as u64);
    let found: Vec<(String, i32)> = found.fetch_values(connection).await?;
    let (mut slots, mut claims) = (Vec::new(), 0);
    for (key, count) in &found {
        if claims >= wanted {
            break;
        }
        slots.push(slot_id(key)?);
        claims += usize::try_from(*count).unwrap_or(0);
    }
    let last = slots.len() == found.len() && found.len() < wanted;
    Ok(Stretch { slots, last })
}

/// At most `limit` ACTIVE or WAITING claims of these slots after the cursor, in the order of slots and claim ids.
pub(crate) async fn candidates(
    connection: &dyn Connection,
    slots: &[SlotId],
    cursor: Option<&(SlotId, ClaimId)>,
    limit: usize,
) -> Result<Vec<Claim>, DbErr> {
    let mut found = Vec::new();
    let behind = cursor.map(|(slot, _)| slot);
    if let Some((slot, last)) = cursor {
        let after = Expr::tuple([Expr::val(last.screening.0), Expr::val(last.generation)]);
        let position = Expr::tuple([Expr::col(claim::Column::Screening), Expr::col(claim::Column::Generation)]);
        let rest = held_by(vec![slot_key(slot)], limit).filter(position.gt(after));
        found = rest.fetch(connection).await?;
    }
    let next: Vec<String> = slots.iter().filter(|slot| Some(*slot) != behind).map(slot_key).collect();
    if found.len() < limit && !next.is_empty() {
        found.extend(held_by(next, limit - found.len()).fetch(connection).await?);
    }
    found.into_iter().map(Claim::try_from).collect()
}

fn held_by(slots: Vec<String>, limit: usize) -> Select<claim::Entity> {
    claim::Entity::find()
        .filter(claim::Column::Slot.is_in(slots))
        .filter(claim::Column::State.is_in([State::Active as i32, State::Waiting as i32]))
        .order_by_asc(claim::Column::Slot)
        .order_by_asc(claim::Column::Screening)
        .order_by_asc(claim::Column::Generation)
        .limit(limit as u64)
}
