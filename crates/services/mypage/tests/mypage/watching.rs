//! Streams: the snapshot and the changes, resuming, heartbeats, and how streams end.

use std::time::Duration;

use contract::mypage::v1::watch_my_page_response::Event;
use fault::Reason;
use mypage::Options;
use runtime::server::ServerOptions;
use sea_orm::{ConnectionTrait, Statement};
use testkit::{Party, eventually, refused, seed};
use tonic::transport::Endpoint;

use crate::support::{Booking, House, Plan, get, page_of, watch};

/// The default plan with changed options.
fn plan(change: impl FnOnce(&mut Options)) -> Plan {
    let mut plan = Plan::default();
    change(&mut plan.options);
    plan
}

/// How many changes streams can resume before.
async fn kept(house: &House) -> i64 {
    count(house, "item_version WHERE id > (SELECT horizon FROM life)").await
}

async fn count(house: &House, rows: &str) -> i64 {
    let connection = house.service.database.reader();
    let text = format!("SELECT COUNT(*) AS count FROM {rows}");
    let count = Statement::from_string(connection.get_database_backend(), text);
    connection.query_one_raw(count).await.unwrap().unwrap().try_get("", "count").unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_begins_with_a_snapshot_and_goes_on_with_changes() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let (booking, other) = (Booking::new(1, "kim", 4), Booking::new(2, "lee", 4));
    house.feed(&booking.life(&["PENDING"])).await;
    let mut stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    let snapshot = stream.snapshot().await;
    assert_eq!(snapshot, get(&kim, &page_of("kim"), "").await.unwrap());
    assert_eq!(snapshot.applied_token, stream.token);

    house.feed(&other.life(&["CONFIRMED"])).await;
    house.feed(&[booking.event(2, "CONFIRMED"), booking.event(3, "CANCELLED")]).await;
    assert_eq!(stream.change().await.unwrap(), (booking.name(), 2));
    let Event::Changed(item) = stream.next().await.unwrap() else { panic!("not a change") };
    assert_eq!((item.screening_version, item.state.as_str()), (3, "CANCELLED"));
    assert_eq!((item.state_reason.as_str(), item.state_message.as_str()), ("REASON_3", "message 3"));
    drop(stream);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_that_was_read_is_followed_from_there() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let booking = Booking::new(1, "kim", 4);
    let empty = get(&kim, &page_of("kim"), "").await.unwrap();
    house.feed(&booking.life(&["CONFIRMED"])).await;
    let mut stream = watch(&kim, &page_of("kim"), &empty.applied_token).await.unwrap();
    assert_eq!(stream.change().await.unwrap(), (booking.name(), 1));
    drop(stream);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn resuming_repeats_nothing_and_misses_nothing() {
    let mut random = seed("resuming_repeats_nothing_and_misses_nothing");
    let (house, dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let mut stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    stream.snapshot().await;

    let (mut expected, mut seen) = (Vec::new(), Vec::new());
    for uid in 1..=60 {
        let booking = Booking::new(uid, "kim", uid as i32);
        let life = booking.life(&["PENDING", "CONFIRMED", "CANCELLED"]);
        expected.extend((1..=3).map(|version| (booking.name(), version)));
        if random.chance(50) {
            house.feed(&life).await;
        } else {
            for event in &life {
                house.feed(std::slice::from_ref(event)).await;
            }
        }
        while seen.len() < expected.len() && random.chance(70) {
            seen.push(stream.change().await.unwrap());
        }
        if random.chance(30) {
            let token = stream.token.clone();
            drop(stream);
            stream = watch(&kim, &page_of("kim"), &token).await.unwrap();
        }
    }
    while seen.len() < expected.len() {
        seen.push(stream.change().await.unwrap());
    }
    assert_eq!(seen, expected);
    let token = stream.token.clone();
    drop(stream);
    house.stop().await;

    // the view and its positions survive the process
    let house = House::open(dir.path(), Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let mut stream = watch(&kim, &page_of("kim"), &token).await.unwrap();
    house.feed(&Booking::new(99, "kim", 3).life(&["REJECTED"])).await;
    assert_eq!(stream.change().await.unwrap(), (Booking::new(99, "kim", 3).name(), 1));
    drop(stream);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_watcher_hears_of_every_change() {
    let (house, _dir) = House::start(Plan::default()).await;
    let parties = [house.served.customer("kim").await, house.served.auditor().await];
    let mut streams = Vec::new();
    for party in &parties {
        for _ in 0..10 {
            let mut stream = watch(party, &page_of("kim"), "").await.unwrap();
            stream.snapshot().await;
            streams.push(stream);
        }
    }
    let booking = Booking::new(1, "kim", 4);
    house.feed(&booking.life(&["PENDING", "CONFIRMED"])).await;
    for stream in &mut streams {
        assert_eq!(stream.change().await.unwrap().1, 1);
        assert_eq!(stream.change().await.unwrap().1, 2);
    }
    drop(streams);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn silence_is_broken_by_heartbeats() {
    let (house, _dir) = House::start(plan(|options| options.heartbeat = Duration::from_millis(50))).await;
    let kim = house.served.customer("kim").await;
    let mut stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    stream.snapshot().await;
    let position = stream.token.clone();
    for _ in 0..3 {
        let Event::Heartbeat(heartbeat) = stream.next().await.unwrap() else { panic!("not a heartbeat") };
        assert!(heartbeat.time.is_some());
        assert_eq!(stream.token, position);
    }
    house.feed(&Booking::new(1, "kim", 4).life(&["CONFIRMED"])).await;
    assert_eq!(stream.change().await.unwrap().1, 1);
    assert_ne!(stream.token, position);
    drop(stream);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_is_not_this_pages_is_refused() {
    let (house, _dir) = House::start(Plan::default()).await;
    let (kim, auditor) = (house.served.customer("kim").await, house.served.auditor().await);
    house.feed(&Booking::new(1, "kim", 4).life(&["CONFIRMED"])).await;
    let token = get(&kim, &page_of("kim"), "").await.unwrap().applied_token;
    let broken = format!("{}A", &token[..token.len() - 1]);
    for malformed in ["nonsense", &broken, &token[1..]] {
        let refusal = refused(watch(&kim, &page_of("kim"), malformed).await, Reason::PageTokenInvalid);
        assert_eq!(refusal.complaints(), [("resume_token", "PAGE_TOKEN_INVALID")]);
    }
    refused(watch(&auditor, &page_of("lee"), &token).await, Reason::PageTokenInvalid);
    refused(watch(&house.served.customer("lee").await, &page_of("kim"), &token).await, Reason::NotOwner);
    refused(watch(&house.served.admin().await, "nonsense", "").await, Reason::RoleRequired);
    refused(watch(&house.served.party(None).await, "nonsense", "").await, Reason::CredentialsMissing);
    refused(watch(&kim, "nonsense", "").await, Reason::FieldInvalid);

    // a new view counts positions from the beginning
    let (rebuilt, _dir) = House::start(Plan::default()).await;
    rebuilt.feed(&Booking::new(1, "kim", 4).life(&["CONFIRMED"])).await;
    refused(watch(&rebuilt.served.customer("kim").await, &page_of("kim"), &token).await, Reason::CursorExpired);
    rebuilt.stop().await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_position_expires_with_the_changes_after_it_and_not_before() {
    let limits: [fn(&mut Options); 2] =
        [|options| options.change_age = Duration::ZERO, |options| options.change_count = 0];
    for limit in limits {
        let mut plan = plan(limit);
        plan.options.prune_interval = Duration::from_millis(10);
        let (house, _dir) = House::start(plan).await;
        let kim = house.served.customer("kim").await;
        let before = get(&kim, &page_of("kim"), "").await.unwrap().applied_token;
        house.feed(&Booking::new(1, "kim", 4).life(&["PENDING", "CONFIRMED"])).await;
        eventually("the changes to be removed", async || match kept(&house).await {
            0 => Ok(()),
            more => Err(format!("{more} are kept")),
        })
        .await;
        refused(watch(&kim, &page_of("kim"), &before).await, Reason::CursorExpired);
        eventually("the row of the replaced version to be removed", async || {
            match count(&house, "item_version").await {
                1 => Ok(()),
                more => Err(format!("{more} rows")),
            }
        })
        .await;
        assert_eq!(get(&kim, &page_of("kim"), "").await.unwrap().active_count, 1);

        // a token after the last change stays valid
        let after = get(&kim, &page_of("kim"), "").await.unwrap().applied_token;
        drop(watch(&kim, &page_of("kim"), &after).await.unwrap());
        house.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_changes_are_kept() {
    let plan = plan(|options| {
        options.change_count = 5;
        options.prune_interval = Duration::from_millis(10);
    });
    let (house, _dir) = House::start(plan).await;
    let kim = house.served.customer("kim").await;
    house.feed(&Booking::new(1, "kim", 4).life(&["PENDING"])).await;
    let position = get(&kim, &page_of("kim"), "").await.unwrap().applied_token;
    for uid in 2..=6 {
        house.feed(&Booking::new(uid, "kim", 4).life(&["REJECTED"])).await;
    }
    eventually("the surplus to be removed", async || match kept(&house).await {
        5 => Ok(()),
        other => Err(format!("{other} are kept")),
    })
    .await;
    let mut stream = watch(&kim, &page_of("kim"), &position).await.unwrap();
    for uid in 2..=6 {
        assert_eq!(stream.change().await.unwrap().0, Booking::new(uid, "kim", 4).name());
    }
    drop(stream);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_read_piles_up_nothing() {
    let plan = plan(|options| {
        options.change_count = 10;
        options.prune_interval = Duration::from_millis(10);
    });
    let (house, _dir) = House::start(plan).await;
    let endpoint = Endpoint::from_shared(format!("http://{}", house.served.addr())).unwrap();
    let narrow = endpoint.initial_stream_window_size(16_384).initial_connection_window_size(65_535);
    let kim = Party::new(narrow.connect().await.unwrap(), Some(&house.served.tokens().customer("kim")));
    let mut stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    stream.snapshot().await;
    let bookings: Vec<_> = (1..=2_000).map(|uid| Booking::new(uid, "kim", 4)).collect();
    for some in bookings.chunks(200) {
        house.feed(&some.iter().map(|booking| booking.event(1, "REJECTED")).collect::<Vec<_>>()).await;
    }
    eventually("the surplus to be removed", async || match kept(&house).await {
        10 => Ok(()),
        other => Err(format!("{other} are kept")),
    })
    .await;
    let mut seen = 0;
    let end = loop {
        match stream.change().await {
            Ok((name, _)) => {
                assert_eq!(name, bookings[seen].name());
                seen += 1;
            }
            Err(status) => break status,
        }
    };
    assert!(seen < bookings.len(), "{seen}");
    refused(Err::<(), _>(end), Reason::CursorExpired);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_is_let_go() {
    let server = ServerOptions { max_streams: 1, ..ServerOptions::default() };
    let (house, _dir) = House::start(Plan { server, ..Plan::default() }).await;
    let kim = house.served.customer("kim").await;
    let stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    refused(watch(&kim, &page_of("kim"), "").await, Reason::Overloaded);
    drop(stream);
    eventually("the place of the stream that was left", async || {
        watch(&kim, &page_of("kim"), "").await.map(drop).map_err(|status| status.to_string())
    })
    .await;
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_ends_streams_and_says_so() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let mut stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    stream.snapshot().await;
    house.drain();
    let end = stream.change().await;
    let refusal = refused(end, Reason::NotReady);
    assert!(refusal.retry_after.is_some());
    house.stop().await;
}
