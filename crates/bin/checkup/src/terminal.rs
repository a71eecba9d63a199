//! Output for people: tables, progress and, on a terminal only, colour.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::Failure;

/// Prints a command's result to standard output. A reader that has closed the pipe, as `head` does, is no error.
///
/// # Errors
/// Fails if the output cannot be written, for example on a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    written(write(text))
}

/// Prints something useful that the command does not depend on. An error is only reported.
pub fn print_if_possible(text: &str) {
    if let Err(failure) = print(text) {
        complain(&format!("checkup: {failure}"));
    }
}

/// Prints a line to standard error and ignores errors. The macro `eprintln!` would panic.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// Turns the outcome of a write to standard output into a failure, unless the reader has closed the pipe.
///
/// # Errors
/// Fails if the text was not written although somebody reads.
pub fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output, so what it was to say is lost: {error}")))
        }
        _ => Ok(()),
    }
}

/// A table for pipes and terminals: no colours, no wrapping, single lines between columns.
#[must_use]
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

/// A cell with a number, aligned to the right.
#[must_use]
pub fn number(text: impl Into<String>) -> Cell {
    Cell::new(text.into()).set_alignment(CellAlignment::Right)
}

/// A duration with a sensible number of digits.
#[must_use]
pub fn span(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1000.0;
    if millis < 10.0 {
        format!("{millis:.1} ms")
    } else if millis < 10_000.0 {
        format!("{millis:.0} ms")
    } else {
        format!("{:.1} s", millis / 1000.0)
    }
}

/// A number with its thousands separated.
#[must_use]
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A verdict, in green or red if standard output is a terminal and NO_COLOR is not set.
#[must_use]
pub fn verdict(good: bool, text: &str) -> String {
    let wanted = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match (wanted, good) {
        (true, true) => format!("\x1b[32m{text}\x1b[0m"),
        (true, false) => format!("\x1b[31m{text}\x1b[0m"),
        (false, _) => text.to_owned(),
    }
}

/// The progress of a long command, on standard error. Invisible unless that is a terminal.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// A progress display that is empty until the first phase begins.
    #[must_use]
    pub fn new() -> Self {
        let visible = std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self(ProgressBar::with_draw_target(None, target))
    }

    /// Begins a phase of `steps` steps, or of an unknown number.
    pub fn phase(&self, name: impl Into<Cow<'static, str>>, steps: Option<u64>) {
        let template = match steps {
            Some(_) => "{spinner} {msg} {wide_bar} {human_pos}/{human_len} {elapsed}",
            None => "{spinner} {msg} {human_pos} {elapsed}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.0.set_style(style);
        }
        self.0.set_message(name);
        self.0.set_position(0);
        match steps {
            Some(steps) => self.0.set_length(steps),
            None => self.0.unset_length(),
        }
        self.0.enable_steady_tick(Duration::from_millis(100));
    }

    /// Adds finished steps to the current phase.
    pub fn done(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// Removes the display from the screen.
    pub fn clear(&self) {
        self.0.finish_and_clear();
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_written_to_be_read() {
        assert_eq!(span(Duration::from_micros(1_234)), "1.2 ms");
        assert_eq!(span(Duration::from_micros(123_456)), "123 ms");
        assert_eq!(span(Duration::from_millis(12_345)), "12.3 s");
        assert_eq!([count(0), count(999), count(1_000), count(1_234_567)], ["0", "999", "1,000", "1,234,567"]);
    }
}
