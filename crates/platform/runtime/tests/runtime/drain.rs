//! The shutdown of a server is orderly and bounded.

use std::time::Duration;

use contract::mypage::v1::WatchMyPageRequest;
use fault::Reason;
use runtime::server::ServerOptions;
use runtime::status::reason_of;
use tokio::net::TcpStream;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::support::{Running, instructed, options, soon};

/// Waits until the address refuses connections.
async fn refused(addr: std::net::SocketAddr) {
    soon(async {
        while TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_call_under_way_finishes_and_nobody_else_gets_in() {
    let server = Running::start(options()).await;
    let mut client = server.marketing();
    let call = tokio::spawn(async move { client.list_demand_signals(instructed("hang")).await });
    soon(server.probe.hanging.notified()).await;
    server.trigger.request();
    refused(server.addr).await;
    server.probe.release.notify_one();
    let answer = soon(call).await.unwrap().unwrap().into_inner();
    assert_eq!(answer.next_page_token, "released");
    soon(server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_call_that_never_ends_does_not_hold_the_process() {
    let server = Running::start(ServerOptions { drain_timeout: Duration::from_millis(100), ..options() }).await;
    let mut client = server.marketing();
    let call = tokio::spawn(async move { client.list_demand_signals(instructed("hang")).await });
    soon(server.probe.hanging.notified()).await;
    server.trigger.request();
    soon(server.ended).await.unwrap().unwrap();
    assert!(soon(call).await.unwrap().is_err());
}

#[tokio::test]
async fn streams_are_told_to_resume_elsewhere() {
    let server = Running::start(options()).await;
    let mut stream = server.my_page().watch_my_page(WatchMyPageRequest::default()).await.unwrap().into_inner();
    assert!(soon(stream.message()).await.unwrap().is_some());
    server.trigger.request();
    let status = soon(stream.message()).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::NotReady), "{status:?}");
    soon(server.ended).await.unwrap().unwrap();
}

#[tokio::test]
async fn calls_are_served_while_load_balancers_learn_of_the_end() {
    let server = Running::start(ServerOptions { drain_delay: Duration::from_secs(3600), ..options() }).await;
    let mut health = HealthClient::new(server.channel());
    let mut watched = health.watch(HealthCheckRequest::default()).await.unwrap().into_inner();
    let mut seen = soon(watched.message()).await.unwrap().unwrap();
    while seen.status() != ServingStatus::Serving {
        seen = soon(watched.message()).await.unwrap().unwrap();
    }
    server.trigger.request();
    let last = soon(watched.message()).await.unwrap().unwrap();
    assert_eq!(last.status(), ServingStatus::NotServing);
    server.marketing().list_demand_signals(instructed("")).await.unwrap();
    assert!(!server.ended.is_finished());
    server.ended.abort();
}

#[tokio::test]
async fn a_silent_connection_does_not_delay_the_end() {
    let server = Running::start(ServerOptions { drain_timeout: Duration::from_millis(100), ..options() }).await;
    let _silent = TcpStream::connect(server.addr).await.unwrap();
    // The server has seen the silent connection once it has answered a later one.
    server.marketing().list_demand_signals(instructed("")).await.unwrap();
    server.trigger.request();
    soon(server.ended).await.unwrap().unwrap();
    assert!(server.drain.is_requested());
}
