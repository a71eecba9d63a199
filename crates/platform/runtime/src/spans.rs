//! Spans for an operator's collector, sent by OTLP over gRPC: what this process did for a trace, and for how long.
//!
//! A span is made once its work has ended, from what the log line of the work has anyway; nothing is kept while it
//! runs. Without an exporter nothing is made. A span that finds the queue full is dropped and counted: neither a call
//! nor an event ever waits for the collector.

use std::sync::OnceLock;
use std::time::Duration;

use http::Uri;
use metrics::counter;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span, Status};
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};

use crate::clock::Clock;
use crate::entropy;
use crate::process::Process;
use crate::tasks::Kind;
use crate::trace::{TRACEPARENT, TraceContext};

/// How many spans wait for the collector at most.
const QUEUE: usize = 8_192;
/// How many spans one export carries at most.
const BATCH: usize = 512;
/// How long spans wait for others to be exported with.
const GATHERING: Duration = Duration::from_millis(500);
/// How long the collector may take to answer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

const DROPPED: &str = "checkup_spans_dropped_total";
const EXPORTED: &str = "checkup_spans_exported_total";

static EXPORTER: OnceLock<Exporter> = OnceLock::new();

/// Whether and where spans are exported.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SpanOptions {
    /// The collector's OTLP endpoint for gRPC, for example `http://127.0.0.1:4317`. `None`: spans are not made.
    pub endpoint: Option<Uri>,
    /// The share of the traces beginning here that is sampled, 0 to 1. A trace that a caller began is sampled as the
    /// caller said.
    pub ratio: f64,
}

#[derive(Debug)]
struct Exporter {
    queue: mpsc::Sender<(String, Span)>,
    ratio: f64,
    /// Set once no further span comes.
    finished: watch::Sender<bool>,
}

/// Work that has ended.
#[derive(Debug)]
pub struct Ended {
    /// The service that did it, as `service.name`.
    pub service: String,
    /// What was done: a method, or a consumer and a fact.
    pub name: String,
    /// Whether it answered a call. Otherwise it consumed an event.
    pub call: bool,
    /// How long it took.
    pub elapsed: Duration,
    /// Why it failed, if it did.
    pub failure: Option<String>,
    /// What else is known of it, by the names of OpenTelemetry where it has one.
    pub attributes: Vec<(&'static str, String)>,
}

/// Begins to export spans if the options say where to. Only the first exporter of a process counts.
pub fn start(options: &SpanOptions, process: &Process) {
    let Some(endpoint) = options.endpoint.clone() else { return };
    let (queue, waiting) = mpsc::channel(QUEUE);
    let (finished, finishes) = watch::channel(false);
    if EXPORTER.set(Exporter { queue, ratio: options.ratio, finished }).is_ok() {
        let channel = Endpoint::from(endpoint).connect_timeout(EXPORT_TIMEOUT).connect_lazy();
        process.tasks.spawn(Kind::Job, "spans", export(waiting, channel, finishes));
    }
}

/// Exports what is left, once the work of this process has ended: the exporter's task ends with it.
pub fn finish() {
    if let Some(exporter) = EXPORTER.get() {
        exporter.finished.send_replace(true);
    }
}

/// Whether a trace that begins here is sampled.
pub(crate) fn sampled() -> bool {
    EXPORTER.get().is_none_or(|exporter| {
        // 53 bits fill the fraction of a number between 0 and 1
        let draw = u64::from_le_bytes(entropy::bytes()) >> 11;
        (draw as f64) < exporter.ratio * (1_u64 << 53) as f64
    })
}

/// Whether spans are exported at all.
#[must_use]
pub fn are_exported() -> bool {
    EXPORTER.get().is_some()
}

/// Exports work that was done for a trace, if the trace is sampled. `make` runs only then.
pub fn ended(trace: &TraceContext, make: impl FnOnce() -> Ended) {
    let Some(exporter) = EXPORTER.get().filter(|_| trace.is_sampled()) else { return };
    let ended = make();
    let service = ended.service.clone();
    match exporter.queue.try_send((service, span(trace, ended))) {
        Ok(()) => {}
        Err(TrySendError::Full(_)) => counter!(DROPPED, "reason" => "queue").increment(1),
        Err(TrySendError::Closed(_)) => counter!(DROPPED, "reason" => "stopped").increment(1),
    }
}

fn span(trace: &TraceContext, ended: Ended) -> Span {
    let Ended { service: _, name, call, elapsed, failure, attributes } = ended;
    // the collector compares it with other processes' clocks, so it is the machine's
    let end = u64::try_from(Clock::system().now().as_nanosecond()).unwrap_or(0);
    let elapsed = u64::try_from(elapsed.as_nanos()).unwrap_or(u64::MAX);
    Span {
        trace_id: trace.trace_bytes().to_vec(),
        span_id: trace.span_bytes().to_vec(),
        parent_span_id: trace.parent_bytes().map(|parent| parent.to_vec()).unwrap_or_default(),
        name,
        kind: if call { SpanKind::Server } else { SpanKind::Consumer }.into(),
        start_time_unix_nano: end.saturating_sub(elapsed),
        end_time_unix_nano: end,
        attributes: attributes.into_iter().map(|(key, value)| text(key, value)).collect(),
        status: failure.map(|message| Status { message, code: StatusCode::Error.into() }),
        ..Span::default()
    }
}

fn text(key: &str, value: String) -> KeyValue {
    let value = Some(AnyValue { value: Some(any_value::Value::StringValue(value)) });
    KeyValue { key: key.to_owned(), value, ..KeyValue::default() }
}

/// Exports spans until no more come, and then those that are left.
async fn export(mut waiting: mpsc::Receiver<(String, Span)>, channel: Channel, mut finishes: watch::Receiver<bool>) {
    let mut collector = TraceServiceClient::new(channel);
    let mut reached = true;
    let mut batch = Vec::new();
    loop {
        let finished = *finishes.borrow();
        if finished {
            // what is there by now, and no more
            waiting.close();
        }
        let found = tokio::select! {
            found = waiting.recv_many(&mut batch, BATCH) => found,
            _ = finishes.changed(), if !finished => continue,
        };
        if found == 0 {
            return;
        }
        if !finished {
            gather(&mut waiting, &mut batch, &mut finishes).await;
        }
        let count = batch.len() as u64;
        let answer = timeout(EXPORT_TIMEOUT, collector.export(request_of(std::mem::take(&mut batch)))).await;
        let failure = match answer {
            Ok(Ok(_)) => None,
            Ok(Err(status)) => Some(status.to_string()),
            Err(_) => Some("no answer in time".to_owned()),
        };
        match failure {
            None => counter!(EXPORTED).increment(count),
            Some(_) => counter!(DROPPED, "reason" => "collector").increment(count),
        }
        match (reached, &failure) {
            (true, Some(error)) => {
                tracing::warn!(error, "the collector takes no spans; they are dropped until it does")
            }
            (false, None) => tracing::info!("the collector takes spans again"),
            _ => {}
        }
        reached = failure.is_none();
        if *finishes.borrow() && !reached {
            return;
        }
    }
}

/// An export, which nobody wants spans of: a proxy on the way would otherwise begin a trace of each.
fn request_of(batch: Vec<(String, Span)>) -> Request<ExportTraceServiceRequest> {
    let mut request = Request::new(ExportTraceServiceRequest { resource_spans: by_service(batch) });
    if let Ok(traceparent) = AsciiMetadataValue::try_from(TraceContext::background().traceparent()) {
        request.metadata_mut().insert(TRACEPARENT, traceparent);
    }
    request
}

/// Waits a moment for further spans.
async fn gather(
    waiting: &mut mpsc::Receiver<(String, Span)>,
    batch: &mut Vec<(String, Span)>,
    finishes: &mut watch::Receiver<bool>,
) {
    let limit = Instant::now() + GATHERING;
    while batch.len() < BATCH {
        let room = BATCH - batch.len();
        tokio::select! {
            found = waiting.recv_many(batch, room) => if found == 0 { return },
            () = sleep(limit - Instant::now()) => return,
            _ = finishes.changed() => return,
        }
    }
}

fn by_service(batch: Vec<(String, Span)>) -> Vec<ResourceSpans> {
    let mut services: std::collections::BTreeMap<String, Vec<Span>> = std::collections::BTreeMap::new();
    for (service, span) in batch {
        services.entry(service).or_default().push(span);
    }
    let scope = InstrumentationScope {
        name: "checkup".to_owned(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..InstrumentationScope::default()
    };
    let group = |(service, spans): (String, Vec<Span>)| {
        let attributes = vec![text("service.name", service), text("service.namespace", "checkup".to_owned())];
        ResourceSpans {
            resource: Some(Resource { attributes, ..Resource::default() }),
            scope_spans: vec![ScopeSpans { scope: Some(scope.clone()), spans, ..ScopeSpans::default() }],
            ..ResourceSpans::default()
        }
    };
    services.into_iter().map(group).collect()
}
