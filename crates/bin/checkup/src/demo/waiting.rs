//! The fifteenth row: two wait for a place, one of them leaves, and the other one gets the place that becomes free.

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use contract::screening::v1::screening::State as ScreeningState;
use fault::Reason;
use jiff::ToSpan;
use runtime::entropy;
use tonic::{Response, Status};

use super::rows::{Play, book, create_hospital, create_screening, delete_hospital, get_slot, short, stands};
use super::stage::{Stage, Stop, expect};
use crate::party::Party;

impl Play {
    /// A customer and a walk-in, whom an admin enters, wait for the only place. The walk-in leaves the queue. When the
    /// place is given back, it passes to the customer and is never free. In any case the hospital is deleted again.
    pub(super) async fn customers_wait(&self, stage: &mut Stage) -> Result<(), Stop> {
        let other =
            self.other.clone().ok_or_else(|| Stop::Skipped("there is no token of a second customer".to_owned()))?;
        let (admin, customer) = (self.admin()?, self.customer()?);
        let id = format!("demo-{}-d", self.run);
        // The bookings of the rows before are on earlier dates, and may not have ended yet.
        let date = self.date + 4.days();
        let shown = |made: &hospital::Hospital| format!("{} with 1 place", made.name);
        let dates = [date];
        let created = create_hospital(&admin, &id, &dates, 1);
        let name = stage.call("HospitalService.CreateHospital", created, shown).await?.name;
        let slot = format!("{name}/slots/{date}");
        let played = async {
            let held = create_screening(stage, &other, &slot).await?;
            stage.refused("ScreeningService.CreateScreening", book(&customer, &slot), Reason::SlotFull).await?;
            let first = join(stage, &customer, &customer.customer(), &slot, 1).await?;
            let walk_in = join(stage, &admin, &format!("customers/walk-in-{}", self.run), &slot, 2).await?;
            two_wait(stage, &customer, &slot).await?;
            cancel(stage, &admin, &walk_in.name).await?;
            cancel(stage, &other, &held.name).await?;
            first_is_promoted(stage, &customer, &first).await?;
            nobody_waits(stage, &customer, &slot).await
        };
        let outcome = played.await;
        // Its result does not count: the next run creates a hospital of its own.
        let _ = delete_hospital(&admin, &name, true).await;
        outcome
    }
}

/// The state and the position in the queue, for the table.
fn waits(row: &screening::Screening) -> String {
    format!("{}, {}, number {}", short(&row.name), stands(row), row.waitlist_position)
}

/// How many wait and how many places are left, for the table.
fn queue(slot: &hospital::Slot) -> String {
    format!("{} left, {} waiting", slot.remaining_count, slot.waitlisted_count)
}

async fn booking(caller: &Party, customer: &str, slot: &str) -> Result<Response<screening::Screening>, Status> {
    let wanted = screening::Screening { customer: customer.to_owned(), slot: slot.to_owned(), ..Default::default() };
    let request = caller.request(screening::CreateScreeningRequest {
        screening: Some(wanted),
        request_id: entropy::uuid_v4().to_string(),
        join_waitlist: true,
        ..Default::default()
    });
    caller.screening().create_screening(request).await
}

async fn join(
    stage: &mut Stage,
    caller: &Party,
    customer: &str,
    slot: &str,
    position: i32,
) -> Result<screening::Screening, Stop> {
    let call = booking(caller, customer, slot);
    let joined = stage.call("ScreeningService.CreateScreening", call, waits).await?;
    let waits = joined.state() == ScreeningState::Waitlisted && joined.waitlist_position == position;
    expect(waits, || format!("the screening was to be WAITLISTED as number {position}"))?;
    Ok(joined)
}

async fn two_wait(stage: &mut Stage, customer: &Party, slot: &str) -> Result<(), Stop> {
    let request = customer.request(hospital::GetSlotRequest { name: slot.to_owned() });
    let call = async { customer.hospital().get_slot(request).await };
    let slot = stage.call("HospitalService.GetSlot", call, queue).await?;
    expect((slot.remaining_count, slot.waitlisted_count) == (0, 2), || "two were to wait".to_owned())
}

async fn cancel(stage: &mut Stage, caller: &Party, name: &str) -> Result<(), Stop> {
    let request = caller.request(screening::CancelScreeningRequest {
        name: name.to_owned(),
        request_id: entropy::uuid_v4().to_string(),
        ..Default::default()
    });
    let call = async { caller.screening().cancel_screening(request).await };
    let cancelled = stage.call("ScreeningService.CancelScreening", call, stands).await?;
    expect(cancelled.state() == ScreeningState::Cancelled, || "the screening was to be CANCELLED".to_owned())
}

async fn first_is_promoted(stage: &mut Stage, customer: &Party, first: &screening::Screening) -> Result<(), Stop> {
    let read = async || {
        let request = customer.request(screening::GetScreeningRequest { name: first.name.clone() });
        customer.screening().get_screening(request).await
    };
    let confirmed = |row: &screening::Screening| (row.state() == ScreeningState::Confirmed).then(|| stands(row));
    stage.until("ScreeningService.GetScreening", read, confirmed).await.map(drop)
}

/// The ticket of who left comes back by an event, so it may still be there when the place has passed on.
async fn nobody_waits(stage: &mut Stage, customer: &Party, slot: &str) -> Result<(), Stop> {
    expect(get_slot(stage, customer, slot).await?.remaining_count == 0, || "no place was to be free".to_owned())?;
    let read = async || {
        let request = customer.request(hospital::GetSlotRequest { name: slot.to_owned() });
        customer.hospital().get_slot(request).await
    };
    let empty = |slot: &hospital::Slot| (slot.waitlisted_count == 0).then(|| queue(slot));
    stage.until("HospitalService.GetSlot", read, empty).await.map(drop)
}
