//! Texts that change only on purpose. `GOLDEN=update cargo test -p checkup --test cli` rewrites them; the diff is the
//! review.

use std::path::PathBuf;

use checkup::cli::Cli;
use checkup::config::{DEFAULT, Settings};
use clap::{Command, CommandFactory};
use runtime::config::{Config, Layers};

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

/// The default document and the defaults in the code must agree: operators read the document, tests use the code.
#[test]
fn the_default_document_says_what_the_code_does() {
    let config = Config::load(DEFAULT, &Layers::default()).unwrap();
    let settings = Settings::of(&config).unwrap();
    let Settings { server, consume, publish, hospital, screening, reservation, mypage, marketing, .. } = &settings;
    assert!(settings.clock_offset.is_zero());
    assert!(settings.screening_hospital.is_empty() && settings.marketing_hospital.is_empty());
    assert!(settings.databases.is_empty() && settings.events.is_none());
    assert_eq!(*consume, relay::ConsumeOptions::default());
    assert_eq!(*publish, relay::PublishOptions::default());
    let sections = [
        ("server", format!("{server:#?}"), format!("{:#?}", runtime::server::ServerOptions::default())),
        ("hospital", format!("{hospital:#?}"), format!("{:#?}", hospital::Options::default())),
        ("screening", format!("{screening:#?}"), format!("{:#?}", screening::Options::default())),
        ("reservation", format!("{reservation:#?}"), format!("{:#?}", reservation::Options::default())),
        ("mypage", format!("{mypage:#?}"), format!("{:#?}", mypage::Options::default())),
        ("marketing", format!("{marketing:#?}"), format!("{:#?}", marketing::Options::default())),
    ];
    for (section, document, code) in sections {
        assert_eq!(document, code, "section {section}");
        // an option that the document leaves out silently takes its default, and nobody learns that it can be set
        let keys = config.section::<toml::Table>(section).unwrap();
        for option in code.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(':')).map(|(name, _)| name) {
            assert!(option.starts_with(' ') || keys.contains_key(option), "{section}.{option} is not in the document");
        }
    }
}
