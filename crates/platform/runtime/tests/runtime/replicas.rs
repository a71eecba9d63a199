//! Calls go to the replica that their key belongs to, avoid it while it is out of reach, and return to it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use contract::marketing::v1::marketing_service_client::MarketingServiceClient;
use runtime::client::{ClientOptions, Replicas, Silence, is_unreachable};
use runtime::deadline::{Deadline, FAIR};
use runtime::lifecycle::Readiness;
use runtime::server::ServerOptions;
use tokio::net::TcpListener;
use tonic::transport::Uri;

use crate::support::{Probe, Running, TEST_TIMEOUT, instructed, options, soon};

/// Options of a server that stops at once.
fn brief() -> ServerOptions {
    ServerOptions { drain_timeout: Duration::ZERO, ..options() }
}

async fn start_at(addr: &str) -> Running {
    let listener = TcpListener::bind(addr).await.unwrap();
    Running::start_on(listener, brief(), Probe::default(), Readiness::new())
}

fn replicas(addrs: &[SocketAddr]) -> Replicas {
    let addresses: Vec<Uri> = addrs.iter().map(|addr| format!("http://{addr}").parse().unwrap()).collect();
    Replicas::connect(&addresses, ClientOptions::default())
}

/// Tries each replica once, as services do; returns who answered and the number of attempts.
async fn ask(replicas: &Replicas, key: &str) -> Option<(String, usize)> {
    let mut route = replicas.route(key);
    for attempts in 1.. {
        let attempt = route.next_attempt();
        let mut request = instructed("");
        request.set_timeout(TEST_TIMEOUT);
        match soon(MarketingServiceClient::new(attempt.line()).list_demand_signals(request)).await {
            Err(status) if is_unreachable(&status) => attempt.failed(),
            _ => {
                let address = attempt.address().to_owned();
                attempt.answered();
                return Some((address, attempts));
            }
        }
        if !route.has_untried() {
            break;
        }
    }
    None
}

/// A key that belongs to this address.
async fn key_of(replicas: &Replicas, addr: SocketAddr) -> String {
    let belongs = |key: &String| replicas.route(key).next_attempt().address() == format!("http://{addr}/");
    (0..).map(|i| format!("key-{i}")).find(belongs).unwrap()
}

#[tokio::test]
async fn a_silence_that_ended_with_the_callers_time_says_nothing_of_the_replica() {
    let server = start_at("127.0.0.1:0").await;
    let only = replicas(&[server.addr]);
    let attempt = || only.route("k").next_attempt();
    let (over, ahead) = (Deadline::within(Duration::ZERO), Deadline::within(Duration::from_secs(60)));
    assert_eq!(attempt().silent(over), Silence::Caller);
    assert_eq!(attempt().silent(ahead), Silence::Replica);
    let (hurried, patient) = (attempt(), attempt());
    let enough = Deadline::within(FAIR);
    tokio::time::sleep_until(enough.instant()).await;
    assert_eq!(patient.silent(enough), Silence::Replica);
    assert_eq!(hurried.silent(over), Silence::Caller, "however late this process notices");
}

#[tokio::test]
async fn the_calls_of_a_key_meet_whoever_makes_them() {
    let (a, b) = (start_at("127.0.0.1:0").await, start_at("127.0.0.1:0").await);
    let (here, there) = (replicas(&[a.addr, b.addr]), replicas(&[b.addr, a.addr]));
    for i in 0..20 {
        let key = format!("key-{i}");
        let first = ask(&here, &key).await.unwrap();
        for caller in [&here, &there, &here] {
            assert_eq!(ask(caller, &key).await.as_ref(), Some(&first));
        }
    }
}

#[tokio::test]
async fn a_lost_replica_is_left_within_one_call_and_found_again() {
    let (a, b) = (start_at("127.0.0.1:0").await, start_at("127.0.0.1:0").await);
    let (at_a, at_b) = (format!("http://{}/", a.addr), format!("http://{}/", b.addr));
    let replicas = replicas(&[a.addr, b.addr]);
    let key = key_of(&replicas, a.addr).await;
    assert_eq!(ask(&replicas, &key).await, Some((at_a.clone(), 1)));

    let addr = a.addr.to_string();
    a.trigger.request();
    soon(a.ended).await.unwrap().unwrap();
    assert_eq!(ask(&replicas, &key).await, Some((at_b.clone(), 2)));
    assert_eq!(ask(&replicas, &key).await, Some((at_b.clone(), 1)), "the lost one is passed over");

    let _again = start_at(&addr).await;
    soon(async { while ask(&replicas, &key).await != Some((at_a.clone(), 1)) {} }).await;
}

#[tokio::test]
async fn a_replica_that_is_not_ready_is_passed_over() {
    let (a, b) = (TcpListener::bind("127.0.0.1:0").await.unwrap(), start_at("127.0.0.1:0").await);
    let readiness = Readiness::new();
    let latch = readiness.latch("a test");
    let a = Running::start_on(a, brief(), Probe::default(), readiness);
    let replicas = replicas(&[a.addr, b.addr]);
    let key = key_of(&replicas, a.addr).await;
    assert_eq!(ask(&replicas, &key).await, Some((format!("http://{}/", b.addr), 2)));
    latch.release();
    soon(async { while ask(&replicas, &key).await != Some((format!("http://{}/", a.addr), 1)) {} }).await;
}

#[tokio::test]
async fn a_peer_that_accepts_and_never_answers_is_given_up() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = silent.local_addr().unwrap();
    let accepting = tokio::spawn(async move {
        let mut held = Vec::new();
        while let Ok((stream, _)) = silent.accept().await {
            held.push(stream);
        }
    });
    let answering = start_at("127.0.0.1:0").await;
    let replicas = replicas(&[addr, answering.addr]);
    let key = key_of(&replicas, addr).await;
    let begun = Instant::now();
    assert_eq!(ask(&replicas, &key).await, Some((format!("http://{}/", answering.addr), 2)));
    // Two seconds until the ping, and two more until it counts as unanswered.
    assert!(begun.elapsed() < Duration::from_millis(4_500), "{:?}", begun.elapsed());
    accepting.abort();
}
