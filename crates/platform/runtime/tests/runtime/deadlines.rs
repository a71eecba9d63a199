//! Deadlines are enforced, passed on, and do not end streams that named none.

use std::time::Duration;

use contract::mypage::v1::WatchMyPageRequest;
use fault::Reason;
use runtime::client::is_unreachable;
use runtime::deadline::FAIR;
use runtime::lifecycle::Readiness;
use runtime::server::ServerOptions;
use runtime::status::{reason_of, refusal_of};
use tonic::{Code, Request};

use crate::support::{Probe, Running, instructed, options, raw, raw_call, raw_head, soon};

#[tokio::test]
async fn a_deadline_that_passes_is_answered_as_such_and_says_why() {
    let server = Running::start(options()).await;
    let (mut sender, _driver) = raw(server.addr).await;
    let status = raw_call(&mut sender, "hang", &[("grpc-timeout", "50m")]).await;
    assert_eq!(status.code(), Code::DeadlineExceeded);
    let refusal = refusal_of(&status).unwrap();
    assert_eq!(refusal.reason, Reason::DeadlineExceeded);
    assert!(refusal.retry_after.is_some());
    // The connection still works.
    assert_eq!(raw_call(&mut sender, "", &[]).await.code(), Code::Ok);
}

#[tokio::test]
async fn what_proxies_hold_against_us_is_what_speaks_of_us() {
    let server = Running::start(options()).await;
    let (mut sender, _driver) = raw(server.addr).await;
    let mut head =
        async |filter: &str, timeout: &str| raw_head(&mut sender, filter, &[("grpc-timeout", timeout)]).await;
    // In the head: a defect, and no answer although the caller had time enough. In trailers: a caller with too little
    // time.
    for (filter, timeout, code) in [("panic", "10S", "13"), ("hang", "600m", "4"), ("refuse", "10S", "3")] {
        assert_eq!(head(filter, timeout).await["grpc-status"], code, "{filter} {timeout}");
    }
    for (filter, timeout) in [("hang", "1m"), ("hang", "30m"), ("hang", "300m"), ("hold the process up", "50m")] {
        let head = head(filter, timeout).await;
        assert!(!head.contains_key("grpc-status") && !head.contains_key("content-length"), "{timeout}: {head:?}");
    }
}

#[tokio::test]
async fn calls_that_name_no_deadline_or_too_long_a_one_get_ours() {
    // Proxies hold a missing answer against us if it was due after a fair time, whoever set that.
    for (limit, is_fair) in [(Duration::from_millis(50), false), (FAIR + Duration::from_millis(50), true)] {
        let server = Running::start(ServerOptions { default_deadline: limit, max_deadline: limit, ..options() }).await;
        let (mut sender, _driver) = raw(server.addr).await;
        for headers in [&[][..], &[("grpc-timeout", "1H")]] {
            let status = raw_call(&mut sender, "hang", headers).await;
            assert_eq!(reason_of(&status), Some(Reason::DeadlineExceeded), "{headers:?}");
            let head = raw_head(&mut sender, "hang", headers).await;
            assert_eq!(head.contains_key("grpc-status"), is_fair, "{headers:?}: {head:?}");
        }
    }
}

#[tokio::test]
async fn a_clients_own_timeout_is_no_answer_of_the_service() {
    let server = Running::start(options()).await;
    let mut request = instructed("hang");
    request.set_timeout(Duration::from_millis(50));
    let status = soon(server.marketing().list_demand_signals(request)).await.unwrap_err();
    assert!(is_unreachable(&status), "{status:?}");
}

#[tokio::test]
async fn what_remains_is_passed_on() {
    let peer = Running::start(options()).await;
    let probe = Probe { peer: Some(peer.channel()), ..Probe::default() };
    let server = Running::start_with(options(), probe, Readiness::new()).await;
    let mut request = instructed("forward");
    request.set_timeout(Duration::from_secs(30));
    let answer = soon(server.marketing().list_demand_signals(request)).await.unwrap().into_inner();
    let remaining: u64 = answer.next_page_token.parse().unwrap();
    // Thirty seconds, less the four that the probe reserves, less the time of the call.
    assert!((1_000..=26_000).contains(&remaining), "{remaining}");
}

#[tokio::test]
async fn a_stream_outlives_the_default_and_ends_at_the_deadline_it_named() {
    let brief = Duration::from_millis(50);
    let server = Running::start(ServerOptions { default_deadline: brief, max_deadline: brief, ..options() }).await;
    let mut client = server.my_page();
    let mut unnamed = client.watch_my_page(WatchMyPageRequest::default()).await.unwrap().into_inner();
    assert!(soon(unnamed.message()).await.unwrap().is_some());

    let mut request = Request::new(WatchMyPageRequest::default());
    request.set_timeout(Duration::from_millis(500));
    let mut named = client.watch_my_page(request).await.unwrap().into_inner();
    assert!(soon(named.message()).await.unwrap().is_some());
    let status = soon(named.message()).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::DeadlineExceeded), "{status:?}");
    // Ten times the default has passed by now, and the other stream is still silent and open.
    let silent = tokio::time::timeout(brief, unnamed.message()).await;
    assert!(silent.is_err(), "{silent:?}");
}
