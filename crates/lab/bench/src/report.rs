//! The report of a run as text, JSON and Markdown.

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use serde_json::{Value, json};

use crate::section::{Rows, Section, Side};
use crate::{Machine, Order, Plan};

/// The results of a run.
#[derive(Debug, Clone)]
pub struct Report {
    machine: Vec<(&'static str, String)>,
    machine_json: Value,
    settings: Vec<(&'static str, String)>,
    /// The results of each item.
    pub sections: Vec<Section>,
    /// The items that could not be measured, and why.
    pub failed: Vec<String>,
}

impl Report {
    pub(crate) fn new(plan: &Plan, machine: Machine, sections: Vec<Section>, failed: Vec<String>) -> Self {
        let mut settings = vec![
            ("pairs", plan.pairs.to_string()),
            ("each side", format!("{} s after {} s", plan.span.as_secs_f64(), plan.warm_up.as_secs_f64())),
            ("connections", plan.connections.to_string()),
            (
                "order of customers",
                plan.order.map_or("both where they are compared, else random", Order::name).to_owned(),
            ),
            ("seed of random customers", plan.seed.to_string()),
        ];
        if !plan.without.is_empty() {
            settings.push(("without", plan.without.join(", ")));
        }
        if !plan.settings.is_empty() {
            settings.push(("set", plan.settings.join(", ")));
        }
        Self { machine: machine.lines(), machine_json: machine.json(), settings, sections, failed }
    }

    /// The figures that exceed their limits, in words.
    #[must_use]
    pub fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for section in &self.sections {
            for figure in section.figures.iter().filter(|figure| figure.broken()) {
                broken.push(format!(
                    "{} {}: {} is {}",
                    section.item.name(),
                    section.topology,
                    figure.name,
                    figure.text()
                ));
            }
        }
        broken
    }

    /// The report as JSON, for scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        let settings: serde_json::Map<String, Value> =
            self.settings.iter().map(|(name, value)| ((*name).to_owned(), value.clone().into())).collect();
        json!({
            "machine": self.machine_json, "settings": settings,
            "failed": self.failed, "sections": self.sections.iter().map(Section::json).collect::<Vec<_>>(),
        })
    }

    /// The report for a terminal.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        for section in &self.sections {
            text += &format!("{}\n", heading(section));
            for rows in tables(section) {
                text += &format!("{}\n", terminal(&rows));
            }
            for note in &section.notes {
                text += &format!("{note}\n");
            }
            text.push('\n');
        }
        for (name, value) in self.machine.iter().chain(&self.settings) {
            text += &format!("{name}: {value}\n");
        }
        text
    }

    /// The report as Markdown, with headings of the second level.
    #[must_use]
    pub fn markdown(&self) -> String {
        let mut text = String::new();
        for (name, value) in self.machine.iter().chain(&self.settings) {
            text += &format!("* {name}: {value}\n");
        }
        for what in &self.failed {
            text += &format!("* could not be measured: {what}\n");
        }
        for section in &self.sections {
            text += &format!("\n## {}\n\n", heading(section));
            for rows in tables(section) {
                text += &format!("{}\n", markdown(&rows));
            }
            for note in &section.notes {
                text += &format!("{note}.\n\n");
            }
        }
        text
    }
}

fn heading(section: &Section) -> String {
    format!("{} {}: {}", section.item.name(), section.topology, section.item.about())
}

/// The tables of a section.
fn tables(section: &Section) -> Vec<Rows> {
    let header = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let mut tables = Vec::new();
    if !section.figures.is_empty() {
        let row = |figure: &crate::Figure| vec![figure.name.clone(), figure.text(), figure.verdict()];
        let rows = section.figures.iter().map(row).collect();
        tables.push(Rows { title: String::new(), header: header(&["figure", "median (min–max)", "goal"]), rows });
    }
    if !section.sides.is_empty() {
        let row = |side: &Side| {
            let [p50, p99, p999] = &side.latency;
            let mut row = vec![side.name.clone(), side.load.clone()];
            row.extend([&side.rate, p50, p99, p999].map(crate::Series::text));
            row.push(side.refused.to_string());
            row
        };
        let header = header(&["what", "load", "a second", "p50 ms", "p99 ms", "p99.9 ms", "refused"]);
        tables.push(Rows { title: String::new(), header, rows: section.sides.iter().map(row).collect() });
    }
    tables.extend(section.rows.clone());
    tables
}

/// A table for terminals and pipes.
fn terminal(rows: &Rows) -> String {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(&rows.header);
    for row in &rows.rows {
        let cell = |(index, text): (usize, &String)| {
            let number = index > 0 && text.starts_with(|first: char| first.is_ascii_digit());
            Cell::new(text).set_alignment(if number { CellAlignment::Right } else { CellAlignment::Left })
        };
        table.add_row(row.iter().enumerate().map(cell));
    }
    if rows.title.is_empty() { table.to_string() } else { format!("{}:\n{table}", rows.title) }
}

fn markdown(rows: &Rows) -> String {
    let mut text = if rows.title.is_empty() { String::new() } else { format!("{}:\n\n", rows.title) };
    text += &format!("| {} |\n|---|{}\n", rows.header.join(" | "), "--:|".repeat(rows.header.len().saturating_sub(1)));
    for row in &rows.rows {
        let mut cells = row.clone();
        cells.resize(rows.header.len(), String::new());
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::Sizes;

    #[test]
    fn a_report_says_how_its_customers_came() {
        let said = |order| {
            let plan = Plan {
                binary: "checkup".into(),
                items: Vec::new(),
                topology: None,
                pairs: 5,
                span: Duration::from_secs(3),
                warm_up: Duration::ZERO,
                connections: 1,
                without: Vec::new(),
                settings: Vec::new(),
                order,
                seed: 20_261_130,
                sizes: Sizes::SHORT,
            };
            let report = Report::new(&plan, Machine::inspect(), Vec::new(), Vec::new());
            for text in [report.text(), report.markdown()] {
                assert!(text.contains("seed of random customers: 20261130\n"), "{text}");
            }
            report.json()["settings"]["order of customers"].clone()
        };
        assert_eq!(said(Some(Order::Sequential)), "sequential");
        assert_eq!(said(None), "both where they are compared, else random");
    }
}
