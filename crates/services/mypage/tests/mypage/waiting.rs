//! Bookings that wait for a place: pages, lists and streams with them and without.

use std::collections::BTreeMap;
use std::time::Duration;

use contract::event::v1::EventEnvelope;
use contract::mypage::v1::watch_my_page_response::Event;
use contract::mypage::v1::{ListMyPageItemsRequest, ListMyPageItemsResponse, MyPageItem};
use domain::page::{Key, KeyKind, Page};
use domain::screening::Queued;
use fault::{Reason, Violations};
use testkit::{Party, Random, refused, seed, wait_limit, within};
use tonic::Status;

use crate::support::{
    Booking, House, POSITION, Plan, Watch, get, get_all, list, list_all, open, page_of, watch, watch_all,
};

fn shown(items: &[MyPageItem]) -> Vec<(&str, &str, i32)> {
    items.iter().map(|item| (item.screening.as_str(), item.state.as_str(), item.waitlist_position)).collect()
}

/// Booking `uid` of kim, `uid` days ahead, with this life.
async fn lived(house: &House, uid: u128, life: &[&str]) -> String {
    let booking = Booking::new(uid, "kim", uid as i32);
    house.feed(&booking.life(life)).await;
    booking.name()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_is_shown_to_those_who_ask_for_it_and_never_counted() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let waiting = lived(&house, 1, &["WAITLISTED"]).await;
    let confirmed = lived(&house, 2, &["CONFIRMED"]).await;
    let expired = lived(&house, 3, &["WAITLISTED", "EXPIRED"]).await;
    let left = lived(&house, 4, &["WAITLISTED", "LEFT"]).await;
    let promoted = lived(&house, 5, &["WAITLISTED", "CONFIRMED"]).await;
    let parked = lived(&house, 6, &["PENDING", "WAITLISTED"]).await;
    let revoked = lived(&house, 7, &["WAITLISTED", "REVOKED"]).await;
    let pending = lived(&house, 8, &["PENDING"]).await;

    let page = get(&kim, &page_of("kim"), "").await.unwrap();
    let known = [(confirmed.as_str(), "CONFIRMED", 0), (&promoted, "CONFIRMED", 0), (&pending, "PENDING", 0)];
    assert_eq!((shown(&page.upcoming), page.active_count), (known.to_vec(), 3));
    let page = get_all(&kim, &page_of("kim"), "").await.unwrap();
    let waits = |name| (name, "WAITLISTED", POSITION);
    let all = [waits(waiting.as_str()), known[0], known[1], waits(&parked), known[2]];
    assert_eq!((shown(&page.upcoming), page.active_count), (all.to_vec(), 3));

    let ended = [(revoked.as_str(), "FORCE_CANCELLED", 0), (left.as_str(), "CANCELLED", 0)];
    let items = list(&kim, &page_of("kim"), 2).await.unwrap();
    assert_eq!(shown(&items), [known[2], ended[0], known[1], ended[1], known[0]]);
    assert_eq!((items[1].state_reason.as_str(), items[1].state_message.as_str()), ("REASON_2", "message 2"));
    let items = list_all(&kim, &page_of("kim"), 2).await.unwrap();
    let expired = (expired.as_str(), "EXPIRED", 0);
    assert_eq!(shown(&items), [known[2], ended[0], all[3], known[1], ended[1], expired, known[0], all[0]]);
    house.stop().await;
}

/// The limit of a page counts what is shown.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_hidden_takes_no_place_among_the_twenty() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    for uid in 1..=22 {
        lived(&house, uid, &["WAITLISTED"]).await;
    }
    let last = lived(&house, 40, &["CONFIRMED"]).await;
    let page = get(&kim, &page_of("kim"), "").await.unwrap();
    assert_eq!((shown(&page.upcoming), page.active_count), (vec![(last.as_str(), "CONFIRMED", 0)], 1));
    let page = get_all(&kim, &page_of("kim"), "").await.unwrap();
    assert_eq!((page.upcoming.len(), page.active_count), (20, 1));
    house.stop().await;
}

async fn page(party: &Party, page_token: &str, show_waitlisted: bool) -> Result<ListMyPageItemsResponse, Status> {
    let (parent, page_token) = (page_of("kim"), page_token.to_owned());
    let request = ListMyPageItemsRequest { parent, page_size: 1, page_token, show_waitlisted, ..Default::default() };
    party.my_page().list_my_page_items(request).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_belongs_to_a_list_with_or_without_what_waits() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    for uid in 1..=3 {
        lived(&house, uid, &["CONFIRMED"]).await;
    }
    for shows in [true, false] {
        let token = page(&kim, "", shows).await.unwrap().next_page_token;
        assert_eq!(page(&kim, &token, shows).await.unwrap().items.len(), 1);
        let refusal = refused(page(&kim, &token, !shows).await, Reason::PageTokenInvalid);
        assert_eq!(refusal.complaints(), [("page_token", "PAGE_TOKEN_INVALID")]);
    }
    // a token as the version before made it
    let binding = ["ListMyPageItems", &page_of("kim")];
    let before = Page::decode(&mut Violations::new(), 1, "", &binding, &[KeyKind::Text, KeyKind::Text]);
    let token = before.next_token(&[Key::Text("9999-12-31".into()), Key::Text(String::new())]);
    assert_eq!(page(&kim, &token, false).await.unwrap().items.len(), 1);
    refused(page(&kim, &token, true).await, Reason::PageTokenInvalid);
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_read_waits_for_a_booking_that_waits_and_need_not_show_it() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    let booking = Booking::new(1, "kim", 4);
    for (version, state) in [(1, "WAITLISTED"), (2, "EXPIRED")] {
        let (name, token) = (page_of("kim"), booking.token(version));
        let read = get(&kim, &name, &token);
        let write = async { house.feed(&[booking.event(version, state)]).await };
        let (read, ()) = within(wait_limit(), "the read", async { tokio::join!(read, write) }).await;
        assert!(read.unwrap().upcoming.is_empty());
        let all = get_all(&kim, &name, &token).await.unwrap();
        assert_eq!(all.upcoming.len(), usize::from(state == "WAITLISTED"));
    }
    house.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_tells_of_what_waits_only_if_it_is_asked_to() {
    let (house, _dir) = House::start(Plan::default()).await;
    let kim = house.served.customer("kim").await;
    lived(&house, 9, &["WAITLISTED"]).await;
    let (mut some, mut all) =
        (watch(&kim, &page_of("kim"), "").await.unwrap(), watch_all(&kim, &page_of("kim"), "").await.unwrap());
    assert_eq!(some.snapshot().await.upcoming.len(), 0);
    let snapshot = all.snapshot().await;
    assert_eq!(snapshot, get_all(&kim, &page_of("kim"), "").await.unwrap());
    assert_eq!(snapshot.upcoming[0].waitlist_position, POSITION);

    let begin = some.token.clone();
    let [promoted, expired, left] = [1, 2, 3].map(|uid| Booking::new(uid, "kim", 4));
    house.feed(&[promoted.event(1, "WAITLISTED"), expired.event(1, "WAITLISTED")]).await;
    house.feed(&[left.event(1, "WAITLISTED"), expired.event(2, "EXPIRED")]).await;
    house.feed(&[promoted.event(2, "CONFIRMED"), left.event(2, "LEFT")]).await;
    let told = [(promoted.name(), 2), (left.name(), 2)];
    let mut resumed = watch(&kim, &page_of("kim"), &begin).await.unwrap();
    for stream in [&mut some, &mut resumed] {
        for change in &told {
            assert_eq!(stream.change().await.unwrap(), *change);
        }
    }
    for (name, version) in [
        (promoted.name(), 1),
        (expired.name(), 1),
        (left.name(), 1),
        (expired.name(), 2),
        (promoted.name(), 2),
        (left.name(), 2),
    ] {
        let Event::Changed(item) = all.next().await.unwrap() else { panic!("not a change") };
        assert_eq!((item.screening, item.screening_version), (name, version));
        assert_eq!(item.waitlist_position, if item.state == "WAITLISTED" { POSITION } else { 0 });
    }
    drop((some, all, resumed));
    house.stop().await;
}

/// What is not told is passed all the same: it is not waited for again.
#[tokio::test(flavor = "multi_thread")]
async fn a_heartbeat_after_a_hidden_change_is_resumed_after_it() {
    let mut plan = Plan::default();
    plan.options.heartbeat = Duration::from_millis(50);
    let (house, _dir) = House::start(plan).await;
    let kim = house.served.customer("kim").await;
    let mut stream = watch(&kim, &page_of("kim"), "").await.unwrap();
    stream.snapshot().await;
    lived(&house, 1, &["WAITLISTED"]).await;
    let after = get(&kim, &page_of("kim"), "").await.unwrap().applied_token;
    while stream.token != after {
        let Event::Heartbeat(_) = stream.next().await.unwrap() else { panic!("not a heartbeat") };
    }
    drop(stream);
    house.stop().await;
}

/// Whatever order the events come in: the end of the wait may come before its beginning.
#[tokio::test(flavor = "multi_thread")]
async fn a_booking_that_was_told_as_pending_and_waits_ends_a_stream_that_cannot_say_so() {
    for hidden in [[2, 3], [3, 2]] {
        let (house, _dir) = House::start(Plan::default()).await;
        let kim = house.served.customer("kim").await;
        let (parked, other) = (Booking::new(1, "kim", 4), Booking::new(2, "kim", 5));
        let event = |version| parked.event(version, ["PENDING", "WAITLISTED", "EXPIRED"][version as usize - 1]);
        let (mut some, mut all) =
            (watch(&kim, &page_of("kim"), "").await.unwrap(), watch_all(&kim, &page_of("kim"), "").await.unwrap());
        some.snapshot().await;
        all.snapshot().await;
        house.feed(&[event(1), other.event(1, "CONFIRMED"), event(hidden[0]), event(hidden[1])]).await;
        for stream in [&mut some, &mut all] {
            assert_eq!(stream.change().await.unwrap(), (parked.name(), 1));
            assert_eq!(stream.change().await.unwrap(), (other.name(), 1));
        }
        assert_eq!(all.change().await.unwrap(), (parked.name(), hidden[0]));
        refused(some.change().await, Reason::CursorExpired);
        let mut again = watch(&kim, &page_of("kim"), &some.token).await.unwrap();
        refused(again.change().await, Reason::CursorExpired);

        let mut anew = watch(&kim, &page_of("kim"), "").await.unwrap();
        assert_eq!(shown(&anew.snapshot().await.upcoming), [(other.name().as_str(), "CONFIRMED", 0)]);
        house.feed(&[parked.event(4, "CONFIRMED")]).await;
        assert_eq!(anew.change().await.unwrap(), (parked.name(), 4));
        drop((all, anew));
        house.stop().await;
    }
}

/// A client's copy of a customer's page.
struct Copy<'a> {
    party: &'a Party,
    name: String,
    shows: bool,
    stream: Watch,
    items: BTreeMap<String, (i64, String)>,
}

impl<'a> Copy<'a> {
    async fn begin(party: &'a Party, name: String, shows: bool) -> Self {
        let stream = open(party, &name, "", shows).await.unwrap();
        Self { party, name, shows, stream, items: BTreeMap::new() }
    }

    /// Reads until it has heard of this booking. Now and then it loses the connection.
    async fn follow(&mut self, until: &str, random: &mut Random) {
        while !self.items.contains_key(until) {
            if random.chance(20) {
                self.stream = open(self.party, &self.name, &self.stream.token, self.shows).await.unwrap();
            }
            let told = match self.stream.next().await {
                Ok(Event::Snapshot(page)) => {
                    self.items.clear();
                    page.upcoming
                }
                Ok(Event::Changed(item)) => vec![item],
                Ok(Event::Heartbeat(_)) => Vec::new(),
                Err(end) => {
                    refused(Err::<(), _>(end), Reason::CursorExpired);
                    assert!(!self.shows, "who is told of everything need not start again");
                    self.stream = open(self.party, &self.name, "", false).await.unwrap();
                    continue;
                }
            };
            for MyPageItem { screening, screening_version, state, .. } in told {
                assert!(self.shows || (state != "WAITLISTED" && state != "EXPIRED"), "{screening} is {state}");
                let version = self.items.get(&screening).map_or(0, |(version, _)| *version);
                if version < screening_version {
                    self.items.insert(screening, (screening_version, state));
                }
            }
        }
    }

    /// Compares what it takes for what lies ahead with the page.
    async fn is_the_page(&self) {
        let (party, name) = (self.party, &self.name);
        let page = if self.shows { get_all(party, name, "").await } else { get(party, name, "").await };
        let shown = page.unwrap().upcoming.into_iter();
        let shown: BTreeMap<_, _> = shown.map(|item| (item.screening, (item.screening_version, item.state))).collect();
        let mut ahead = self.items.clone();
        ahead.retain(|_, (_, state)| matches!(state.as_str(), "PENDING" | "CONFIRMED" | "WAITLISTED"));
        assert_eq!(ahead, shown, "{name}, shows waitlisted: {}", self.shows);
    }
}

/// Clients with the flag and without it, whose copies of the page have to end as the page.
#[tokio::test(flavor = "multi_thread")]
async fn every_client_that_follows_ends_with_the_page_that_it_asks_for() {
    let mut random = seed("every_client_that_follows_ends_with_the_page_that_it_asks_for");
    let lives: [&[&str]; 9] = [
        &["PENDING", "WAITLISTED"],
        &["PENDING", "WAITLISTED", "CONFIRMED"],
        &["PENDING", "WAITLISTED", "EXPIRED"],
        &["PENDING", "WAITLISTED", "LEFT"],
        &["WAITLISTED"],
        &["WAITLISTED", "CONFIRMED", "CANCELLED"],
        &["WAITLISTED", "CONFIRMED"],
        &["WAITLISTED", "EXPIRED"],
        &["PENDING", "CONFIRMED"],
    ];
    let (house, _dir) = House::start(Plan::default()).await;
    let auditor = house.served.auditor().await;
    let mut uid = 0;
    for customer in 0..8 {
        let customer = format!("c-{customer}");
        let mut copies = Vec::new();
        for shows in [false, true] {
            copies.push(Copy::begin(&auditor, page_of(&customer), shows).await);
        }
        // few enough for a page of twenty to have all that lies ahead
        for _ in 0..4 {
            let mut events: Vec<EventEnvelope> = Vec::new();
            for _ in 0..3 {
                uid += 1;
                let life = *random.pick(&lives);
                for event in Booking::new(uid, &customer, 3 + uid as i32).life(life) {
                    for _ in 0..1 + random.below(2) {
                        // mostly in order
                        let early = if random.chance(20) { random.below(events.len() as u64 + 1) as usize } else { 0 };
                        events.insert(events.len() - early, event.clone());
                    }
                }
            }
            for batch in events.chunks(1 + random.below(4) as usize) {
                house.feed(batch).await;
            }
            uid += 1;
            let mark = Booking::new(uid, &customer, 3 + uid as i32);
            house.feed(&mark.life(&["CONFIRMED"])).await;
            for copy in &mut copies {
                copy.follow(&mark.name(), &mut random).await;
                copy.is_the_page().await;
            }
        }
    }
    house.stop().await;
}

/// A booking that was cancelled while it waited had no place. Its state does not say so.
#[tokio::test(flavor = "multi_thread")]
async fn a_recovery_is_told_who_waited_in_vain() {
    let (house, _dir) = House::start(Plan::default()).await;
    let lives: [(&[&str], bool); 8] = [
        (&["WAITLISTED"], false),
        (&["WAITLISTED", "LEFT"], true),
        (&["WAITLISTED", "REVOKED"], true),
        (&["WAITLISTED", "EXPIRED"], true),
        (&["PENDING", "WAITLISTED", "LEFT"], true),
        (&["WAITLISTED", "CONFIRMED", "CANCELLED"], false),
        (&["WAITLISTED", "CONFIRMED", "FORCE_CANCELLED"], false),
        (&["PENDING", "CANCELLED"], false),
    ];
    for (uid, (life, _)) in (1..).zip(lives) {
        lived(&house, uid, life).await;
    }
    let known = mypage::recovery::bookings(&house.service.database, None, 10).await.unwrap();
    assert_eq!(known.len(), lives.len());
    for (known, (life, in_vain)) in known.iter().zip(lives) {
        let queued = in_vain.then_some(Queued { position: 0, closes_at: known.update_time });
        assert_eq!(known.queued, queued, "{life:?}");
    }
    house.stop().await;
}
