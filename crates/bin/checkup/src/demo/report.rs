//! Formats the played rows as a table and as JSON.

use serde_json::{Value, json};

use super::rows::{Outcome, Row};
use crate::terminal::{number, span, table, verdict};

/// Whether no row failed and at least one was played. Skipped rows do not count.
pub(super) fn is_ok(rows: &[Row]) -> bool {
    let failed = rows.iter().any(|row| matches!(row.outcome, Outcome::Failed(_)));
    let played = rows.iter().any(|row| matches!(row.outcome, Outcome::Ok));
    played && !failed
}

pub(super) fn text(addr: &str, rows: &[Row]) -> String {
    let mut table = table(&["#", "requirement", "called", "came back", "took"]);
    for row in rows {
        let sign = match row.outcome {
            Outcome::Ok => "✓",
            Outcome::Failed(_) => "✗",
            Outcome::Skipped(_) => "–",
        };
        let mut head = [format!("{} {sign}", row.number), row.requirement.to_owned()];
        for call in &row.calls {
            let took = if call.waited { format!("after {}", span(call.took)) } else { span(call.took) };
            let [row_number, requirement] = std::mem::take(&mut head);
            table.add_row([
                number(row_number),
                requirement.into(),
                call.method.into(),
                call.answer.as_str().into(),
                number(took),
            ]);
        }
        if let Outcome::Failed(problem) | Outcome::Skipped(problem) = &row.outcome {
            let [row_number, requirement] = std::mem::take(&mut head);
            let what = if matches!(row.outcome, Outcome::Skipped(_)) { "(skipped)" } else { "(failed)" };
            let problem = problem.as_str();
            table.add_row([number(row_number), requirement.into(), what.into(), problem.into(), "".into()]);
        }
    }
    let tally = |wanted: fn(&Outcome) -> bool| rows.iter().filter(|row| wanted(&row.outcome)).count();
    let (failed, skipped) = (tally(|o| matches!(o, Outcome::Failed(_))), tally(|o| matches!(o, Outcome::Skipped(_))));
    let held = rows.len() - failed - skipped;
    let summary = format!("{held} rows as the contract says, {failed} not, {skipped} skipped ({addr})");
    format!("{table}\n{}\n", verdict(is_ok(rows), &summary))
}

pub(super) fn json(addr: &str, rows: &[Row]) -> Value {
    let rows_json: Vec<Value> = rows
        .iter()
        .map(|row| {
            let (outcome, problem) = match &row.outcome {
                Outcome::Ok => ("ok", None),
                Outcome::Failed(problem) => ("failed", Some(problem)),
                Outcome::Skipped(why) => ("skipped", Some(why)),
            };
            let calls: Vec<Value> = row
                .calls
                .iter()
                .map(|call| {
                    let milliseconds = call.took.as_secs_f64() * 1000.0;
                    json!({ "method": call.method, "answer": call.answer, "milliseconds": milliseconds, "waited": call.waited })
                })
                .collect();
            let requirement = row.requirement;
            json!({ "row": row.number, "requirement": requirement, "outcome": outcome, "problem": problem, "calls": calls })
        })
        .collect();
    json!({ "addr": addr, "ok": is_ok(rows), "rows": rows_json })
}
