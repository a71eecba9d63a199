//! Typed answers become messages.

use contract::mypage::v1::watch_my_page_response::Event;
use contract::mypage::v1::{Heartbeat, MyPage, MyPageItem, WatchMyPageResponse};
use domain::civil::{encode_date, encode_time};
use domain::ids::CustomerId;
use domain::mypage::{Ahead, Item};

use crate::app::Page;
use crate::watch::{Told, What};

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
        date,
        time_zone,
        state,
        reason,
        message,
        update_time,
    } = item;
    MyPageItem {
        screening: screening.to_string(),
        hospital_display_name,
        date: Some(encode_date(date)),
        time_zone,
        state: state.name().to_owned(),
        state_reason: reason,
        screening_version: version,
        update_time: Some(encode_time(update_time)),
        state_message: message,
    }
}

pub(crate) fn told(customer: &CustomerId, told: Told) -> WatchMyPageResponse {
    let Told { what, token } = told;
    let event = match what {
        What::Snapshot(found) => Event::Snapshot(page(customer, found)),
        What::Changed(changed) => Event::Changed(item(changed)),
        What::Alive(now) => Event::Heartbeat(Heartbeat { time: Some(encode_time(now)) }),
    };
    WatchMyPageResponse { event: Some(event), resume_token: token.encode(customer) }
}
