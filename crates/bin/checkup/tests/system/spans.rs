//! Spans: a collector hears what every process did for a trace, and what it did because of it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use contract::screening::v1::{CreateScreeningRequest, Screening};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{TraceService, TraceServiceServer};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use testkit::{Desk, eventually};
use tokio::task::JoinHandle;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, async_trait};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

use crate::{embedded, launch};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// What a collector has received: spans with the names of their services.
#[derive(Debug, Clone, Default)]
struct Received(Arc<Mutex<Vec<(String, Span)>>>);

#[async_trait]
impl TraceService for Received {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        // a proxy on the way begins no trace of it
        let traceparent = request.metadata().get("traceparent").and_then(|value| value.to_str().ok());
        if !traceparent.is_some_and(|traceparent| traceparent.ends_with("-00")) {
            return Err(Status::invalid_argument(format!("an export in the trace {traceparent:?}")));
        }
        let mut received = self.0.lock().expect("no panic");
        for of_service in request.into_inner().resource_spans {
            let attributes = of_service.resource.map(|resource| resource.attributes).unwrap_or_default();
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name");
            let Some(Value::StringValue(service)) = name.and_then(|name| name.value?.value) else {
                return Err(Status::invalid_argument("a resource without a name"));
            };
            let spans = of_service.scope_spans.into_iter().flat_map(|scope| scope.spans);
            received.extend(spans.map(|span| (service.clone(), span)));
        }
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Received {
    /// The spans of a trace.
    fn of(&self, trace: &str) -> Vec<(String, Span)> {
        let all = self.0.lock().expect("no panic");
        all.iter().filter(|(_, span)| hex(&span.trace_id) == trace).cloned().collect()
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A collector that listens on this address; on a free port for port 0.
async fn collector(addr: SocketAddr) -> (SocketAddr, Received, JoinHandle<()>) {
    let incoming = TcpIncoming::bind(addr).expect("a port");
    let (addr, received) = (incoming.local_addr().expect("an address"), Received::default());
    let server = Server::builder().add_service(TraceServiceServer::new(received.clone()));
    let running = tokio::spawn(async move { server.serve_with_incoming(incoming).await.expect("serving") });
    (addr, received, running)
}

fn local() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn booking(customer: &str, slot: &str, traceparent: &str) -> Request<CreateScreeningRequest> {
    let screening =
        Screening { customer: format!("customers/{customer}"), slot: slot.to_owned(), ..Screening::default() };
    let mut request =
        Request::new(CreateScreeningRequest { screening: Some(screening), ..CreateScreeningRequest::default() });
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
    request
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_leads_through_both_services_and_the_events() {
    let (addr, received, _running) = collector(local()).await;
    let checkup = launch().set("telemetry.otlp_endpoint", format!("http://{addr}")).start().await;
    let slot = Desk::of(&checkup.admin().await).open("traced", &[7], 5).await.remove(0);
    let kim = checkup.customer("kim").await;
    let traceparent = format!("00-{TRACE}-{CALLER}-01");
    let mut probe = Request::new(HealthCheckRequest::default());
    probe.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
    HealthClient::new(kim.channel().clone()).check(probe).await.expect("health");
    kim.screening().create_screening(booking("kim", &slot, &traceparent)).await.expect("a place");

    let expected: BTreeMap<&str, &str> = [
        ("screening", "checkup.screening.v1.ScreeningService/CreateScreening"),
        ("hospital", "checkup.capacity.v1.CapacityService/ReserveCapacity"),
        ("reservation", "reservation-screenings screening_confirmed"),
        ("mypage", "mypage-screenings screening_confirmed"),
        ("marketing", "marketing-screening screening_confirmed"),
    ]
    .into();
    let spans = eventually("the spans of every service", async || {
        let spans = received.of(TRACE);
        let sent = |service: &str, name: &str| spans.iter().any(|(from, span)| from == service && span.name == name);
        let missing: Vec<_> = expected.iter().filter(|(service, name)| !sent(service, name)).collect();
        if missing.is_empty() { Ok(spans.clone()) } else { Err(format!("no {missing:?} in {spans:#?}")) }
    })
    .await;
    // every span hangs below another one, and the first below the caller's
    let ids: BTreeSet<String> = spans.iter().map(|(_, span)| hex(&span.span_id)).collect();
    for (service, span) in &spans {
        let parent = hex(&span.parent_span_id);
        assert!(ids.contains(&parent) || parent == CALLER, "{service}: {span:#?}");
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano);
        assert!(!span.name.starts_with("grpc."), "a probe is no part of a trace: {span:#?}");
        assert_eq!(span.status.as_ref().map(|status| status.message.as_str()), None, "{service}: {span:#?}");
    }
    let created = spans.iter().find(|(_, span)| span.name == expected["screening"]).expect("the booking");
    assert_eq!((created.0.as_str(), hex(&created.1.parent_span_id).as_str()), ("screening", CALLER));
    let reserved = spans.iter().find(|(_, span)| span.name == expected["hospital"]).expect("the place");
    assert_eq!(reserved.1.parent_span_id, created.1.span_id);
}

/// The collector is no part of a call: without one calls go on, and one that comes late gets the spans from then on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collector_that_is_away_costs_spans_and_nothing_else() {
    let (addr, _, running) = collector(local()).await;
    running.abort();
    let _ = running.await;
    let checkup = embedded().set("telemetry.otlp_endpoint", format!("http://{addr}")).start().await;
    let slot = Desk::of(&checkup.admin().await).open("traced", &[7], 5).await.remove(0);
    let kim = checkup.customer("kim").await;
    let unsampled = booking("kim", &slot, &format!("00-{TRACE}-{CALLER}-00"));
    kim.screening().create_screening(unsampled).await.expect("a place");
    eventually("the loss to be counted", async || {
        let page = testkit::get(checkup.admin_addr(), "/metrics").await?.body;
        let counted = page.lines().any(|line| line.starts_with("checkup_spans_dropped_total{reason=\"collector\"}"));
        if counted { Ok(()) } else { Err(page) }
    })
    .await;

    let (_, received, _running) = collector(addr).await;
    let desk = Desk::of(&kim);
    let later = TRACE.replace("4bf9", "5bf9");
    eventually("spans to arrive again", async || {
        let mut request = Request::new(contract::hospital::v1::GetSlotRequest { name: slot.clone() });
        let traceparent = format!("00-{later}-{CALLER}-01");
        request.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
        kim.hospital().get_slot(request).await.expect("the slot");
        if received.of(&later).is_empty() { Err("none".to_owned()) } else { Ok(()) }
    })
    .await;
    desk.slot(&slot).await.expect("the slot");
    // whoever began the trace did not want it sampled
    assert_eq!(received.of(TRACE), []);
    // what was done last is sent before the process ends
    let last = TRACE.replace("4bf9", "6bf9");
    let request = booking("park", &slot, &format!("00-{last}-{CALLER}-01"));
    checkup.customer("park").await.screening().create_screening(request).await.expect("a place");
    checkup.stop().await;
    let names: Vec<String> = received.of(&last).into_iter().map(|(_, span)| span.name).collect();
    assert!(names.iter().any(|name| name.ends_with("/CreateScreening")), "{names:?}");
}
