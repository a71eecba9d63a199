//! The measurements as a table and as JSON, with what is needed to compare them with others.

use std::time::Duration;

use serde_json::{Value, json};

use super::load::{Kind, Measured};
use crate::terminal::{count, number, span, table};

/// Everything that was measured.
#[derive(Debug)]
pub(super) struct Report {
    /// What was measured.
    pub(super) place: String,
    /// For how long each.
    pub(super) seconds: u64,
    pub(super) results: Vec<Measured>,
}

impl Kind {
    /// For people.
    fn label(self) -> &'static str {
        match self {
            Self::Naive => "reserve, one transaction a request",
            Self::Coalesced => "reserve, coalescing writer",
            Self::Booking => "whole booking",
        }
    }

    /// For scripts.
    fn name(self) -> &'static str {
        match self {
            Self::Naive => "naive",
            Self::Coalesced => "coalesced",
            Self::Booking => "booking",
        }
    }
}

/// Coalesced against naive at one number of callers.
struct Ratio {
    callers: u32,
    rate: f64,
    p99: f64,
}

fn quantile(measured: &Measured, quantile: f64) -> Duration {
    Duration::from_micros(measured.latency.value_at_quantile(quantile))
}

impl Report {
    fn ratios(&self) -> Vec<Ratio> {
        let of = |kind: Kind, callers: u32| self.results.iter().find(|row| row.kind == kind && row.callers == callers);
        let naive = self.results.iter().filter(|row| row.kind == Kind::Naive && row.rate() > 0.0);
        let ratio = |naive: &Measured| {
            let coalesced = of(Kind::Coalesced, naive.callers)?;
            let p99 = quantile(naive, 0.99).as_secs_f64() / quantile(coalesced, 0.99).as_secs_f64().max(1e-6);
            Some(Ratio { callers: naive.callers, rate: coalesced.rate() / naive.rate(), p99 })
        };
        naive.filter_map(ratio).collect()
    }

    pub(super) fn text(&self) -> String {
        let mut table = table(&["one hot slot", "callers", "a second", "p50", "p99", "answered", "refused"]);
        for row in &self.results {
            table.add_row([
                row.kind.label().into(),
                number(row.callers.to_string()),
                number(count(row.rate() as u64)),
                number(span(quantile(row, 0.5))),
                number(span(quantile(row, 0.99))),
                number(count(row.latency.len())),
                number(count(row.refused)),
            ]);
        }
        let mut text = format!("{table}\n");
        for Ratio { callers, rate, p99 } in self.ratios() {
            text += &format!(
                "{callers} callers: {rate:.1} times the rate of one transaction a request, p99 {p99:.1} times lower\n"
            );
        }
        let Self { place, seconds, .. } = self;
        text + &format!("{}; {place}; {seconds} s each; {}\n", machine(), settings())
    }

    pub(super) fn json(&self) -> Value {
        let millis = |duration: Duration| duration.as_secs_f64() * 1000.0;
        let row = |row: &Measured| {
            json!({
                "what": row.kind.name(), "callers": row.callers, "rate": row.rate(), "p50_ms": millis(quantile(row, 0.5)),
                "p99_ms": millis(quantile(row, 0.99)), "calls": row.latency.len(), "refused": row.refused,
            })
        };
        let ratio = |ratio: &Ratio| json!({ "callers": ratio.callers, "rate": ratio.rate, "p99": ratio.p99 });
        json!({
            "machine": machine(),
            "settings": { "place": self.place, "seconds": self.seconds, "store": settings() },
            "results": self.results.iter().map(row).collect::<Vec<_>>(),
            "ratios": self.ratios().iter().map(ratio).collect::<Vec<_>>(),
        })
    }
}

/// What it ran on, as far as the system tells.
fn machine() -> String {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    let build = if cfg!(debug_assertions) { "debug build" } else { "release build" };
    format!("{cores} cores of {model}, {}, {build}", std::env::consts::OS)
}

fn settings() -> &'static str {
    "SQLite WAL, synchronous=FULL; callers and services share the machine"
}
