//! The admin, who opens the hospitals and deletes some of them.

use std::time::Duration;

use contract::hospital::v1 as hospital;
use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use tokio::time::sleep;

use super::{Caller, summary};
use crate::net::replicas;
use crate::plan::HOSPITALS;

impl Caller {
    /// Runs the admin, who opens the hospitals and deletes some of them later.
    pub(crate) async fn admin(mut self) -> turmoil::Result {
        const ADMIN_TRIES: u32 = 200;
        let hospitals = replicas(&HOSPITALS);
        let mut slots = Vec::new();
        for (index, capacities) in self.site.plan.capacities.clone().into_iter().enumerate() {
            let message = opening(index, &capacities);
            let what = format!("opens hospitals/seoul-{index}");
            let answer = self
                .ask(&hospitals, &what, message, ADMIN_TRIES, |channel, request| async move {
                    HospitalServiceClient::new(channel).create_hospital(request).await
                })
                .await;
            self.site.trace.note(&self.name, &what, summary(&answer));
            slots.extend(
                (0..capacities.len()).map(|slot| format!("hospitals/seoul-{index}/slots/2027-03-0{}", slot + 1)),
            );
        }
        self.stage.open(slots);
        for index in 0..self.site.plan.deletions {
            let pause = self.chance.between(Duration::from_secs(1), Duration::from_secs(4));
            sleep(pause).await;
            let name = format!("hospitals/seoul-{index}");
            self.history.deleting(&name);
            let message = hospital::DeleteHospitalRequest {
                name: name.clone(),
                force: true,
                reason: "closed".into(),
                request_id: runtime::entropy::uuid_v4().to_string(),
                ..hospital::DeleteHospitalRequest::default()
            };
            let what = format!("deletes {name}");
            let answer = self
                .ask(&hospitals, &what, message, ADMIN_TRIES, |channel, request| async move {
                    HospitalServiceClient::new(channel).delete_hospital(request).await
                })
                .await;
            self.site.trace.note(&self.name, &what, summary(&answer));
        }
        self.stage.leave();
        Ok(())
    }
}

fn opening(index: usize, capacities: &[i32]) -> hospital::CreateHospitalRequest {
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
            ..hospital::Hospital::default()
        }),
        initial_slots: (1..).zip(capacities).map(slot).collect(),
        request_id: runtime::entropy::uuid_v4().to_string(),
    }
}
