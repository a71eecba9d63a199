//! Tests of the simulation, with each seed in a process of its own: seeds repeat, the real services pass them, and
//! planted bugs do not.
//!
//! A seed that fails is printed with the command that repeats it.

use std::process::Command;

use simulation::{Batch, Mutant};

/// The number of seeds that every change must pass. `make simulate` runs more.
const SEEDS: u64 = 500;

fn batch(first: u64, count: u64) -> Batch {
    let jobs = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let program = env!("CARGO_BIN_EXE_simulate").into();
    Batch { program, first, count, jobs, mutant: None, until_found: false }
}

/// Runs each seed alone, as the printed command does, and in a batch.
#[test]
fn a_seed_repeats() {
    for seed in [3, 7, 11, 12] {
        let mut lines: Vec<_> = (0..2)
            .map(|_| Command::new(env!("CARGO_BIN_EXE_simulate")).arg("--seed").arg(seed.to_string()).output().unwrap())
            .map(|output| String::from_utf8(output.stdout).unwrap().trim().to_owned())
            .collect();
        lines.extend(batch(seed, 1).run(|_, _| {}).unwrap().ended.into_values().map(|ended| ended.line));
        assert!(lines[0].contains("hash "), "{lines:?}");
        assert!(lines.len() == 3 && lines.iter().all(|line| *line == lines[0]), "{lines:#?}");
    }
}

#[test]
fn all_services_agree_in_the_end_whatever_goes_wrong() {
    let batch = batch(1, SEEDS);
    let summary = batch.run(|_, _| {}).unwrap();
    let (seeds, queues) = (summary.ended.len(), summary.queues());
    eprintln!("{seeds} seeds, {queues} with queues, {:.0} a minute", summary.rate());
    let failed: Vec<String> =
        summary.failures().map(|(seed, line)| format!("{line}\n  {}", batch.repeat(seed))).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}

#[test]
fn planted_bugs_are_found() {
    let planted = Mutant::ALL.into_iter().filter_map(|mutant| Some((mutant, mutant.found_within()?)));
    for (mutant, seeds) in planted {
        let batch = Batch { mutant: Some(mutant), until_found: true, ..batch(1, seeds) };
        let summary = batch.run(|_, _| {}).unwrap();
        let found = summary.ended.iter().find(|(_, ended)| ended.found());
        let Some((seed, ended)) = found else { panic!("{mutant} was not found by {} seeds", summary.ended.len()) };
        let line: String = ended.line.chars().take(300).collect();
        assert!(!line.contains("panicked"), "{mutant}: {line}");
        eprintln!("{mutant}: found by seed {seed} after {} seeds: {line}", summary.ended.len());
    }
}
