//! R16: duplicate, reordered and missing events.
//!
//! From outside they are caused by stopping consumers, and by killing them while they consume.

use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1::Screening;
use contract::screening::v1::screening::State;
use mypage::{GetMyPageRequest, ListMyPageItemsRequest};
use reservation::ListReservationHistoryRequest;
use testkit::{Checkup, Desk, Launch, Party, eventually, rush, seed};

use super::all_screenings;
use crate::embedded;

const CUSTOMERS: usize = 10;

/// Every customer books two dates and cancels the first. Returns the screenings of the last answers.
async fn some_history(checkup: &Checkup, prefix: &str, slots: &[String]) -> Vec<Screening> {
    let customers = checkup.served().customers(prefix, CUSTOMERS, 4).await;
    let answered = rush(CUSTOMERS, |i| {
        let (desk, slots, customer) = (Desk::of(&customers[i]), slots.to_vec(), format!("{prefix}-{i}"));
        async move {
            let first = desk.book(&customer, &slots[0], "").await.expect("a place");
            let second = desk.book(&customer, &slots[1], "").await.expect("a place");
            vec![desk.cancel(&first.name, "").await.expect("cancelled"), second]
        }
    })
    .await;
    answered.concat()
}

/// Checks that both views show every screening once and in its state, and that the history has every version once and
/// in order.
async fn check_views(auditor: &Party, screenings: &[Screening]) {
    for screening in screenings {
        let history = eventually("the ledger to catch up", async || {
            let request = ListReservationHistoryRequest {
                parent: screening.name.replace("screenings/", "reservations/"),
                ..ListReservationHistoryRequest::default()
            };
            let found = auditor.reservation().list_reservation_history(request).await;
            let history = found.map_err(|status| status.to_string())?.into_inner().entries;
            let complete = i64::try_from(history.len()).is_ok_and(|length| length >= screening.version);
            if complete { Ok(history) } else { Err(format!("{history:?}")) }
        })
        .await;
        let versions: Vec<i64> = history.iter().map(|entry| entry.screening_version).collect();
        assert_eq!(versions, (1..=screening.version).collect::<Vec<_>>(), "{history:?}");
        let events: std::collections::BTreeSet<_> = history.iter().map(|entry| &entry.event_id).collect();
        assert_eq!(events.len(), history.len(), "every event once: {history:?}");
    }
    for customer in screenings.iter().map(|screening| &screening.customer).collect::<std::collections::BTreeSet<_>>() {
        check_page(auditor, customer, screenings).await;
    }
}

async fn check_page(auditor: &Party, customer: &str, screenings: &[Screening]) {
    let own: Vec<&Screening> = screenings.iter().filter(|screening| screening.customer == customer).collect();
    for screening in &own {
        let request = GetMyPageRequest {
            name: format!("{customer}/myPage"),
            min_consistency_token: screening.consistency_token.clone(),
            ..GetMyPageRequest::default()
        };
        let page = auditor.my_page().get_my_page(request).await.expect("a page").into_inner();
        let active = own.iter().filter(|one| one.state() == State::Confirmed).count();
        assert_eq!(usize::try_from(page.active_count), Ok(active), "{page:?}");
    }
    let request = ListMyPageItemsRequest { parent: format!("{customer}/myPage"), ..ListMyPageItemsRequest::default() };
    let items = auditor.my_page().list_my_page_items(request).await.expect("items").into_inner().items;
    let mut shown: Vec<_> =
        items.iter().map(|item| (&item.screening, item.state.as_str(), item.screening_version)).collect();
    let mut expected: Vec<_> = own.iter().map(|one| (&one.name, one.state().as_str_name(), one.version)).collect();
    shown.sort_unstable();
    expected.sort_unstable();
    assert_eq!(shown, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r16_those_who_slept_end_with_the_same_story() {
    let asleep = embedded().without("reservation,mypage,marketing");
    let checkup = asleep.start().await;
    let admin = Desk::of(&checkup.admin().await);
    let slots = admin.open("history", &[7, 8], 100).await;
    let mut screenings = some_history(&checkup, "early", &slots).await;
    checkup.stop().await;

    let awake = embedded().on(asleep.data());
    let checkup = awake.start().await;
    screenings.extend(some_history(&checkup, "late", &slots).await);
    let auditor = checkup.auditor().await;
    check_views(&auditor, &screenings).await;
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r16_listeners_killed_while_they_listen_apply_nothing_twice() {
    let mut random = seed("r16");
    let asleep: Launch = embedded().without("reservation,mypage,marketing");
    let checkup = asleep.start().await;
    let slots = Desk::of(&checkup.admin().await).open("stutter", &[7, 8], 1_000).await;
    let mut screenings = Vec::new();
    for wave in 0..6 {
        screenings.extend(some_history(&checkup, &format!("wave{wave}"), &slots).await);
    }
    checkup.stop().await;
    let awake = embedded().on(asleep.data());
    for _ in 0..5 {
        let checkup = awake.start().await;
        // The nemesis: a kill at a random moment of the catching up.
        tokio::time::sleep(std::time::Duration::from_millis(random.below(60))).await;
        checkup.kill().await;
    }
    let checkup = awake.start().await;
    let auditor = checkup.auditor().await;
    check_views(&auditor, &screenings).await;
    assert_eq!(all_screenings(&auditor, "").await.len(), screenings.len());
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}
