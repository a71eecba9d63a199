//! Clients that take too much, stay silent, or send too much harm nobody else.

use std::time::Duration;

use contract::marketing::v1::ListDemandSignalsRequest;
use contract::mypage::v1::{GetMyPageRequest, WatchMyPageRequest};
use fault::Reason;
use runtime::server::{MAX_MESSAGE, ServerOptions};
use runtime::status::reason_of;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::Code;

use crate::support::{Running, instructed, options, raw, raw_call, soon};

/// Waits until the server has closed this connection.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    // An orderly end and a reset are both accepted.
    let _ = soon(stream.read_to_end(&mut rest)).await;
}

#[tokio::test]
async fn an_oversized_message_is_refused_and_the_connection_stays() {
    let server = Running::start(options()).await;
    let mut client = server.marketing();
    let request = ListDemandSignalsRequest { filter: "x".repeat(MAX_MESSAGE + 1), ..Default::default() };
    let status = client.list_demand_signals(request).await.unwrap_err();
    assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    client.list_demand_signals(instructed("")).await.unwrap();
}

#[tokio::test]
async fn a_client_that_says_nothing_or_too_little_is_closed() {
    let server = Running::start(ServerOptions { handshake_timeout: Duration::from_millis(100), ..options() }).await;
    let mut silent = TcpStream::connect(server.addr).await.unwrap();
    let mut slow = TcpStream::connect(server.addr).await.unwrap();
    slow.write_all(b"PRI * HTTP/2.0\r\n").await.unwrap();
    let mut stranger = TcpStream::connect(server.addr).await.unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    closed(&mut silent).await;
    closed(&mut slow).await;
    closed(&mut stranger).await;
    server.marketing().list_demand_signals(instructed("")).await.unwrap();
}

#[tokio::test]
async fn a_client_that_stops_answering_is_closed() {
    let keepalive = Duration::from_millis(100);
    let limits = ServerOptions { keepalive_interval: keepalive, keepalive_timeout: keepalive, ..options() };
    let server = Running::start(limits).await;
    let mut half_open = TcpStream::connect(server.addr).await.unwrap();
    // Speaks HTTP/2 only as far as the handshake, and answers no ping.
    half_open.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    closed(&mut half_open).await;
    server.marketing().list_demand_signals(instructed("")).await.unwrap();
}

#[tokio::test]
async fn silent_clients_keep_nobody_out() {
    let limits = ServerOptions { max_half_open: 4, handshake_timeout: Duration::from_secs(3600), ..options() };
    let server = Running::start(limits).await;
    let mut silent = Vec::new();
    for _ in 0..16 {
        silent.push(TcpStream::connect(server.addr).await.unwrap());
    }
    server.marketing().list_demand_signals(instructed("")).await.unwrap();
    for stream in &mut silent[..12] {
        closed(stream).await;
    }
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed_at_once() {
    let server = Running::start(ServerOptions { max_connections: 1, ..options() }).await;
    let (mut first, driver) = raw(server.addr).await;
    assert_eq!(raw_call(&mut first, "", &[]).await.code(), Code::Ok);
    let status = soon(server.marketing().list_demand_signals(instructed(""))).await.unwrap_err();
    assert!(runtime::client::is_unreachable(&status), "{status:?}");
    driver.abort();
    drop(first);
    soon(async { while server.marketing().list_demand_signals(instructed("")).await.is_err() {} }).await;
}

#[tokio::test]
async fn calls_in_flight_are_bounded_and_health_is_answered_beyond() {
    let server = Running::start(ServerOptions { max_calls: 1, ..options() }).await;
    let mut client = server.marketing();
    let hanging = tokio::spawn({
        let mut client = client.clone();
        async move { client.list_demand_signals(instructed("hang")).await }
    });
    soon(server.probe.hanging.notified()).await;
    let status = client.list_demand_signals(instructed("")).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert_eq!(reason_of(&status), Some(Reason::Overloaded));
    // Another service of the same process has permits of its own.
    server.my_page().get_my_page(GetMyPageRequest::default()).await.unwrap();
    let mut health = tonic_health::pb::health_client::HealthClient::new(server.channel());
    health.check(tonic_health::pb::HealthCheckRequest::default()).await.unwrap();

    server.probe.release.notify_one();
    soon(hanging).await.unwrap().unwrap();
    client.list_demand_signals(instructed("")).await.unwrap();
}

#[tokio::test]
async fn open_streams_are_bounded_and_give_their_place_back() {
    let server = Running::start(ServerOptions { max_streams: 1, ..options() }).await;
    let mut client = server.my_page();
    let mut first = client.watch_my_page(WatchMyPageRequest::default()).await.unwrap().into_inner();
    soon(first.message()).await.unwrap();
    let status = client.watch_my_page(WatchMyPageRequest::default()).await.unwrap_err();
    assert_eq!(reason_of(&status), Some(Reason::Overloaded));
    drop(first);
    soon(async { while client.watch_my_page(WatchMyPageRequest::default()).await.is_err() {} }).await;
}

#[tokio::test]
async fn the_streams_of_a_connection_are_limited() {
    let server = Running::start(ServerOptions { max_streams_per_connection: 7, ..options() }).await;
    let stream = TcpStream::connect(server.addr).await.unwrap();
    let (sender, mut connection) = h2::client::handshake(stream).await.unwrap();
    let settled = futures::future::poll_fn(|cx| {
        let ended = std::pin::Pin::new(&mut connection).poll(cx).is_ready();
        assert!(!ended, "the connection ended");
        if connection.max_concurrent_send_streams() == 7 {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    });
    soon(settled).await;
    drop(sender);
}

#[tokio::test]
async fn an_old_connection_is_left_in_good_order() {
    let server = Running::start(ServerOptions { connection_age: Duration::from_millis(100), ..options() }).await;
    let (mut busy, busy_driver) = raw(server.addr).await;
    let call = tokio::spawn(async move { raw_call(&mut busy, "hang", &[]).await });
    soon(server.probe.hanging.notified()).await;
    // The younger connection is asked to leave later, so when it is gone the older one has been asked too.
    let (mut idle, idle_driver) = raw(server.addr).await;
    assert_eq!(raw_call(&mut idle, "", &[]).await.code(), Code::Ok);
    soon(idle_driver).await.unwrap().unwrap();
    server.probe.release.notify_one();
    assert_eq!(soon(call).await.unwrap().code(), Code::Ok);
    soon(busy_driver).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_flood_of_headers_is_refused() {
    let server = Running::start(options()).await;
    let (mut sender, _driver) = raw(server.addr).await;
    let flood = "x".repeat(8 * 1024);
    let mut request = http::Request::post("http://server/checkup.marketing.v1.MarketingService/ListDemandSignals");
    for i in 0..8 {
        request = request.header(format!("x-flood-{i}"), &flood);
    }
    let (response, _) = sender.send_request(request.body(()).unwrap(), true).unwrap();
    let refused = match soon(response).await {
        Ok(response) => response.status() == http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Err(_) => true,
    };
    assert!(refused);
    server.marketing().list_demand_signals(instructed("")).await.unwrap();
}

#[tokio::test]
async fn a_rush_of_cancelled_calls_leaves_the_others_alone() {
    let server = Running::start(options()).await;
    let client = server.marketing();
    for _ in 0..20 {
        let mut calls = Vec::new();
        for _ in 0..100 {
            let mut client = client.clone();
            calls.push(tokio::spawn(async move { client.list_demand_signals(instructed("hang")).await }));
        }
        soon(server.probe.hanging.notified()).await;
        calls.iter().for_each(tokio::task::JoinHandle::abort);
    }
    server.probe.release.notify_waiters();
    client.clone().list_demand_signals(instructed("")).await.unwrap();
}
