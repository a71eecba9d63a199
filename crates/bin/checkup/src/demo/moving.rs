//! The fourteenth row: a customer moves a booking to another date.

use contract::hospital::v1 as hospital;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::reservation::v1::reservation::State as ReservationState;
use contract::screening::v1 as screening;
use contract::screening::v1::screening::State as ScreeningState;
use domain::civil::encode_date;
use jiff::ToSpan;
use jiff::civil::Date;
use runtime::entropy;

use super::rows::{
    Play, create_hospital, create_screening, delete_hospital, get_slot, places, reservation_name, stands,
};
use super::stage::{Stage, Stop, expect};
use crate::party::Party;

/// The capacity of both slots.
const PLACES: i32 = 2;

impl Play {
    /// The new place is taken at once. The old one comes back by an event, and by the same event the ledger and the
    /// page show the new date. In any case the hospital is deleted again.
    pub(super) async fn customer_moves(&self, stage: &mut Stage) -> Result<(), Stop> {
        let (admin, customer) = (self.admin()?, self.customer()?);
        let id = format!("demo-{}-c", self.run);
        // The bookings of the rows before are on earlier dates, and may not have ended yet.
        let dates = [self.date + 2.days(), self.date + 3.days()];
        let shown = |made: &hospital::Hospital| format!("{}, {} dates of {PLACES}", made.name, dates.len());
        let created = create_hospital(&admin, &id, &dates, PLACES);
        let name = stage.call("HospitalService.CreateHospital", created, shown).await?.name;
        let [from, to] = dates.map(|date| format!("{name}/slots/{date}"));
        let played = async {
            let booked = create_screening(stage, &customer, &from).await?;
            reschedule(stage, &customer, &booked, &to).await?;
            let taken = get_slot(stage, &customer, &to).await?;
            expect(taken.remaining_count == PLACES - 1, || "the new slot was to have one place less".to_owned())?;
            place_is_back(stage, &customer, &from).await?;
            ledger_follows(stage, &customer, &booked.name, &to).await?;
            page_follows(stage, &customer, &booked.name, dates[1]).await
        };
        let outcome = played.await;
        // Its result does not count: the next run creates a hospital of its own.
        let _ = delete_hospital(&admin, &name, true).await;
        outcome
    }
}

/// Moves the booking. A move is two versions of it.
async fn reschedule(stage: &mut Stage, customer: &Party, booked: &screening::Screening, to: &str) -> Result<(), Stop> {
    let request = customer.request(screening::RescheduleScreeningRequest {
        name: booked.name.clone(),
        slot: to.to_owned(),
        reason: "a trip".to_owned(),
        request_id: entropy::uuid_v4().to_string(),
        ..Default::default()
    });
    let call = async { customer.screening().reschedule_screening(request).await };
    let moved = stage.call("ScreeningService.RescheduleScreening", call, stands).await?;
    let is_there = moved.slot == to && moved.state() == ScreeningState::Confirmed;
    expect(is_there && moved.version == booked.version + 2, || {
        "the screening was to be CONFIRMED on the new slot, in the version after the next".to_owned()
    })
}

async fn place_is_back(stage: &mut Stage, customer: &Party, from: &str) -> Result<(), Stop> {
    let read = async || {
        let request = customer.request(hospital::GetSlotRequest { name: from.to_owned() });
        customer.hospital().get_slot(request).await
    };
    let free = |slot: &hospital::Slot| (slot.remaining_count == PLACES).then(|| places(slot));
    stage.until("HospitalService.GetSlot", read, free).await.map(drop)
}

async fn ledger_follows(stage: &mut Stage, customer: &Party, booked: &str, to: &str) -> Result<(), Stop> {
    let name = reservation_name(booked)?;
    let read = async || {
        let request = reservation::GetReservationRequest { name: name.clone(), ..Default::default() };
        customer.reservation().get_reservation(customer.request(request)).await
    };
    let moved = |row: &reservation::Reservation| {
        let state = row.state();
        (row.slot == to && state == ReservationState::Registered).then(|| format!("{} on {to}", state.as_str_name()))
    };
    stage.until("ReservationService.GetReservation", read, moved).await.map(drop)
}

async fn page_follows(stage: &mut Stage, customer: &Party, booked: &str, date: Date) -> Result<(), Stop> {
    let read = async || {
        let parent = format!("{}/myPage", customer.customer());
        let request = mypage::ListMyPageItemsRequest { parent, ..Default::default() };
        customer.my_page().list_my_page_items(customer.request(request)).await
    };
    let moved = |page: &mypage::ListMyPageItemsResponse| {
        let item = page.items.iter().find(|item| item.screening == booked)?;
        (item.date == Some(encode_date(date))).then(|| format!("{} on {date}", item.state))
    };
    stage.until("MyPageService.ListMyPageItems", read, moved).await.map(drop)
}
