//! Formats the result of a verification as lines and as JSON.

use std::collections::BTreeSet;

use domain::invariants::{Disagreement, ServiceRows};
use serde_json::{Value, json};

use super::stream::StreamReport;
use crate::recover::Finding;
use crate::terminal::{count, verdict};

/// How many rows each service has. `None` if the service does not run.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    slots: Option<usize>,
    claims: Option<usize>,
    screenings: Option<usize>,
    reservations: Option<usize>,
    items: Option<usize>,
    customers: usize,
}

impl Counts {
    pub(super) fn of(service_rows: &ServiceRows) -> Self {
        let customers: BTreeSet<_> = service_rows.items.iter().flatten().map(|item| &item.customer).collect();
        Self {
            slots: service_rows.slots.as_ref().map(Vec::len),
            claims: service_rows.claims.as_ref().map(Vec::len),
            screenings: service_rows.screenings.as_ref().map(Vec::len),
            reservations: service_rows.reservations.as_ref().map(Vec::len),
            items: service_rows.items.as_ref().map(Vec::len),
            customers: customers.len(),
        }
    }

    /// The number of bookings: the greater one of screenings and claims.
    pub(super) fn bookings(&self) -> usize {
        self.screenings.max(self.claims).unwrap_or(0)
    }
}

/// The name of the rule that a log has everything that was read of it.
const PAST_IS_WHOLE: &str = "past-is-whole";

/// The name of the rule that the stream has every event that was published into it.
const STREAM_IS_WHOLE: &str = "stream-is-whole";

fn line(rule: &str, Finding { subject, detail }: &Finding) -> String {
    format!("{} {subject}: {detail}\n", verdict(false, rule))
}

fn row(rule: &str, Finding { subject, detail }: &Finding) -> Value {
    json!({ "rule": rule, "subject": subject, "detail": detail })
}

/// The lines about lost pasts.
pub(super) fn lost(lost: &[Finding]) -> String {
    let mut text = String::from("read: nothing\n");
    for finding in lost {
        text += &line(PAST_IS_WHOLE, finding);
    }
    let summary = "a database was put back to an earlier time; nothing is served until `checkup recover` was run";
    text + &format!("{}\n", verdict(false, summary))
}

/// The same result as JSON.
pub(super) fn lost_json(lost: &[Finding]) -> Value {
    let rows: Vec<Value> = lost.iter().map(|finding| row(PAST_IS_WHOLE, finding)).collect();
    json!({ "ok": false, "read": {}, "skipped": [], "moving": [], "disagreements": rows })
}

/// The result of a verification.
#[derive(Debug)]
pub(super) struct Report {
    pub(super) read: Counts,
    /// Services that do not run.
    pub(super) skipped: Vec<&'static str>,
    /// What does not agree.
    pub(super) disagreements: Vec<Disagreement>,
    /// What changed during every reading, so that it could not be judged.
    pub(super) moving: Vec<Disagreement>,
    /// What the stream has and lacks, if there is one and it was read.
    pub(super) stream: Option<StreamReport>,
}

impl Report {
    /// Whether something was read, and everything that was read agrees.
    pub(super) fn is_ok(&self) -> bool {
        let Counts { slots, screenings, reservations, .. } = self.read;
        self.wrong() == 0 && (slots.is_some() || screenings.is_some() || reservations.is_some())
    }

    fn lacks(&self) -> &[Finding] {
        self.stream.as_ref().map_or(&[], |stream| &stream.lacks)
    }

    fn wrong(&self) -> usize {
        self.disagreements.len() + self.lacks().len()
    }

    pub(super) fn text(&self) -> String {
        let Counts { slots, claims, screenings, reservations, items, customers } = self.read;
        let service_rows = [
            ("slots", slots),
            ("claims", claims),
            ("screenings", screenings),
            ("reservations", reservations),
            ("my-page items", items),
            ("customers", items.map(|_| customers)),
        ];
        let read: Vec<String> = service_rows
            .into_iter()
            .filter_map(|(what, rows)| rows.map(|rows| format!("{what} {}", count(rows as u64))))
            .collect();
        let mut text = format!("read: {}\n", if read.is_empty() { "nothing".to_owned() } else { read.join(", ") });
        if let Some(StreamReport { events, empty, .. }) = &self.stream {
            text += &format!("stream: events {}, sequences without one {}\n", count(*events), count(*empty));
        }
        if !self.skipped.is_empty() {
            text += &format!("skipped, not there: {}\n", self.skipped.join(", "));
        }
        for row in &self.moving {
            text += &format!("not judged, for it never stood still: {}\n", row.subject);
        }
        for row in &self.disagreements {
            text += &format!("{} {}: {}\n", verdict(false, row.rule.name()), row.subject, row.detail);
        }
        for finding in self.lacks() {
            text += &line(STREAM_IS_WHOLE, finding);
        }
        let summary = match self.wrong() {
            0 if self.is_ok() => "everything that was read agrees".to_owned(),
            0 => "nothing was verified".to_owned(),
            1 => "1 disagreement".to_owned(),
            more => format!("{} disagreements", count(more as u64)),
        };
        text + &format!("{}\n", verdict(self.is_ok(), &summary))
    }

    pub(super) fn json(&self) -> Value {
        let Counts { slots, claims, screenings, reservations, items, customers } = self.read;
        let rows = |rows: &[Disagreement]| -> Vec<Value> {
            let row = |row: &Disagreement| json!({ "rule": row.rule.name(), "subject": row.subject.to_string(), "detail": row.detail });
            rows.iter().map(row).collect()
        };
        let mut disagreements = rows(&self.disagreements);
        disagreements.extend(self.lacks().iter().map(|finding| row(STREAM_IS_WHOLE, finding)));
        let stream = self.stream.as_ref();
        json!({
            "ok": self.is_ok(),
            "read": {
                "slots": slots, "claims": claims, "screenings": screenings, "reservations": reservations,
                "items": items, "customers": customers,
            },
            "skipped": self.skipped,
            "moving": rows(&self.moving),
            "disagreements": disagreements,
            "stream": stream.map(|stream| json!({ "events": stream.events, "empty": stream.empty })),
        })
    }
}
