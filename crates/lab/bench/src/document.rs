//! The document of a run, for the repository. It is never edited by hand.

use std::path::{Path, PathBuf};

use crate::{Error, Report, plot};

/// The text above the tables.
const HEAD: &str = "\
# Benchmarks

Written by `checkup bench --write`; do not edit. Every ratio was taken by turns in one run, a pair at a time: the median, and in
brackets the smallest and the largest of the pairs. Rates come from closed loops, where every caller waits for its answer; the
latencies of open loops count from the time at which a call was due, so a call that had to wait to be sent is as late as its
caller would find it. Callers, services, databases and broker share the machine. Trust ratios; absolute figures move with the
machine's other load. The CPU time of a booking is in H, that of a hello-world call in the same run, its server's and its caller's
part together: it moves least, so it is the figure to compare.

";

impl Report {
    /// The files of the document with their paths: the Markdown file and its plots beside it.
    ///
    /// # Errors
    /// If a plot cannot be drawn.
    pub fn document(&self, path: &Path) -> Result<Vec<(PathBuf, String)>, Error> {
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let (mut files, mut pictures) = (Vec::new(), String::new());
        for section in &self.sections {
            for (ending, picture) in plot::plots(section)? {
                let name = format!("{stem}-{ending}");
                pictures += &format!("![{}]({name})\n", ending.trim_end_matches(".svg").replace('-', ", "));
                files.push((path.with_file_name(name), picture));
            }
        }
        files.push((path.to_owned(), format!("{HEAD}{}{pictures}", self.markdown())));
        Ok(files)
    }
}
