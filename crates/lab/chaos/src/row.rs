//! The result of a scenario: one row of the table.

use std::fmt::Write;
use std::time::Duration;

use serde_json::{Value, json};

/// How long fewer calls were answered than before the fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Back {
    /// The longest time from a fault, or from the end of a lasting one, to a second with nine tenths of the earlier
    /// rate.
    After(Duration),
    /// No such second came before the next fault or the end of the load.
    NotSeen,
    /// The scenario had no steady load.
    NotMeasured,
}

impl Back {
    /// The worse of two results.
    #[must_use]
    pub fn worst(self, other: Self) -> Self {
        match (self, other) {
            (Self::After(one), Self::After(other)) => Self::After(one.max(other)),
            (Self::NotSeen, _) | (_, Self::NotSeen) => Self::NotSeen,
            (Self::NotMeasured, other) | (other, Self::NotMeasured) => other,
        }
    }
}

/// The result of one scenario.
#[derive(Debug, Clone)]
pub struct Row {
    /// The name of the scenario.
    pub scenario: &'static str,
    /// A description of the fault, for people.
    pub fault: String,
    /// How long the load ran.
    pub load: Duration,
    /// Calls of customers. Each is counted once however many attempts it took.
    pub calls: u64,
    /// Definite answers per second before the fault.
    pub rate: f64,
    /// The numbers of confirmed bookings, of cancellations, of moves and of bookings that wait.
    pub effects: [u64; 4],
    /// Calls without a definite answer after all attempts of a well-behaved client. All were repeated later.
    pub unknown: u64,
    /// How long fewer calls were answered.
    pub back: Back,
    /// Answers that are no longer true.
    pub lost: usize,
    /// Bookings that no request explains.
    pub doubled: usize,
    /// Reads that showed more places of a slot taken than it has.
    pub oversold: u64,
    /// The violations, among them those of `checkup verify`.
    pub complaints: Vec<String>,
    /// Reads of the sampler that were answered.
    pub looks: u64,
    /// The time from the end of the load until every call was settled and all services agreed.
    pub settled: Duration,
    /// The processor time that the hypervisor withheld while the load ran, in per cent.
    pub withheld: f64,
    /// Figures of this scenario alone, for people.
    pub notes: Vec<String>,
}

const TITLES: [&str; 9] = ["fault", "s", "calls", "calls/s", "unknown", "90 % after", "lost", "doubled", "oversold"];
const WIDTHS: [usize; 9] = [44, 5, 7, 7, 7, 10, 4, 7, 8];

impl Row {
    /// Whether the system kept every promise.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lost == 0 && self.doubled == 0 && self.oversold == 0 && self.complaints.is_empty()
    }

    fn cells(&self) -> [String; 9] {
        let back = match self.back {
            Back::After(span) => format!("{:.1} s", span.as_secs_f64()),
            Back::NotSeen => "not seen".to_owned(),
            Back::NotMeasured => "–".to_owned(),
        };
        [
            self.fault.clone(),
            format!("{:.0}", self.load.as_secs_f64()),
            self.calls.to_string(),
            format!("{:.0}", self.rate),
            self.unknown.to_string(),
            back,
            self.lost.to_string(),
            self.doubled.to_string(),
            self.oversold.to_string(),
        ]
    }

    fn note(&self) -> String {
        let settled = format!("agreed {:.1} s after the load", self.settled.as_secs_f64());
        let withheld = format!("{:.0} % of the processors withheld meanwhile", self.withheld);
        let own = self.notes.iter().map(String::as_str);
        own.chain([settled.as_str(), withheld.as_str()]).collect::<Vec<_>>().join("; ")
    }

    /// The lines above the first row, for a terminal.
    #[must_use]
    pub fn heading() -> String {
        let mut text = line(&TITLES.map(str::to_owned));
        text += &format!("  {}\n", "note");
        text
    }

    /// The row and its complaints, for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("{}  {}\n", line(&self.cells()), self.note());
        for complaint in &self.complaints {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "  ✗ {complaint}");
        }
        text
    }

    /// The lines above the first row of a Markdown table.
    #[must_use]
    pub fn markdown_heading() -> String {
        format!("| {} | note |\n|---{}|---|\n", TITLES.join(" | "), "|--:".repeat(TITLES.len() - 1))
    }

    /// The row of a Markdown table.
    #[must_use]
    pub fn markdown(&self) -> String {
        format!("| {} | {} |\n", self.cells().join(" | "), self.note())
    }

    /// The row as JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let back = match self.back {
            Back::After(span) => json!(span.as_secs_f64()),
            Back::NotSeen | Back::NotMeasured => Value::Null,
        };
        json!({
            "scenario": self.scenario, "fault": self.fault, "clean": self.is_clean(), "seconds": self.load.as_secs_f64(),
            "calls": self.calls, "rate": self.rate, "confirmed": self.effects[0], "cancelled": self.effects[1],
            "moved": self.effects[2], "waitlisted": self.effects[3], "unknown": self.unknown,
            "back_after_seconds": back,
            "back_measured": self.back != Back::NotMeasured,
            "lost": self.lost, "doubled": self.doubled, "oversold": self.oversold, "looks": self.looks,
            "settled_seconds": self.settled.as_secs_f64(), "withheld_percent": self.withheld,
            "complaints": self.complaints, "notes": self.notes,
        })
    }
}

fn line(cells: &[String; 9]) -> String {
    let mut text = String::new();
    for (index, (cell, width)) in cells.iter().zip(WIDTHS).enumerate() {
        let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
        text += &if index == 0 { format!("{cell}{gap}") } else { format!("  {gap}{cell}") };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_not_seen_outweighs_every_figure() {
        let second = Back::After(Duration::from_secs(1));
        assert_eq!(Back::NotMeasured.worst(second), second);
        assert_eq!(second.worst(Back::After(Duration::ZERO)), second);
        assert_eq!(second.worst(Back::NotSeen), Back::NotSeen);
    }
}
