//! Formats what a recovery found, did and does not know, as lines.

use std::fmt::Write;

use crate::past::Lost;
use crate::terminal::{count, verdict};

/// The most names shown per kind of recovered thing. What nobody knows is listed in full.
const SHOWN_NAMES: usize = 5;

/// Something that a service has lost, for commands that only check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The resource or service that it is about.
    pub subject: String,
    /// What is wrong with it.
    pub detail: String,
}

#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<Finding>,
    /// What was done, and the names that it was done to.
    done: Vec<(String, Vec<String>)>,
    /// What nobody knows any more, and what to do about it.
    unknown: Vec<String>,
    /// What is still lost after the recovery.
    pub(super) left: Vec<Lost>,
}

impl Report {
    pub(super) fn new(lost: &[Lost]) -> Self {
        let found =
            lost.iter().map(|lost| Finding { subject: lost.service.to_string(), detail: lost.to_string() }).collect();
        Self { found, ..Self::default() }
    }

    /// Adds something that was done, unless `names` is empty.
    pub(super) fn did(&mut self, what: &str, names: &[String]) {
        if !names.is_empty() {
            self.done.push((what.to_owned(), names.to_vec()));
        }
    }

    /// One finding per name.
    pub(super) fn into_findings(self) -> Vec<Finding> {
        let rows = self.done.into_iter().flat_map(|(what, names)| {
            names.into_iter().map(move |subject| Finding { subject, detail: format!("to be mended: {what}") })
        });
        let unknown = self.unknown.into_iter().map(|detail| Finding { subject: "nobody knows".to_owned(), detail });
        let found = self.found.into_iter();
        if found.len() == 0 { Vec::new() } else { found.chain(rows).chain(unknown).collect() }
    }

    /// Adds something that nobody knows.
    pub(super) fn not_known(&mut self, what: String) {
        self.unknown.push(what);
    }

    /// Whether nothing is lost: before, in a dry run, and otherwise after the recovery.
    pub(super) fn is_whole(&self, dry_run: bool) -> bool {
        if dry_run { self.found.is_empty() } else { self.left.is_empty() }
    }

    pub(super) fn text(&self, dry_run: bool) -> String {
        let mut text = String::new();
        // writing to a String cannot fail
        for Finding { subject, detail } in &self.found {
            let _ = writeln!(text, "found: {subject} has lost its own past: {detail}");
        }
        let done = if dry_run { "would be mended" } else { "mended" };
        for (what, names) in &self.done {
            let more = if names.len() > SHOWN_NAMES { ", …" } else { "" };
            let shown = names[..names.len().min(SHOWN_NAMES)].join(", ");
            let _ = writeln!(text, "{done}: {what}: {} ({shown}{more})", count(names.len() as u64));
        }
        for line in &self.unknown {
            let _ = writeln!(text, "nobody knows: {line}");
        }
        for lost in &self.left {
            let _ = writeln!(text, "left: {} has lost its own past: {lost}", lost.service);
        }
        let summary = match (self.found.is_empty() && self.done.is_empty(), dry_run, self.left.is_empty()) {
            (true, ..) => "no service has lost its own past",
            (_, true, _) => "nothing was changed; without --dry-run it is",
            (_, _, true) => "nothing is lost any more; start the services and run `checkup verify`",
            (_, _, false) => "something is lost all the same",
        };
        let _ = writeln!(text, "{}", verdict(self.is_whole(dry_run), summary));
        text
    }
}
