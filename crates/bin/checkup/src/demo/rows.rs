//! The fifteen rows: their calls, and the answers that the contract requires.

use contract::hospital::v1 as hospital;
use contract::hospital::v1::hospital::State as HospitalState;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::reservation::v1::reservation::State as ReservationState;
use contract::screening::v1 as screening;
use contract::screening::v1::screening::State as ScreeningState;
use domain::civil::encode_date;
use domain::ids::ScreeningId;
use fault::Reason;
use jiff::ToSpan;
use jiff::civil::Date;
use runtime::clock::Clock;
use runtime::entropy;
use tonic::{Response, Status};

use super::stage::{Call, Stage, Stop, expect};
use crate::party::{Party, Target, Wallet};

/// The capacity of the slot of the first twelve rows.
const PLACES: i32 = 10;
/// The admin's reason for deleting the hospital. Every affected customer must be able to read it.
const FAREWELL: &str = "the clinic moves; please book elsewhere";

/// The requirements in the words of the scenario, in the order of the rows.
const REQUIREMENTS: [&str; 15] = [
    "an admin registers a hospital with dates",
    "a customer requests a screening",
    "the places of that date go down",
    "the screening is confirmed",
    "Reservation registers it",
    "the customer cancels",
    "the places go back up",
    "Reservation shows it cancelled",
    "an admin deletes the hospital",
    "its bookings change",
    "Reservation shows them force-cancelled",
    "a customer looks at bookings and history",
    "marketing joins and asks for more places",
    "a customer moves a booking to another date",
    "who finds no place waits for the next one",
];

/// The result of a row.
#[derive(Debug, Clone)]
pub(super) enum Outcome {
    Ok,
    Failed(String),
    Skipped(String),
}

#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) number: usize,
    pub(super) requirement: &'static str,
    pub(super) calls: Vec<Call>,
    pub(super) outcome: Outcome,
}

/// The callers, and what the rows so far have made.
#[derive(Debug)]
pub(super) struct Play {
    pub(super) run: String,
    pub(super) date: Date,
    pub(super) admin: Option<Party>,
    pub(super) customer: Option<Party>,
    pub(super) other: Option<Party>,
    pub(super) marketing: Option<Party>,
    hospital: Option<String>,
    cancelled: Option<screening::Screening>,
    revoked: Option<screening::Screening>,
}

impl Play {
    /// Prepares a run. It has a hospital of its own, and a date that other runs are unlikely to use.
    pub(super) fn new(target: &Target, wallet: &Wallet) -> Self {
        let seed: [u8; 5] = entropy::bytes();
        let run: String = seed[..4].iter().map(|byte| format!("{byte:02x}")).collect();
        let date = Clock::system().now().to_zoned(jiff::tz::TimeZone::UTC).date() + (30 + i64::from(seed[4])).days();
        Self {
            date,
            admin: wallet.admin(target),
            customer: wallet.customer(target, 0, &format!("kim-{run}")),
            other: wallet.customer(target, 1, &format!("lee-{run}")),
            marketing: wallet.service(target, "marketing"),
            run,
            hospital: None,
            cancelled: None,
            revoked: None,
        }
    }

    /// Plays every row. A row that fails does not prevent the next ones.
    pub(super) async fn run(mut self) -> Vec<Row> {
        let mut rows = Vec::new();
        for (number, requirement) in (1..).zip(REQUIREMENTS) {
            let mut stage = Stage::default();
            let outcome = match self.row(number, &mut stage).await {
                Ok(()) => Outcome::Ok,
                Err(Stop::Wrong(problem)) => Outcome::Failed(problem),
                Err(Stop::Skipped(why)) => Outcome::Skipped(why),
            };
            rows.push(Row { number, requirement, calls: stage.calls, outcome });
        }
        rows
    }

    async fn row(&mut self, number: usize, stage: &mut Stage) -> Result<(), Stop> {
        match number {
            1 => self.admin_registers(stage).await,
            2 => self.customer_requests(stage).await,
            3 => self.places_are(stage, PLACES - 1).await,
            4 => self.screening_is_confirmed(stage).await,
            5 => self.reservation_shows(stage, ReservationState::Registered, self.cancelled.clone()).await,
            6 => self.customer_cancels(stage).await,
            7 => self.places_are(stage, PLACES).await,
            8 => self.reservation_shows(stage, ReservationState::Cancelled, self.cancelled.clone()).await,
            9 => self.admin_deletes(stage).await,
            10 => self.booking_is_revoked(stage).await,
            11 => self.reservation_shows(stage, ReservationState::ForceCancelled, self.revoked.clone()).await,
            12 => self.customer_looks(stage).await,
            13 => self.marketing_asks(stage).await,
            14 => self.customer_moves(stage).await,
            _ => self.customers_wait(stage).await,
        }
    }

    pub(super) fn admin(&self) -> Result<Party, Stop> {
        self.admin.clone().ok_or_else(|| Stop::Skipped("there is no admin's token".to_owned()))
    }

    pub(super) fn customer(&self) -> Result<Party, Stop> {
        self.customer.clone().ok_or_else(|| Stop::Skipped("there is no customer's token".to_owned()))
    }

    fn slot(&self) -> Result<String, Stop> {
        let hospital = made(&self.hospital, "hospital")?;
        Ok(format!("{hospital}/slots/{}", self.date))
    }

    async fn admin_registers(&mut self, stage: &mut Stage) -> Result<(), Stop> {
        let admin = self.admin()?;
        let id = format!("demo-{}", self.run);
        let dates = [self.date, self.date + 1.day()];
        let made = stage.call("HospitalService.CreateHospital", create_hospital(&admin, &id, &dates, PLACES), |made| {
            format!("{} {}, {} dates of {PLACES}", made.name, made.state().as_str_name(), dates.len())
        });
        self.hospital = Some(made.await?.name);
        let slot = get_slot(stage, &admin, &self.slot()?).await?;
        expect(slot.capacity == PLACES && slot.booked_count == 0, || {
            format!("the slot was to have {PLACES} free places")
        })
    }

    async fn customer_requests(&mut self, stage: &mut Stage) -> Result<(), Stop> {
        self.cancelled = Some(create_screening(stage, &self.customer()?, &self.slot()?).await?);
        Ok(())
    }

    /// Checks how many places the slot has left. A booking takes one at once; a cancellation gives it back by an event.
    async fn places_are(&self, stage: &mut Stage, remaining: i32) -> Result<(), Stop> {
        let (customer, name) = (self.customer()?, self.slot()?);
        made(&self.cancelled, "screening")?;
        if remaining < PLACES {
            let slot = get_slot(stage, &customer, &name).await?;
            return expect(slot.remaining_count == remaining, || format!("{remaining} places were to be left at once"));
        }
        let read = async || {
            let request = customer.request(hospital::GetSlotRequest { name: name.clone() });
            customer.hospital().get_slot(request).await
        };
        let shown = |slot: &hospital::Slot| (slot.remaining_count == remaining).then(|| places(slot));
        stage.until("HospitalService.GetSlot", read, shown).await.map(drop)
    }

    async fn screening_is_confirmed(&self, stage: &mut Stage) -> Result<(), Stop> {
        let (customer, booked) = (self.customer()?, made(&self.cancelled, "screening")?);
        expect(booked.state() == ScreeningState::Confirmed, || "the answer of row 2 was to be CONFIRMED".to_owned())?;
        let request = customer.request(screening::GetScreeningRequest { name: booked.name.clone() });
        let call = async move { customer.screening().get_screening(request).await };
        let read = stage.call("ScreeningService.GetScreening", call, stands).await?;
        expect(read.state() == ScreeningState::Confirmed && read.version == booked.version, || {
            "the screening was to read as it was answered".to_owned()
        })
    }

    async fn reservation_shows(
        &self,
        stage: &mut Stage,
        state: ReservationState,
        of: Option<screening::Screening>,
    ) -> Result<(), Stop> {
        let (customer, of) = (self.customer()?, made(&of, "screening")?);
        let name = reservation_name(&of.name)?;
        let read = async || {
            let min_consistency_token = String::new();
            let request = reservation::GetReservationRequest { name: name.clone(), min_consistency_token };
            customer.reservation().get_reservation(customer.request(request)).await
        };
        let shown = |row: &reservation::Reservation| (row.state() == state).then(|| state.as_str_name().to_owned());
        stage.until("ReservationService.GetReservation", read, shown).await.map(drop)
    }

    async fn customer_cancels(&mut self, stage: &mut Stage) -> Result<(), Stop> {
        let (customer, booked) = (self.customer()?, made(&self.cancelled, "screening")?);
        let request = customer.request(screening::CancelScreeningRequest {
            name: booked.name,
            reason: "a cold".to_owned(),
            request_id: entropy::uuid_v4().to_string(),
            ..Default::default()
        });
        let call = async move { customer.screening().cancel_screening(request).await };
        let cancelled = stage.call("ScreeningService.CancelScreening", call, stands).await?;
        expect(cancelled.state() == ScreeningState::Cancelled, || "the screening was to be CANCELLED".to_owned())?;
        self.cancelled = Some(cancelled);
        Ok(())
    }

    async fn admin_deletes(&mut self, stage: &mut Stage) -> Result<(), Stop> {
        let (admin, customer, name) = (self.admin()?, self.customer()?, made(&self.hospital, "hospital")?);
        self.revoked = Some(create_screening(stage, &customer, &self.slot()?).await?);
        let careful = delete_hospital(&admin, &name, false);
        stage.refused("HospitalService.DeleteHospital", careful, Reason::HospitalHasBookings).await?;
        let deleted = stage.call("HospitalService.DeleteHospital", delete_hospital(&admin, &name, true), |deleted| {
            format!("force: {}", deleted.state().as_str_name())
        });
        let state = deleted.await?.state();
        expect(matches!(state, HospitalState::Deleting | HospitalState::Deleted), || {
            "the hospital was to be DELETING or DELETED".to_owned()
        })
    }

    async fn booking_is_revoked(&self, stage: &mut Stage) -> Result<(), Stop> {
        let (customer, booked) = (self.customer()?, made(&self.revoked, "screening")?);
        let read = async || {
            let request = customer.request(screening::GetScreeningRequest { name: booked.name.clone() });
            customer.screening().get_screening(request).await
        };
        let gone = |row: &screening::Screening| (row.state() == ScreeningState::ForceCancelled).then(|| stands(row));
        let revoked = stage.until("ScreeningService.GetScreening", read, gone).await?;
        expect(revoked.state_message == FAREWELL, || "the admin's reason was to reach the screening".to_owned())?;
        let name = made(&self.hospital, "hospital")?;
        let read = async || {
            let request = customer.request(hospital::GetHospitalRequest { name: name.clone() });
            customer.hospital().get_hospital(request).await
        };
        let gone = |row: &hospital::Hospital| {
            (row.state() == HospitalState::Deleted).then(|| row.state().as_str_name().to_owned())
        };
        stage.until("HospitalService.GetHospital", read, gone).await.map(drop)
    }

    async fn customer_looks(&self, stage: &mut Stage) -> Result<(), Stop> {
        let customer = self.customer()?;
        let (cancelled, revoked) = (made(&self.cancelled, "screening")?, made(&self.revoked, "screening")?);
        let read = async || {
            let parent = format!("{}/myPage", customer.customer());
            let request = mypage::ListMyPageItemsRequest { parent, ..Default::default() };
            customer.my_page().list_my_page_items(customer.request(request)).await
        };
        let both = |page: &mypage::ListMyPageItemsResponse| {
            let shows = |of: &screening::Screening, state: ScreeningState| {
                page.items.iter().any(|item| item.screening == of.name && item.state == state.as_str_name())
            };
            let complete =
                shows(&cancelled, ScreeningState::Cancelled) && shows(&revoked, ScreeningState::ForceCancelled);
            complete.then(|| "both bookings: CANCELLED, FORCE_CANCELLED".to_owned())
        };
        let page = stage.until("MyPageService.ListMyPageItems", read, both).await?;
        let delivered = page.items.iter().any(|item| item.screening == revoked.name && item.state_message == FAREWELL);
        expect(delivered, || "the admin's reason was to reach the page".to_owned())?;

        let name = format!("{}/myPage", customer.customer());
        let request = customer.request(mypage::GetMyPageRequest { name, ..Default::default() });
        let call = async { customer.my_page().get_my_page(request).await };
        let shown = |page: &mypage::MyPage| format!("{} active, {} upcoming", page.active_count, page.upcoming.len());
        stage.call("MyPageService.GetMyPage", call, shown).await?;

        let parent = reservation_name(&cancelled.name)?;
        let request = customer.request(reservation::ListReservationHistoryRequest { parent, ..Default::default() });
        let call = async { customer.reservation().list_reservation_history(request).await };
        let states = |history: &reservation::ListReservationHistoryResponse| -> Vec<&'static str> {
            history.entries.iter().map(|entry| entry.state().as_str_name()).collect()
        };
        let history = stage.call("ReservationService.ListReservationHistory", call, |h| states(h).join(", ")).await?;
        expect(states(&history) == ["REGISTERED", "CANCELLED"], || {
            "the history was to be REGISTERED, CANCELLED".to_owned()
        })
    }
}

/// The result of an earlier row, or a reason to skip this one.
fn made<T: Clone>(thing: &Option<T>, what: &str) -> Result<T, Stop> {
    thing.clone().ok_or_else(|| Stop::Skipped(format!("no earlier row made the {what}")))
}

pub(super) fn reservation_name(screening: &str) -> Result<String, Stop> {
    let id =
        ScreeningId::parse(screening).map_err(|_| Stop::Wrong(format!("{screening} is not a screening's name")))?;
    Ok(id.reservation_name())
}

/// The state of a booking, for the table.
pub(super) fn stands(row: &screening::Screening) -> String {
    let reason = if row.state_reason.is_empty() { String::new() } else { format!(" ({})", row.state_reason) };
    format!("{}{reason}, version {}", row.state().as_str_name(), row.version)
}

/// A name shortened for a table.
pub(super) fn short(name: &str) -> String {
    const SHOWN: usize = 8;
    match name.rsplit_once('/') {
        Some((kind, id)) if id.len() > SHOWN && id.is_char_boundary(SHOWN) => {
            let kind = kind.rsplit('/').next().unwrap_or(kind);
            format!("{kind}/{}…", &id[..SHOWN])
        }
        _ => name.to_owned(),
    }
}

pub(super) fn places(slot: &hospital::Slot) -> String {
    format!("{} of {} places left", slot.remaining_count, slot.capacity)
}

pub(super) async fn create_hospital(
    admin: &Party,
    id: &str,
    dates: &[Date],
    capacity: i32,
) -> Result<Response<hospital::Hospital>, Status> {
    let made = hospital::Hospital {
        display_name: "Demonstration Clinic".to_owned(),
        time_zone: "Asia/Seoul".to_owned(),
        ..Default::default()
    };
    let slot = |date: &Date| hospital::Slot { date: Some(encode_date(*date)), capacity, ..Default::default() };
    let request = admin.request(hospital::CreateHospitalRequest {
        hospital: Some(made),
        hospital_id: id.to_owned(),
        initial_slots: dates.iter().map(slot).collect(),
        request_id: entropy::uuid_v4().to_string(),
    });
    admin.hospital().create_hospital(request).await
}

pub(super) async fn delete_hospital(
    admin: &Party,
    name: &str,
    force: bool,
) -> Result<Response<hospital::Hospital>, Status> {
    let request = admin.request(hospital::DeleteHospitalRequest {
        name: name.to_owned(),
        force,
        reason: FAREWELL.to_owned(),
        request_id: entropy::uuid_v4().to_string(),
        ..Default::default()
    });
    admin.hospital().delete_hospital(request).await
}

pub(super) async fn get_slot(stage: &mut Stage, party: &Party, name: &str) -> Result<hospital::Slot, Stop> {
    let request = party.request(hospital::GetSlotRequest { name: name.to_owned() });
    let call = async move { party.hospital().get_slot(request).await };
    stage.call("HospitalService.GetSlot", call, places).await
}

/// Books a slot for the customer who calls.
pub(super) async fn book(customer: &Party, slot: &str) -> Result<Response<screening::Screening>, Status> {
    let wanted = screening::Screening { customer: customer.customer(), slot: slot.to_owned(), ..Default::default() };
    let request = customer.request(screening::CreateScreeningRequest {
        screening: Some(wanted),
        request_id: entropy::uuid_v4().to_string(),
        ..Default::default()
    });
    customer.screening().create_screening(request).await
}

pub(super) async fn create_screening(
    stage: &mut Stage,
    customer: &Party,
    slot: &str,
) -> Result<screening::Screening, Stop> {
    let shown = |row: &screening::Screening| format!("{}, {}", short(&row.name), stands(row));
    stage.call("ScreeningService.CreateScreening", book(customer, slot), shown).await
}
