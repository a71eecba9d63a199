//! Encodes domain values as messages.

use contract::mypage::v1::watch_my_page_response::Event;
use contract::mypage::v1::{Heartbeat, MyPage, MyPageItem, WatchMyPageResponse};
use domain::civil::{encode_date, encode_time};
use domain::ids::CustomerId;
use domain::mypage::{Ahead, Item};

use crate::app::Page;
use crate::watch::{WatchMessage, What};

pub(crate) fn page(customer: &CustomerId, page: Page) -> MyPage {
    let Page { ahead: Ahead { upcoming, active_count }, token, update_time } = page;
    MyPage {
        name: format!("{customer}/myPage"),
        upcoming: upcoming.into_iter().map(item).collect(),
        active_count: i32::try_from(active_count).unwrap_or(i32::MAX),
        applied_token: token.encode(customer),
        update_time: update_time.map(encode_time),
    }
}

pub(crate) fn item(item: Item) -> MyPageItem {
    let Item {
        screening,
        customer: _,
        version,
        hospital_display_name,
        slot,
        date,
        time_zone,
        state,
        waitlist_position,
        reason,
        message,
        update_time,
    } = item;
    MyPageItem {
        screening: screening.to_string(),
        hospital_display_name,
        slot: slot.map(|slot| slot.to_string()).unwrap_or_default(),
        date: Some(encode_date(date)),
        time_zone,
        state: state.name().to_owned(),
        state_reason: reason,
        screening_version: version,
        update_time: Some(encode_time(update_time)),
        state_message: message,
        waitlist_position,
    }
}

pub(crate) fn watch_message(customer: &CustomerId, watch_message: WatchMessage) -> WatchMyPageResponse {
    let WatchMessage { what, token } = watch_message;
    let event = match what {
        What::Snapshot(found) => Event::Snapshot(page(customer, found)),
        What::Changed(changed) => Event::Changed(item(changed)),
        What::Alive(now) => Event::Heartbeat(Heartbeat { time: Some(encode_time(now)) }),
    };
    WatchMyPageResponse { event: Some(event), resume_token: token.encode(customer) }
}

#[cfg(test)]
mod tests {
    use domain::ids::{HospitalId, ScreeningId, SlotId};
    use domain::mypage::{ResumeToken, UPCOMING_MAX};
    use domain::page::MAX_BYTES;
    use domain::screening::State;
    use domain::text::{NAME_MAX, REMARK_MAX};
    use jiff::Timestamp;
    use jiff::civil::date;
    use prost::Message;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn the_largest_snapshot_is_an_answer_that_every_client_takes() {
        let customer = CustomerId::from_segment(&"k".repeat(63)).unwrap();
        let emoji = |length: usize| "\u{1F600}".repeat(length);
        let largest = Item {
            screening: ScreeningId(Uuid::max()),
            customer: customer.clone(),
            version: i64::MAX,
            hospital_display_name: emoji(NAME_MAX),
            slot: SlotId::from_segment(
                HospitalId::from_segment(&"h".repeat(63)).unwrap(),
                &format!("9999-12-31~{}", "p".repeat(63)),
            ),
            date: date(9999, 12, 31),
            time_zone: "America/Argentina/ComodRivadavia".to_owned(),
            state: State::ForceCancelled,
            waitlist_position: i32::MAX,
            reason: "R".repeat(63),
            message: emoji(REMARK_MAX),
            update_time: Timestamp::MAX,
        };
        let ahead = Ahead { upcoming: vec![largest; UPCOMING_MAX], active_count: usize::MAX };
        let token = ResumeToken { epoch: Uuid::max(), position: i64::MAX };
        let snapshot = Page { ahead, token, update_time: Some(Timestamp::MAX) };
        let watch_message = watch_message(&customer, WatchMessage { what: What::Snapshot(snapshot), token });
        assert!(watch_message.encoded_len() <= MAX_BYTES / 8, "{} bytes", watch_message.encoded_len());
    }
}
