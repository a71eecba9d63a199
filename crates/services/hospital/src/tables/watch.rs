//! What streams of availability read: the slots there are, part by part, and those that changed.

use domain::capacity::Slot;
use domain::ids::{HospitalId, SlotId};
use domain::page::{Page, Rows};
use sea_orm::entity::prelude::*;
use store::query::{self, Direction};
use store::rows::among;
use store::{Connection, Fetch as _};

use super::read::{Dates, SlotView, cancelling, position};
use super::{slot, slot_key};

/// The most changed slots that one statement reads.
const SLOTS_PER_READ: usize = 1_024;

/// A page of the slots of these hospitals, in every state, in the order of date and hospital.
pub(crate) async fn slots(
    connection: &dyn Connection,
    hospitals: &[HospitalId],
    dates: Dates,
    page: &Page,
) -> Result<Rows<SlotView>, DbErr> {
    let select = slot::Entity::find()
        .filter(among(connection, slot::Column::Hospital, hospitals.iter().map(HospitalId::segment)))
        .filter(dates.condition());
    let order = [(slot::Column::Date, Direction::Ascending), (slot::Column::Hospital, Direction::Ascending)];
    let rows = query::page(select, &order, page).fetch(connection).await?;
    let slots = query::split(rows, page, position).try_map(Slot::try_from)?;
    let cancelling = cancelling(connection, slots.iter()).await?;
    Ok(slots.map(|slot| SlotView { cancelling: cancelling.get(&slot.id).copied(), slot }))
}

/// These slots, and every slot of these hospitals, on these dates. One that is named twice may come twice.
pub(crate) async fn changed(
    connection: &dyn Connection,
    slots: impl Iterator<Item = &SlotId>,
    hospitals: impl Iterator<Item = &HospitalId>,
    dates: Dates,
) -> Result<Vec<SlotView>, DbErr> {
    let mut rows = Vec::new();
    let keys: Vec<String> = slots.filter(|slot| dates.contains(slot.date)).map(slot_key).collect();
    for some in keys.chunks(SLOTS_PER_READ) {
        let these = among(connection, slot::Column::Id, some.iter().map(String::as_str));
        rows.extend(slot::Entity::find().filter(these).fetch(connection).await?);
    }
    for hospital in hospitals {
        let all = slot::Entity::find().filter(slot::Column::Hospital.eq(hospital.segment()));
        rows.extend(all.filter(dates.condition()).fetch(connection).await?);
    }
    let slots: Vec<Slot> = rows.into_iter().map(Slot::try_from).collect::<Result<_, DbErr>>()?;
    let cancelling = cancelling(connection, slots.iter()).await?;
    Ok(slots.into_iter().map(|slot| SlotView { cancelling: cancelling.get(&slot.id).copied(), slot }).collect())
}
