//! One caller takes its share, and the others hear nothing of it.

use contract::marketing::v1::{ListDemandSignalsResponse, ProposeCapacityIncreaseRequest};
use contract::mypage::v1::{GetMyPageRequest, WatchMyPageRequest};
use fault::Reason;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use runtime::identity::Role;
use runtime::server::ServerOptions;
use runtime::status::{reason_of, refusal_of};
use tokio::task::{JoinError, JoinHandle};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::support::{Running, instructed, instructed_by, options, soon};

/// Few enough that a test can take all of them.
const PLACES: usize = 16;
const STREAMS: usize = 64;
/// The lists that one caller may have under way, of which the probe makes its calls: an eighth of other calls.
/// Strangers have an eighth of half the places.
const CUSTOMERS: usize = 4;
const OTHERS: usize = 6;
const STRANGERS: usize = PLACES / 2 / 8;

fn limits() -> ServerOptions {
    ServerOptions {
        max_calls: PLACES,
        max_streams: STREAMS,
        max_calls_per_customer: 8 * CUSTOMERS,
        max_calls_per_caller: 8 * OTHERS,
        ..options()
    }
}

type Flood = FuturesUnordered<JoinHandle<Result<Response<ListDemandSignalsResponse>, Status>>>;
type Answered = Result<Result<Response<ListDemandSignalsResponse>, Status>, JoinError>;

/// Calls that hang once they are let in, without waiting for any.
fn flood(server: &Running, authorization: Option<&str>, calls: usize) -> Flood {
    let client = server.marketing();
    let call = |_| {
        let mut client = client.clone();
        let request = authorization.map_or_else(|| instructed("hang"), |it| instructed_by("hang", it));
        tokio::spawn(async move { client.list_demand_signals(request).await })
    };
    (0..calls).map(call).collect()
}

/// The next answer of a flood, which has to be a refusal.
fn turned_away(answered: Option<Answered>) -> Status {
    answered.expect("a call").expect("no panic").expect_err("a call that hangs is not answered")
}

fn bearer(server: &Running, role: Role, subject: &str) -> String {
    format!("Bearer {}", server.token(role, subject))
}

#[tokio::test]
async fn who_floods_is_told_so_and_the_others_hear_nothing_of_it() {
    const CALLS: usize = 200;
    let server = Running::start(limits()).await;
    let (kim, lee) = (bearer(&server, Role::Customer, "kim"), bearer(&server, Role::Customer, "lee"));
    let mut crowd = flood(&server, Some(&kim), CALLS);
    for _ in CUSTOMERS..CALLS {
        let status = turned_away(soon(crowd.next()).await);
        assert_eq!((status.code(), reason_of(&status)), (Code::ResourceExhausted, Some(Reason::RateLimited)));
        let refusal = refusal_of(&status).unwrap();
        assert!(refusal.retry_after.is_some_and(|delay| !delay.is_zero()), "{refusal:?}");
        let quota = status.get_details_quota_failure().expect("QuotaFailure").violations.remove(0);
        assert_eq!(quota.subject, "customer:kim");
        assert_eq!(quota.description, "lists among calls of MarketingService under way: at most 4");
    }
    // Kim's share is under way now. Strangers take theirs too.
    let mut strangers = flood(&server, None, CALLS);
    for _ in STRANGERS..CALLS {
        assert_eq!(reason_of(&turned_away(soon(strangers.next()).await)), Some(Reason::RateLimited));
    }
    let mut client = server.marketing();
    for _ in 0..50 {
        soon(client.list_demand_signals(instructed_by("", &lee))).await.expect("lee hears nothing of kim");
    }
    assert_eq!(
        reason_of(&client.list_demand_signals(instructed_by("", &kim)).await.unwrap_err()),
        Some(Reason::RateLimited)
    );
    // Other calls than lists are counted apart, and another service has shares of its own.
    let mut proposal = Request::new(ProposeCapacityIncreaseRequest::default());
    proposal.metadata_mut().insert("authorization", kim.parse().unwrap());
    server.marketing().propose_capacity_increase(proposal).await.expect("another kind of call");
    let mut page = Request::new(GetMyPageRequest::default());
    page.metadata_mut().insert("authorization", kim.parse().unwrap());
    server.my_page().get_my_page(page).await.expect("another service");

    let released = async {
        while let Some(answered) = crowd.next().await {
            answered.unwrap().expect("released");
        }
    };
    tokio::pin!(released);
    soon(async {
        loop {
            server.probe.release.notify_waiters();
            tokio::select! {
                biased;
                () = &mut released => break,
                () = tokio::task::yield_now() => {}
            }
        }
    })
    .await;
    client.list_demand_signals(instructed_by("", &kim)).await.expect("kim's calls have ended");
}

#[tokio::test]
async fn who_hangs_up_gets_the_place_back() {
    let server = Running::start(limits()).await;
    let kim = bearer(&server, Role::Customer, "kim");
    let mut client = server.marketing();
    for _ in 0..20 {
        let mut crowd = flood(&server, Some(&kim), CUSTOMERS + 1);
        turned_away(soon(crowd.next()).await);
        crowd.iter().for_each(JoinHandle::abort);
        soon(async { while client.list_demand_signals(instructed_by("", &kim)).await.is_err() {} }).await;
    }
}

#[tokio::test]
async fn admins_have_the_larger_share_and_services_the_whole() {
    const CALLS: usize = 100;
    let server = Running::start(limits()).await;
    let admin = bearer(&server, Role::Admin, "root");
    let mut import = flood(&server, Some(&admin), CALLS);
    for _ in OTHERS..CALLS {
        assert_eq!(reason_of(&turned_away(soon(import.next()).await)), Some(Reason::RateLimited));
    }
    // A service calls for many customers. It is refused when nobody has a place left.
    let screening = bearer(&server, Role::Service, "screening");
    let mut work = flood(&server, Some(&screening), CALLS);
    for _ in PLACES - OTHERS..CALLS {
        assert_eq!(reason_of(&turned_away(soon(work.next()).await)), Some(Reason::Overloaded));
    }
}

#[tokio::test]
async fn streams_have_shares_too() {
    let server = Running::start(limits()).await;
    let watch = async |who: &str| {
        let mut request = Request::new(WatchMyPageRequest::default());
        request.metadata_mut().insert("authorization", bearer(&server, Role::Customer, who).parse().unwrap());
        let mut stream = server.my_page().watch_my_page(request).await?.into_inner();
        soon(stream.message()).await?;
        Ok::<_, Status>(stream)
    };
    let mut open = Vec::new();
    for _ in 0..8 * CUSTOMERS {
        open.push(watch("kim").await.expect("within the share"));
    }
    for _ in 0..PLACES {
        assert_eq!(reason_of(&watch("kim").await.unwrap_err()), Some(Reason::RateLimited));
    }
    watch("lee").await.expect("lee hears nothing of kim");
    drop(open.pop());
    soon(async { while watch("kim").await.is_err() {} }).await;
}
