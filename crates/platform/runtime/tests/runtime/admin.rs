//! The admin port reports the state of the process.

use runtime::admin;
use runtime::lifecycle::{Readiness, drain_pair};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Running, instructed, options, soon};

async fn get(addr: std::net::SocketAddr, path: &str) -> String {
    let mut stream = TcpStream::connect(addr).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: admin\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn liveness_readiness_and_metrics_are_told() {
    let handle = runtime::metrics::install().unwrap();
    assert!(runtime::metrics::install().is_err());
    let readiness = Readiness::new();
    let latch = readiness.latch("hospital store");
    let (trigger, drain) = drain_pair();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let admin = admin::serve(listener, readiness, handle, drain).unwrap();

    assert!(get(admin.addr(), "/live").await.starts_with("HTTP/1.1 200"));
    let waiting = get(admin.addr(), "/ready").await;
    assert!(waiting.starts_with("HTTP/1.1 503") && waiting.contains("waiting for hospital store"), "{waiting}");
    latch.release();
    assert!(get(admin.addr(), "/ready").await.starts_with("HTTP/1.1 200"));

    let server = Running::start(options()).await;
    server.marketing().list_demand_signals(instructed("refuse")).await.unwrap_err();
    server.marketing().list_demand_signals(instructed("")).await.unwrap();
    let method = "checkup.marketing.v1.MarketingService/ListDemandSignals";
    for code in ["INVALID_ARGUMENT", "OK"] {
        let counted = format!("checkup_calls_total{{method=\"{method}\",code=\"{code}\"}}");
        // An answer is counted when its body ends, which the client may see first.
        soon(async { while !get(admin.addr(), "/metrics").await.contains(&counted) {} }).await;
    }
    let metrics = get(admin.addr(), "/metrics").await;
    for line in
        ["checkup_refusals_total{reason=\"FILTER_INVALID\"}", "checkup_call_seconds_bucket{", "checkup_connections "]
    {
        assert!(metrics.contains(line), "{line}\n{metrics}");
    }

    trigger.request();
    assert!(get(admin.addr(), "/ready").await.contains("draining"));
}
