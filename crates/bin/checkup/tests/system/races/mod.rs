//! The races of the contract, one rule per test, with callers that really run at the same time.

mod admins;
mod booking;
mod capacity;
mod deletion;
mod events;
mod faults;
mod limits;
mod requests;
mod reschedule;
mod time;
mod waitlist;
mod watching;

use contract::capacity::v1::{CapacityClaim, ListCapacityClaimsRequest};
use contract::hospital::v1::Slot;
use contract::screening::v1 as screening;
use contract::screening::v1::Screening;
use testkit::{Checkup, Party};

/// Asserts that all services agree.
pub(crate) async fn agree(checkup: &Checkup) {
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

/// Every screening that an auditor sees.
pub(crate) async fn all_screenings(auditor: &Party, filter: &str) -> Vec<Screening> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = screening::ListScreeningsRequest {
            page_size: 1000,
            page_token,
            filter: filter.to_owned(),
            show_waitlisted: true,
            ..screening::ListScreeningsRequest::default()
        };
        let page = auditor.screening().list_screenings(request).await.expect("an auditor lists").into_inner();
        found.extend(page.screenings);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// The claims of a slot in one state.
pub(crate) async fn claims(auditor: &Party, slot: &str, state: &str) -> Vec<CapacityClaim> {
    let mut found = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = ListCapacityClaimsRequest {
            slot: slot.to_owned(),
            page_size: 1000,
            page_token,
            filter: format!("state={state}"),
        };
        let page = auditor.capacity().list_capacity_claims(request).await.expect("an auditor lists").into_inner();
        found.extend(page.claims);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return found;
        }
    }
}

/// Checks the counts that every reader of a slot must see at any time.
pub(crate) fn check_counts(slot: &Slot) -> Result<(), String> {
    let sound = slot.booked_count >= 0
        && slot.booked_count <= slot.capacity
        && slot.remaining_count == slot.capacity - slot.booked_count;
    if sound { Ok(()) } else { Err(format!("a slot was seen as {slot:?}")) }
}
