//! Texts that change only on purpose. `GOLDEN=update cargo test -p checkup --test cli` rewrites them; the diff is the
//! review.

use std::path::PathBuf;

use checkup::cli::Cli;
use clap::{Command, CommandFactory};

fn compare(name: &str, text: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("GOLDEN").is_some_and(|wanted| wanted == "update") {
        std::fs::write(&path, text).unwrap();
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} is not what the program says; GOLDEN=update rewrites it:\n{text}", path.display());
}

/// The help of a command and of all its subcommands, for a terminal of fixed width.
fn helps(command: &Command, name: &str, found: &mut Vec<(String, String)>) {
    let mut shown = command.clone().term_width(100);
    found.push((name.to_owned(), shown.render_long_help().to_string()));
    for below in command.get_subcommands() {
        helps(below, &format!("{name}-{}", below.get_name()), found);
    }
}

#[test]
fn help_is_as_it_was() {
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    helps(&command, "checkup", &mut found);
    for (name, text) in &found {
        compare(&format!("help-{name}.txt"), text);
    }
    assert_eq!(found.len(), 25, "a golden file a command");
}

#[test]
fn every_command_says_its_exit_statuses_and_shows_examples() {
    let mut command = Cli::command();
    command.build();
    let mut found = Vec::new();
    helps(&command, "checkup", &mut found);
    // a command that only groups others has no examples and statuses of its own
    for (name, text) in found
        .iter()
        .filter(|(name, _)| !["checkup-config", "checkup-consumers", "checkup-dead-letters"].contains(&name.as_str()))
    {
        assert!(text.contains("Exit status:"), "{name} says its exit statuses");
        assert!(text.contains("Examples:") || name == "checkup", "{name} shows examples");
    }
}
