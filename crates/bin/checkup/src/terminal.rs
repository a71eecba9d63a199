//! What a person sees: tables, progress and, on a terminal only, colour.

use std::borrow::Cow;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::exit::Failure;

/// Prints the result of a command to standard output. A reader that has gone away, as `head` does, has read what it wanted.
///
/// # Errors
/// Where it cannot be written, on a full disk for example: whoever asked for the result does not have it.
pub fn print(text: &str) -> Result<(), Failure> {
    written(write(text))
}

/// Prints what is good to know beside what a command does, which goes on without it.
pub fn tell(text: &str) {
    if let Err(failure) = print(text) {
        complain(&format!("checkup: {failure}"));
    }
}

/// Says a line to the operator, on standard error. Whoever has closed it, or has no room for it, does not hear it; the macro for that
/// would panic.
pub fn complain(line: &str) {
    let _ = writeln!(io::stderr(), "{line}");
}

fn write(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush())
}

/// What became of something that was written to standard output.
///
/// # Errors
/// Where it was not written although somebody reads.
pub fn written(outcome: io::Result<()>) -> Result<(), Failure> {
    match outcome {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            Err(Failure::failed(format!("cannot write to standard output, so what it was to say is lost: {error}")))
        }
        _ => Ok(()),
    }
}

/// A table that fits pipes and terminals alike: no colours, no wrapping, single lines between its columns.
#[must_use]
pub fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(header);
    table
}

/// A cell with a number, to be compared with those above and below it.
#[must_use]
pub fn number(text: impl Into<String>) -> Cell {
    Cell::new(text.into()).set_alignment(CellAlignment::Right)
}

/// A duration with as many digits as tell something.
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

/// A count with its thousands set apart.
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

/// A verdict, green or red where standard output is a terminal that wants colours.
#[must_use]
pub fn verdict(good: bool, text: &str) -> String {
    let wanted = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    match (wanted, good) {
        (true, true) => format!("\x1b[32m{text}\x1b[0m"),
        (true, false) => format!("\x1b[31m{text}\x1b[0m"),
        (false, _) => text.to_owned(),
    }
}

/// How far a long command is, on standard error; silent where that is no terminal.
#[derive(Debug, Clone)]
pub struct Progress(ProgressBar);

impl Progress {
    /// Shows nothing until the first phase begins.
    #[must_use]
    pub fn new() -> Self {
        let visible = std::io::stderr().is_terminal();
        let target = if visible { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Self(ProgressBar::with_draw_target(None, target))
    }

    /// Begins a phase of so many steps, or of as many as it turns out to be.
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

    /// Some steps were done.
    pub fn done(&self, steps: u64) {
        self.0.inc(steps);
    }

    /// Takes it off the screen.
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
