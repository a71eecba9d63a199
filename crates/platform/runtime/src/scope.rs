//! What the running task works on, for log lines.
//!
//! A span of `tracing` has its fields written as text when it begins, for lines that are hardly ever logged. A scope
//! holds only references; a line of the log writes them out.

use std::fmt;
use std::sync::Arc;

use domain::access::Caller;
use serde_json::json;
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::registry::LookupSpan;

use crate::language::Languages;
use crate::trace::TraceContext;

tokio::task_local! {
    static CURRENT: Arc<Scope>;
}

/// A call that is being answered.
#[derive(Debug)]
pub(crate) struct Scope {
    /// `package.Service/Method`.
    pub(crate) method: Arc<str>,
    pub(crate) trace: TraceContext,
    /// `None` if the caller is not known, or not yet.
    pub(crate) caller: Option<Caller>,
    /// The languages that the caller reads, for refusals; `None` if the call does not say.
    pub(crate) languages: Option<Languages>,
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "call{{method={} trace={}", self.method, self.trace.trace_id())?;
        if let Some(caller) = &self.caller {
            write!(f, " caller={caller}")?;
        }
        f.write_str("}")
    }
}

impl Scope {
    fn json(&self) -> serde_json::Value {
        let caller = self.caller.as_ref().map(ToString::to_string);
        json!({ "method": &*self.method, "trace": self.trace.trace_id(), "caller": caller })
    }
}

/// Runs a future in a scope: each line that it logs names the call.
pub(crate) async fn within<F: Future>(scope: Arc<Scope>, future: F) -> F::Output {
    CURRENT.scope(scope, future).await
}

/// Runs a function in a scope.
pub(crate) fn within_sync<T>(scope: Arc<Scope>, function: impl FnOnce() -> T) -> T {
    CURRENT.sync_scope(scope, function)
}

/// The scope of the running task; `None` outside a call.
pub(crate) fn current() -> Option<Arc<Scope>> {
    CURRENT.try_with(Arc::clone).ok()
}

/// Adds the scope to each line of another format. Whether there are colours must be set in that format, because it
/// cannot take it from the writer.
pub(crate) struct WithScope<F> {
    inner: F,
    json: bool,
}

impl<F> WithScope<F> {
    /// Over a format of readable lines.
    pub(crate) fn text(inner: F) -> Self {
        Self { inner, json: false }
    }

    /// Over a format of which each line is one JSON object.
    pub(crate) fn json(inner: F) -> Self {
        Self { inner, json: true }
    }
}

impl<S, N, F> FormatEvent<S, N> for WithScope<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let Some(scope) = current() else { return self.inner.format_event(context, writer, event) };
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end();
        match line.strip_suffix('}').filter(|_| self.json) {
            Some(open) => writeln!(writer, "{open},\"call\":{}}}", scope.json()),
            None => writeln!(writer, "{line} {scope}"),
        }
    }
}
