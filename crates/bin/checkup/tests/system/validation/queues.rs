//! The part of a booking policy that is about queues.

use contract::hospital::v1 as hospital;
use hospital::{BookingPolicy, Hospital, UpdateHospitalRequest};
use prost_types::{Duration, FieldMask};
use testkit::Desk;

use super::hospitals::admin_of;
use super::{FIELD, complains};
use crate::launch;

const LIMIT: &str = "hospital.booking_policy.waitlist_limit";
const NOTICE: &str = "hospital.booking_policy.promotion_min_notice";

fn hours(hours: i64) -> Option<Duration> {
    Some(Duration { seconds: hours * 3600, nanos: 0 })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn queues_are_limited_by_good_requests_only() {
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
    let queues = |waitlist_limit, promotion_min_notice| {
        Some(BookingPolicy { waitlist_limit, promotion_min_notice, ..BookingPolicy::default() })
    };
    for wrong in [queues(Some(-1), hours(-1)), queues(Some(10_001), hours(8785))] {
        complains(update(wrong, &[]).await, &[(LIMIT, FIELD), (NOTICE, FIELD)]);
    }
    let updated = async |policy, paths: &[&str]| {
        let policy = update(policy, paths).await.expect("accepted").into_inner().booking_policy;
        policy.map(|policy| (policy.waitlist_limit, policy.promotion_min_notice)).expect("the policy in force")
    };
    // 0 is a limit of its own: the hospital has no queues.
    assert_eq!(updated(queues(Some(0), hours(0)), &[]).await, (Some(0), hours(0)));
    assert_eq!(updated(queues(Some(10_000), hours(8784)), &[".waitlist_limit"]).await, (Some(10_000), hours(0)));
    assert_eq!(updated(queues(None, hours(8784)), &[]).await, (Some(10_000), hours(8784)));
    assert_eq!(updated(None, &[".waitlist_limit"]).await, (Some(100), hours(8784)));
    assert_eq!(updated(queues(Some(7), None), &[".promotion_min_notice"]).await, (Some(100), hours(24)));
    assert_eq!(updated(queues(Some(7), hours(1)), &[""]).await, (Some(7), hours(1)));
    assert_eq!(updated(None, &[""]).await, (Some(100), hours(24)));
}
