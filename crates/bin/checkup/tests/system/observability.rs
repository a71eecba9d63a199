//! What an operator sees: the admin pages, the metrics, and one trace through all services.

use contract::hospital::v1 as hospital;
use contract::screening::v1 as screening;
use hospital::ListHospitalsRequest;
use screening::{CreateScreeningRequest, Screening};
use serde_json::Value;
use testkit::{Checkup, Desk, Direction, FaultProxy, eventually, get};
use tonic::Request;

use crate::embedded;

/// Metrics that alarms use.
const METRICS: &[&str] = &[
    "checkup_writer_queue_depth",
    "checkup_store_writable",
    "checkup_writer_batch_size",
    "checkup_refusals_total",
    "checkup_consumer_lag",
    "checkup_outbox_age_seconds",
];

async fn metrics(checkup: &Checkup) -> Result<String, String> {
    let page = get(checkup.admin_addr(), "/metrics").await?;
    if page.status == 200 { Ok(page.body) } else { Err(format!("{page:?}")) }
}

/// The value of a metric's only sample with these labels.
fn sample(page: &str, name: &str, labels: &[&str]) -> Option<f64> {
    let line = page.lines().find(|line| {
        line.starts_with(name)
            && line[name.len()..].starts_with(['{', ' '])
            && labels.iter().all(|label| line.contains(label))
    })?;
    line.rsplit(' ').next()?.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_tells_whether_it_lives_and_what_it_does() {
    let checkup = embedded().start().await;
    for path in ["/live", "/ready"] {
        assert_eq!(get(checkup.admin_addr(), path).await.expect("a page").status, 200, "{path}");
    }
    assert_eq!(get(checkup.admin_addr(), "/no-such-page").await.expect("a page").status, 404);
    let slot = Desk::of(&checkup.admin().await).open("measured", &[7], 1).await.remove(0);
    let kim = Desk::of(&checkup.customer("kim").await);
    let booked = kim.book("kim", &slot, "").await.expect("a place");
    Desk::of(&checkup.customer("lee").await).book("lee", &slot, "").await.expect_err("the slot is full");
    kim.cancel(&booked.name, "").await.expect("cancelled");
    let page = eventually("every metric to be there", async || {
        let page = metrics(&checkup).await?;
        let missing: Vec<_> = METRICS.iter().filter(|name| !page.contains(*name)).collect();
        if missing.is_empty() { Ok(page) } else { Err(format!("{missing:?} missing in\n{page}")) }
    })
    .await;
    for service in ["hospital", "screening"] {
        let label = format!("service=\"{service}\"");
        assert!(
            page.lines().any(|line| line.starts_with("checkup_writer_batch_size") && line.contains(&label)),
            "{page}"
        );
    }
    eventually("the refusal to be counted by its reason", async || {
        let page = metrics(&checkup).await?;
        let counted = sample(&page, "checkup_refusals_total", &["reason=\"SLOT_FULL\""]);
        if counted.is_some_and(|count| count >= 1.0) { Ok(()) } else { Err(page) }
    })
    .await;
    eventually("every consumer to be at the end", async || {
        let page = metrics(&checkup).await?;
        let lags: Vec<&str> = page.lines().filter(|line| line.starts_with("checkup_consumer_lag{")).collect();
        let settled = lags.len() >= 5 && lags.iter().all(|line| line.ends_with(" 0"));
        if settled { Ok(()) } else { Err(format!("{lags:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_goes_is_not_ready_and_still_alive() {
    let proxy = FaultProxy::start().await;
    let checkup = embedded().set("screening.hospital_address", proxy.uri()).start().await;
    proxy.forward_to(checkup.addr());
    let slot = Desk::of(&checkup.admin().await).open("leaving", &[7], 5).await.remove(0);
    let kim = Desk::of(&checkup.customer("kim").await);
    // A call that hangs keeps the drain from ending during the test.
    proxy.blackhole(Direction::ToClient);
    let hanging = {
        let slot = slot.clone();
        tokio::spawn(async move { kim.book("kim", &slot, "").await })
    };
    let reader = Desk::of(&checkup.stranger().await);
    eventually("the call to hang", async || {
        let booked = reader.booked(&slot).await?;
        if booked == 1 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    checkup.terminate();
    eventually("the process not to be ready", async || {
        let page = get(checkup.admin_addr(), "/ready").await?;
        if page.status == 503 { Ok(()) } else { Err(format!("{page:?}")) }
    })
    .await;
    assert_eq!(get(checkup.admin_addr(), "/live").await.expect("a page").status, 200);
    drop(checkup);
    hanging.abort();
}

/// Every line of the log, parsed as JSON.
fn log(checkup: &Checkup) -> Vec<Value> {
    let parse = |line: &String| match serde_json::from_str(line) {
        Ok(line) => line,
        Err(error) => panic!("a log line that is not JSON ({error}): {line}"),
    };
    checkup.stderr().lines().iter().filter(|line| !line.is_empty()).map(parse).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_follows_a_booking_through_calls_and_events() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    let checkup = embedded().set("telemetry.filter", "debug").start().await;
    let slot = Desk::of(&checkup.admin().await).open("traced", &[7], 5).await.remove(0);
    let kim = checkup.customer("kim").await;
    let mut request = Request::new(CreateScreeningRequest {
        screening: Some(Screening {
            customer: "customers/kim".to_owned(),
            customer_display_name: "Kim Never-In-A-Log".to_owned(),
            slot,
            ..Screening::default()
        }),
        ..CreateScreeningRequest::default()
    });
    let traceparent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    request.metadata_mut().insert("traceparent", traceparent.parse().expect("a header"));
    let booked = kim.screening().create_screening(request).await.expect("a place").into_inner();
    // The trace of this call is in the log of both services' calls and of every consumer of its events.
    eventually("the trace to be in every service", async || {
        let lines: Vec<String> =
            log(&checkup).iter().map(Value::to_string).filter(|line| line.contains(TRACE)).collect();
        let missing: Vec<&str> = ["CreateScreening", "ReserveCapacity", "reservation", "mypage"]
            .into_iter()
            .filter(|who| !lines.iter().any(|line| line.contains(who)))
            .collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("no {missing:?} in {lines:#?}")) }
    })
    .await;
    for line in log(&checkup) {
        let line = line.to_string();
        assert!(!line.contains("Never-In-A-Log"), "a person's name: {line}");
        assert!(!line.contains(checkup.tokens().customer("kim").rsplit('.').next().unwrap_or("x")), "a token: {line}");
    }
    assert!(!booked.name.is_empty());
    // The log has the refusal with its reason, the method and the caller. The client gets no more than the reason.
    let list = ListHospitalsRequest { page_size: -1, ..ListHospitalsRequest::default() };
    kim.hospital().list_hospitals(list).await.expect_err("a bad page size");
    eventually("the refusal to be logged", async || {
        let found = log(&checkup).iter().any(|line| {
            let call = &line["call"];
            line.to_string().contains("FIELD_INVALID")
                && call["method"] == "checkup.hospital.v1.HospitalService/ListHospitals"
                && call["caller"] == "customer:kim"
                && call["trace"].as_str().is_some_and(|trace| trace.len() == 32)
        });
        if found { Ok(()) } else { Err(checkup.stderr().tail(5)) }
    })
    .await;
}
