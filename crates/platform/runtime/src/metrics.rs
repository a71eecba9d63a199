//! The Prometheus recorder and the metrics that every process has. A service names its own metrics beside the code that
//! counts.
//!
//! `admin` serves the scrapes. Without a recorder every metric is a no-op.

use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};

/// Answered calls, by method and code.
pub const CALLS: &str = "checkup_calls_total";
/// Seconds from the arrival of a call to the end of its answer, by method.
pub const CALL_SECONDS: &str = "checkup_call_seconds";
/// Calls that are in progress.
pub const CALLS_IN_FLIGHT: &str = "checkup_calls_in_flight";
/// Statuses made from faults, by reason.
pub const REFUSALS: &str = "checkup_refusals_total";
/// Calls that were refused because their caller had its share of calls under way, by the caller's role.
pub const CALLS_OVER_SHARE: &str = "checkup_calls_over_share_total";
/// Connections that are open.
pub const CONNECTIONS: &str = "checkup_connections";
/// Connections that the server closed early, by cause.
pub const CONNECTIONS_REFUSED: &str = "checkup_connections_refused_total";

/// Buckets from half a millisecond, the cost of one commit to a good disk, to the default deadline.
const SECONDS: &[f64] = &[0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];
/// Buckets for sizes of batches and depths of queues.
const SIZES: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0];

/// Installs the recorder of this process. Histograms whose names end in `_seconds` get buckets for times, the others
/// buckets for sizes. Call it once, before anything is counted, and only if [`crate::admin::serve`] gets the handle:
/// samples accumulate until somebody drains them.
///
/// # Errors
/// [`BuildError`] if a recorder is already installed.
pub fn install() -> Result<PrometheusHandle, BuildError> {
    let seconds = metrics_exporter_prometheus::Matcher::Suffix("_seconds".to_owned());
    let handle =
        PrometheusBuilder::new().set_buckets(SIZES)?.set_buckets_for_metric(seconds, SECONDS)?.install_recorder()?;
    describe();
    Ok(handle)
}

fn describe() {
    use ::metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!(CALLS, "calls that were answered, by method and code");
    describe_histogram!(
        CALL_SECONDS,
        Unit::Seconds,
        "seconds from the arrival of a call to the end of its answer, by method"
    );
    describe_gauge!(CALLS_IN_FLIGHT, "calls that are being worked on");
    describe_counter!(REFUSALS, "refusals and failures, by reason");
    describe_counter!(CALLS_OVER_SHARE, "calls refused because their caller had its share under way, by role");
    describe_gauge!(CONNECTIONS, "open connections");
    describe_counter!(CONNECTIONS_REFUSED, "connections closed by the server before their time, by why");
}
