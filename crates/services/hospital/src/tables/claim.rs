//! The table of claims.

use std::collections::{BTreeSet, HashMap};

use contract::capacity::v1::capacity_claim::State;
use domain::capacity::{Claim, ClaimState, RevokeReason, Ticket};
use domain::ids::{ClaimId, ScreeningId, SlotId};
use jiff::Timestamp;
use sea_orm::ActiveValue::{Set, Unchanged};
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};
use store::rows::{NoRelation as Relation, among};
use store::{Connection, Fetch as _, micros, timestamp};

use super::{corrupt, slot_id, slot_key};

/// One claim. Its id is the pair of screening and generation.
#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "claim")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub screening: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub generation: i32,
    pub slot: String,
    pub state: i32,
    /// Set while the claim waits, as is the time.
    pub waitlist_ticket: Option<i64>,
    pub promotion_close_time: Option<i64>,
    pub revoke_reason: i32,
    pub slot_version: i64,
    pub version: i64,
    pub update_time: i64,
}

impl ActiveModelBehavior for ActiveModel {}

impl From<&Claim> for ActiveModel {
    fn from(claim: &Claim) -> Self {
        let (ticket, revoke_reason) = match claim.state {
            ClaimState::Active | ClaimState::Released => (None, 0),
            ClaimState::Waiting(ticket) => (Some(ticket), 0),
            ClaimState::Revoked(reason) => (None, reason as i32),
        };
        Self {
            screening: Set(claim.id.screening.0),
            generation: Set(claim.id.generation),
            // the slot of a claim never changes; unchanged columns leave their indexes alone
            slot: Unchanged(slot_key(&claim.slot)),
            state: Set(claim.state.message() as i32),
            waitlist_ticket: Set(ticket.map(|ticket| ticket.number)),
            promotion_close_time: Set(ticket.map(|ticket| micros(ticket.closes_at))),
            revoke_reason: Set(revoke_reason),
            slot_version: Set(claim.slot_version),
            version: Set(claim.version),
            update_time: Set(micros(claim.update_time)),
        }
    }
}

/// The first claims of a slot's queue that still may get a place at `now`, at most `limit`.
pub(crate) async fn queue(
    connection: &dyn Connection,
    slot: &SlotId,
    now: Timestamp,
    limit: u64,
) -> Result<Vec<Claim>, DbErr> {
    let waiting = Entity::find()
        .filter(Column::Slot.eq(slot_key(slot)))
        .filter(Column::State.eq(State::Waiting as i32))
        .filter(Column::PromotionCloseTime.gt(micros(now)))
        .order_by_asc(Column::WaitlistTicket)
        .limit(limit);
    waiting.fetch(connection).await?.into_iter().map(Claim::try_from).collect()
}

/// How many claims of the same slot wait with a smaller ticket than each of these, and itself. Claims that do not wait
/// are left out.
pub(crate) async fn positions(
    connection: &dyn Connection,
    claims: impl IntoIterator<Item = &Claim>,
) -> Result<HashMap<ClaimId, i32>, DbErr> {
    let ticket = |claim: &Claim| match claim.state {
        ClaimState::Waiting(ticket) => Some((claim.id, slot_key(&claim.slot), ticket.number)),
        ClaimState::Active | ClaimState::Released | ClaimState::Revoked(_) => None,
    };
    let waiting: Vec<(ClaimId, String, i64)> = claims.into_iter().filter_map(ticket).collect();
    if waiting.is_empty() {
        return Ok(HashMap::new());
    }
    let slots: BTreeSet<String> = waiting.iter().map(|(_, slot, _)| slot.clone()).collect();
    let tickets = Entity::find()
        .select_only()
        .columns([Column::Slot, Column::WaitlistTicket])
        .filter(among(connection, Column::Slot, slots))
        .filter(Column::State.eq(State::Waiting as i32))
        .order_by_asc(Column::Slot)
        .order_by_asc(Column::WaitlistTicket);
    let tickets: Vec<(String, i64)> = tickets.fetch_values(connection).await?;
    let mut queues: HashMap<String, Vec<i64>> = HashMap::new();
    tickets.into_iter().for_each(|(slot, ticket)| queues.entry(slot).or_default().push(ticket));
    let position = |(id, slot, ticket): (ClaimId, String, i64)| {
        let before = queues.get(&slot).map_or(0, |queue| queue.partition_point(|other| *other < ticket));
        (id, i32::try_from(before).unwrap_or(i32::MAX).saturating_add(1))
    };
    Ok(waiting.into_iter().map(position).collect())
}

impl TryFrom<Model> for Claim {
    type Error = DbErr;

    fn try_from(row: Model) -> Result<Self, DbErr> {
        let reason = || RevokeReason::from_number(row.revoke_reason);
        let ticket = || {
            let (number, closes_at) = row.waitlist_ticket.zip(row.promotion_close_time)?;
            Some(Ticket { number, closes_at: timestamp(closes_at) })
        };
        let state = match State::try_from(row.state) {
            Ok(State::Active) => Some(ClaimState::Active),
            Ok(State::Waiting) => ticket().map(ClaimState::Waiting),
            Ok(State::Released) => Some(ClaimState::Released),
            Ok(State::Revoked) => reason().map(ClaimState::Revoked),
            Ok(State::Unspecified) | Err(_) => None,
        };
        Ok(Self {
            id: ClaimId { screening: ScreeningId(row.screening), generation: row.generation },
            slot: slot_id(&row.slot)?,
            state: state.ok_or_else(|| corrupt("claim state", row.state))?,
            slot_version: row.slot_version,
            version: row.version,
            update_time: timestamp(row.update_time),
        })
    }
}
