//! The thirteenth row: Marketing follows events only, and asks a hospital for more places where customers are refused.

use contract::hospital::v1 as hospital;
use contract::hospital::v1::capacity_request::State as CapacityRequestState;
use contract::marketing::v1 as marketing;
use contract::screening::v1::screening::State as ScreeningState;
use fault::Reason;
use runtime::entropy;

use super::rows::{Play, book, create_hospital, create_screening, delete_hospital, get_slot, short};
use super::stage::{Stage, Stop, expect};
use crate::party::Party;

impl Play {
    /// Two customers want the only place, and the second one is refused. Marketing sees the refusal and proposes one
    /// more place, an admin approves it, and the second customer books. In any case the hospital is deleted again.
    pub(super) async fn marketing_asks(&self, stage: &mut Stage) -> Result<(), Stop> {
        let skipped = |who: &str| Stop::Skipped(format!("there is no token of {who}"));
        let marketing = self.marketing.clone().ok_or_else(|| skipped("the service marketing"))?;
        let other = self.other.clone().ok_or_else(|| skipped("a second customer"))?;
        let (admin, customer) = (self.admin()?, self.customer()?);

        let id = format!("demo-{}-b", self.run);
        let dates = [self.date];
        let shown = |made: &hospital::Hospital| format!("{} with 1 place", made.name);
        let created = stage.call("HospitalService.CreateHospital", create_hospital(&admin, &id, &dates, 1), shown);
        let name = created.await?.name;
        let slot = format!("{name}/slots/{}", self.date);
        let played = async {
            create_screening(stage, &customer, &slot).await?;
            stage.refused("ScreeningService.CreateScreening", book(&other, &slot), Reason::SlotFull).await?;
            demand_shows(stage, &marketing, &name, &slot).await?;
            let request = propose(stage, &marketing, &slot).await?;
            approve(stage, &admin, &request).await?;
            let grown = get_slot(stage, &admin, &slot).await?;
            expect(grown.capacity == 2, || "the slot was to have 2 places".to_owned())?;
            let booked = create_screening(stage, &other, &slot).await?;
            expect(booked.state() == ScreeningState::Confirmed, || "the second was to get a place now".to_owned())
        };
        let outcome = played.await;
        // Its result does not count: the next run creates a hospital of its own.
        let _ = delete_hospital(&admin, &name, true).await;
        outcome
    }
}

async fn demand_shows(stage: &mut Stage, marketing: &Party, hospital: &str, slot: &str) -> Result<(), Stop> {
    let read = async || {
        let filter = format!("hospital=\"{hospital}\"");
        let request = marketing::ListDemandSignalsRequest { filter, ..Default::default() };
        marketing.marketing().list_demand_signals(marketing.request(request)).await
    };
    let turned_away = |page: &marketing::ListDemandSignalsResponse| {
        let signal = page.signals.iter().find(|signal| signal.slot == slot && signal.refused_7d > 0)?;
        Some(format!(
            "{} booked, {} turned away, {:.0} % full",
            signal.bookings_7d,
            signal.refused_7d,
            signal.fill_ratio * 100.0
        ))
    };
    stage.until("MarketingService.ListDemandSignals", read, turned_away).await.map(drop)
}

async fn propose(stage: &mut Stage, marketing: &Party, slot: &str) -> Result<String, Stop> {
    let request = marketing.request(marketing::ProposeCapacityIncreaseRequest {
        slot: slot.to_owned(),
        additional_capacity: 1,
        justification: "people are turned away".to_owned(),
        request_id: entropy::uuid_v4().to_string(),
    });
    let call = async { marketing.marketing().propose_capacity_increase(request).await };
    let shown = |made: &marketing::ProposeCapacityIncreaseResponse| short(&made.capacity_request);
    Ok(stage.call("MarketingService.ProposeCapacityIncrease", call, shown).await?.capacity_request)
}

async fn approve(stage: &mut Stage, admin: &Party, name: &str) -> Result<(), Stop> {
    let request = admin.request(hospital::ApproveCapacityRequestRequest {
        name: name.to_owned(),
        note: "granted".to_owned(),
        request_id: entropy::uuid_v4().to_string(),
        ..Default::default()
    });
    let call = async { admin.hospital().approve_capacity_request(request).await };
    let shown = |decided: &hospital::CapacityRequest| {
        format!("{}, {} more", decided.state().as_str_name(), decided.additional_capacity)
    };
    let decided = stage.call("HospitalService.ApproveCapacityRequest", call, shown).await?;
    expect(decided.state() == CapacityRequestState::Approved, || "the request was to be APPROVED".to_owned())
}
