//! Logs on standard error: readable lines on a terminal, JSON lines otherwise.
//!
//! It sets the process's subscriber and nothing else. Metrics have a module of their own. A line that is logged while a
//! call is answered names the call: see `scope`.

use std::io::{IsTerminal, Write};
use std::panic::PanicHookInfo;

use tracing_subscriber::EnvFilter;

use crate::scope::WithScope;
use crate::tasks::panic_text;

/// The format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// Readable lines if standard error is a terminal, JSON otherwise.
    #[default]
    Auto,
    /// One readable line per event, with colours.
    Pretty,
    /// One JSON object per line.
    Json,
}

/// The filter and the format of logs.
#[derive(Debug, Clone, Default)]
pub struct TelemetryOptions {
    /// The filter from the configuration, such as `info` or `info,runtime=debug`.
    pub level: String,
    /// The value of `RUST_LOG`, which takes precedence over the configuration.
    pub rust_log: Option<String>,
    /// The format of log lines.
    pub format: Format,
}

/// Flushes standard error when it is dropped; keep it until the end of `main`.
#[derive(Debug)]
pub struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        // A closed standard error is no reason to fail at the end.
        let _ = std::io::stderr().flush();
    }
}

/// Begins to log. An invalid filter becomes `info` with a warning. A subscriber that is already set stays.
#[must_use]
pub fn init(options: &TelemetryOptions) -> Guard {
    let wanted = options.rust_log.as_deref().filter(|text| !text.trim().is_empty()).unwrap_or(&options.level);
    let parsed = EnvFilter::builder().parse(wanted);
    let problem = parsed.as_ref().err().map(ToString::to_string);
    let filter = parsed.unwrap_or_else(|_| EnvFilter::new("info"));
    let people = match options.format {
        Format::Auto => std::io::stderr().is_terminal(),
        Format::Pretty => true,
        Format::Json => false,
    };
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // An error means that a test or an embedding program has set a subscriber, which stays.
    if people {
        let colours = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        let builder = builder.compact().map_event_format(|format| WithScope::text(format.with_ansi(colours)));
        let _ = builder.try_init();
    } else {
        let builder = builder.json().flatten_event(true).with_current_span(false);
        if builder.map_event_format(WithScope::json).try_init().is_ok() {
            std::panic::set_hook(Box::new(log_panic));
        }
    }
    if let Some(problem) = problem {
        tracing::warn!(filter = wanted, problem, "the log filter cannot be read; using info");
    }
    Guard(())
}

/// Logs a panic as one line of JSON, so that log collectors can read it.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let location = panic.location().map(ToString::to_string);
    let thread = std::thread::current();
    tracing::error!(location, thread = thread.name(), "{}", panic_text(panic.payload()));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_start_and_a_bad_filter_do_no_harm() {
        let options = TelemetryOptions { level: "=,,x=y".to_owned(), rust_log: None, format: Format::Pretty };
        let first = init(&options);
        let second = init(&TelemetryOptions { rust_log: Some("off".to_owned()), ..options });
        drop((first, second));
    }
}
