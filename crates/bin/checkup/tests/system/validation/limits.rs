//! The part of a booking policy that limits customers.

use contract::hospital::v1 as hospital;
use hospital::{BookingPolicy, Hospital, UpdateHospitalRequest};
use prost_types::FieldMask;
use testkit::Desk;

use super::hospitals::admin_of;
use super::{FIELD, complains};
use crate::launch;

const MOVES: &str = "hospital.booking_policy.reschedule_limit";
const BOOKINGS: &str = "hospital.booking_policy.customer_limit";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn customers_are_limited_by_good_requests_only() {
    let checkup = launch().start().await;
    let admin = admin_of(&checkup).await;
    Desk::of(&admin).open("steady", &[7], 5).await;
    let update = async |policy: Option<BookingPolicy>, paths: &[&str]| {
        let hospital = Hospital { name: "hospitals/steady".to_owned(), booking_policy: policy, ..Hospital::default() };
        let paths: Vec<String> = paths.iter().map(|path| format!("booking_policy{path}")).collect();
        let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
        let request = UpdateHospitalRequest { hospital: Some(hospital), update_mask };
        admin.hospital().update_hospital(request).await
    };
    let limits = |reschedule_limit, customer_limit| {
        Some(BookingPolicy { reschedule_limit, customer_limit, ..BookingPolicy::default() })
    };
    for wrong in [limits(Some(-1), Some(0)), limits(Some(101), Some(1_001)), limits(Some(i32::MIN), Some(-1))] {
        complains(update(wrong, &[]).await, &[(MOVES, FIELD), (BOOKINGS, FIELD)]);
    }
    let updated = async |policy, paths: &[&str]| {
        let policy = update(policy, paths).await.expect("accepted").into_inner().booking_policy;
        policy.map(|policy| (policy.reschedule_limit, policy.customer_limit)).expect("the policy in force")
    };
    assert_eq!(updated(None, &[]).await, (Some(3), None), "the defaults");
    assert_eq!(updated(limits(Some(0), Some(1)), &[]).await, (Some(0), Some(1)));
    assert_eq!(updated(limits(Some(100), Some(1_000)), &[".customer_limit"]).await, (Some(0), Some(1_000)));
    assert_eq!(updated(limits(Some(100), None), &[]).await, (Some(100), Some(1_000)), "what is not set stays");
    // only a mask takes a limit away
    assert_eq!(updated(None, &[".customer_limit"]).await, (Some(100), None));
    assert_eq!(updated(limits(None, Some(7)), &[".reschedule_limit"]).await, (Some(3), None));
    assert_eq!(updated(limits(Some(7), Some(7)), &[""]).await, (Some(7), Some(7)));
    assert_eq!(updated(None, &[""]).await, (Some(3), None));
}
