//! The admin, who opens the hospitals, changes what customers wait for, and deletes some hospitals.

use std::time::Duration;

use contract::hospital::v1 as hospital;
use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use contract::hospital::v1::set_slot_capacity_request::Change;
use domain::civil::encode_duration;
use domain::window::MAX_RESCHEDULES;
use jiff::SignedDuration;
use runtime::client::Replicas;
use tokio::time::sleep;

use super::{Answer, Caller, summary};
use crate::clock;
use crate::net::replicas;
use crate::plan::HOSPITALS;

/// How many times the admin sends a request.
const ADMIN_TRIES: u32 = 200;
/// When the first date of every hospital begins: 2027-03-01 in Seoul.
const FIRST_DATE: i64 = 1_803_826_800;
/// A notice for which it is too late on the first dates, and early enough for the later ones.
const LONG_NOTICE: SignedDuration = SignedDuration::from_hours(60 * 24);

/// Sends a request to Hospital until it is answered.
macro_rules! ask {
    ($admin:expr, $hospitals:expr, $what:expr, $method:ident, $message:expr) => {{
        let what: String = $what;
        let call = |channel, request| async move { HospitalServiceClient::new(channel).$method(request).await };
        let answer = $admin.ask($hospitals, &what, $message, ADMIN_TRIES, call).await;
        $admin.site.trace.note(&$admin.name, &what, summary(&answer));
        answer
    }};
}

impl Caller {
    /// Runs the admin, who opens the hospitals, changes them, and deletes some of them later.
    pub(crate) async fn admin(mut self) -> turmoil::Result {
        let hospitals = replicas(&HOSPITALS);
        let mut slots = Vec::new();
        for (index, capacities) in self.site.plan.capacities.clone().into_iter().enumerate() {
            let message = opening(index, &capacities, self.site.plan.closing, self.site.plan.limit);
            ask!(self, &hospitals, format!("opens hospitals/seoul-{index}"), create_hospital, message);
            slots.extend(
                (0..capacities.len()).map(|slot| format!("hospitals/seoul-{index}/slots/2027-03-0{}", slot + 1)),
            );
        }
        self.stage.open(slots.clone());
        self.change(&hospitals, &slots).await;
        for index in 0..self.site.plan.deletions {
            let pause = self.chance.between(Duration::from_secs(1), Duration::from_secs(4));
            sleep(pause).await;
            let name = format!("hospitals/seoul-{index}");
            self.history.ending(&name);
            let message = hospital::DeleteHospitalRequest {
                name: name.clone(),
                force: true,
                reason: "closed".into(),
                request_id: runtime::entropy::uuid_v4().to_string(),
                ..hospital::DeleteHospitalRequest::default()
            };
            ask!(self, &hospitals, format!("deletes {name}"), delete_hospital, message);
        }
        self.stage.leave();
        Ok(())
    }

    /// Changes what customers wait for: places, whether a slot is on sale, and the policies.
    async fn change(&mut self, hospitals: &Replicas, slots: &[String]) {
        let mut closed = Vec::new();
        for _ in 0..self.site.plan.changes {
            let pause = self.chance.between(Duration::from_millis(100), Duration::from_millis(600));
            sleep(pause).await;
            let (name, request_id) = (self.chance.pick(slots), runtime::entropy::uuid_v4().to_string());
            match self.chance.below(7) {
                0..2 => {
                    let change = Some(Change::Delta(1 + i32::from(self.chance.one_in(2))));
                    let message = hospital::SetSlotCapacityRequest {
                        name: name.clone(),
                        change,
                        request_id,
                        ..hospital::SetSlotCapacityRequest::default()
                    };
                    ask!(self, hospitals, format!("raises {name}"), set_slot_capacity, message);
                }
                2 => {
                    let cancel_bookings = self.chance.one_in(2);
                    if cancel_bookings {
                        self.history.ending(&name);
                    }
                    let message = hospital::CloseSlotRequest {
                        name: name.clone(),
                        cancel_bookings,
                        request_id,
                        ..hospital::CloseSlotRequest::default()
                    };
                    ask!(self, hospitals, format!("closes {name}, {cancel_bookings}"), close_slot, message);
                    closed.push(name);
                }
                3..5 if !closed.is_empty() => {
                    let name = closed.remove(0);
                    let message = hospital::ReopenSlotRequest { name: name.clone(), request_id, etag: String::new() };
                    if let Answer::Refused(_) = ask!(self, hospitals, format!("reopens {name}"), reopen_slot, message) {
                        closed.push(name);
                    }
                }
                _ => self.set_policy(hospitals, &name).await,
            }
        }
    }

    /// Changes how many may wait at the hospital of a slot, or until when they get places.
    async fn set_policy(&mut self, hospitals: &Replicas, slot: &str) {
        let name = slot.split_once("/slots/").map(|(hospital, _)| hospital.to_owned()).unwrap_or_default();
        let limit = self.chance.one_in(2).then(|| self.chance.pick(&[0, 1, 2, 100]));
        let notice = self.chance.pick(&[SignedDuration::from_hours(24), LONG_NOTICE]);
        let policy = hospital::BookingPolicy {
            waitlist_limit: limit,
            promotion_min_notice: limit.is_none().then(|| encode_duration(notice)),
            ..hospital::BookingPolicy::default()
        };
        let what = format!("lets {limit:?} wait at {name}, or for {notice:?}");
        let hospital = hospital::Hospital { name, booking_policy: Some(policy), ..hospital::Hospital::default() };
        let message = hospital::UpdateHospitalRequest { hospital: Some(hospital), update_mask: None };
        ask!(self, hospitals, what, update_hospital, message);
    }
}

/// Makes a hospital. With `closing`, the places of its first date pass on until so long after the start. With `limit`,
/// a customer has at most so many bookings there.
fn opening(
    index: usize,
    capacities: &[i32],
    closing: Option<Duration>,
    limit: Option<i32>,
) -> hospital::CreateHospitalRequest {
    let until = SignedDuration::from_secs(FIRST_DATE - clock::EPOCH);
    let notice = |closing| encode_duration(until - SignedDuration::try_from(closing).unwrap_or_default());
    let slot = |(day, capacity): (i32, &i32)| hospital::Slot {
        date: Some(contract::google::r#type::Date { year: 2027, month: 3, day }),
        capacity: *capacity,
        ..hospital::Slot::default()
    };
    hospital::CreateHospitalRequest {
        hospital_id: format!("seoul-{index}"),
        hospital: Some(hospital::Hospital {
            display_name: format!("Hospital {index}"),
            time_zone: "Asia/Seoul".into(),
            booking_policy: Some(hospital::BookingPolicy {
                promotion_min_notice: closing.map(notice),
                reschedule_limit: Some(MAX_RESCHEDULES),
                customer_limit: limit,
                ..hospital::BookingPolicy::default()
            }),
            ..hospital::Hospital::default()
        }),
        initial_slots: (1..).zip(capacities).map(slot).collect(),
        request_id: runtime::entropy::uuid_v4().to_string(),
    }
}
