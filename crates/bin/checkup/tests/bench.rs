//! `checkup bench --short`: every measurement runs, and no figure is broken beyond noise.

use std::path::Path;
use std::process::{Command, Output, Stdio};

use mesh::for_tests::or_skip;
use serde_json::Value;

fn bench(arguments: &[&str], scratch: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_checkup"));
    command.arg("bench").args(arguments).env("TMPDIR", scratch).stdin(Stdio::null());
    command
}

fn scratch() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt;
    // PostgreSQL, which runs as another user, has to reach the directory
    let everybody = std::fs::Permissions::from_mode(0o755);
    tempfile::Builder::new().prefix("checkup-bench-test-").permissions(everybody).tempdir().unwrap()
}

/// What is left in the scratch directory, except the port reservations that processes of this machine share.
fn left_behind(scratch: &Path) -> Vec<String> {
    let names = std::fs::read_dir(scratch).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.starts_with("checkup-ports")).collect()
}

fn figures(output: &Output) -> Vec<(String, f64)> {
    let text = String::from_utf8_lossy(&output.stdout);
    let report: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {output:?}"));
    let sections = report["sections"].as_array().unwrap();
    let figures = sections.iter().flat_map(|section| section["figures"].as_array().unwrap());
    let figure = |figure: &Value| {
        (figure["name"].as_str().unwrap().to_owned(), figure["values"]["median"].as_f64().unwrap_or(f64::INFINITY))
    };
    figures.map(figure).collect()
}

/// Status 0 means that no limit is broken: P1 is at least 8 times, P4 at most its places, P7 at most 3 times.
fn measures(items: &[&str]) {
    let scratch = scratch();
    let output = bench(&[items, &["--short", "--json", "-"]].concat(), scratch.path()).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    for (name, median) in figures(&output) {
        println!("{name}: {median:.2}");
    }
    assert_eq!(left_behind(scratch.path()), [""; 0]);
}

#[test]
fn no_figure_of_the_embedded_topology_is_what_no_noise_explains() {
    measures(&["P1", "P4", "growth", "--topology", "embedded"]);
}

#[tokio::test]
async fn no_figure_of_the_mesh_is_what_no_noise_explains() {
    let Some(_) = or_skip("PostgreSQL", mesh::Postgres::start().await) else { return };
    let Some(_) = or_skip("nats-server", mesh::Nats::absent()) else { return };
    measures(&["P1", "P7", "--topology", "mesh"]);
}

#[tokio::test]
async fn an_interrupted_run_leaves_nothing_behind() {
    let scratch = scratch();
    let mut command = bench(&["P3", "--seconds", "60"], scratch.path());
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    testkit::eventually("a service of the run to have its file", async || {
        assert!(child.try_wait().unwrap().is_none(), "the run ended before");
        let homes = std::fs::read_dir(scratch.path()).unwrap().flatten();
        let serves = homes.into_iter().any(|home| home.path().join("hospital.db").exists());
        if serves { Ok(()) } else { Err("there is none".to_owned()) }
    })
    .await;
    let interrupted = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(interrupted.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stderr).contains("interrupted"), "{output:?}");
    assert_eq!(left_behind(scratch.path()), [""; 0]);
}

#[test]
fn what_was_measured_is_kept_where_something_else_cannot_be() {
    use std::os::unix::fs::PermissionsExt;
    let (scratch, broken) = (scratch(), tempfile::tempdir().unwrap());
    // programs with PostgreSQL's names that do not work
    for program in ["postgres", "initdb", "pg_isready", "psql"] {
        let path = broken.path().join(program);
        std::fs::write(&path, "#!/bin/sh\n[ \"$1\" = --version ] && echo 'postgres (PostgreSQL) 17.0'\nexit 1\n")
            .unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    let path = format!("{}:{}", broken.path().display(), std::env::var("PATH").unwrap());
    let written = scratch.path().join("figures.md");
    let mut command = bench(&["P9", "--short", "--json", "-", "--write"], scratch.path());
    let output = command.arg(&written).env("PATH", path).output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("could not be measured: P9 mesh"), "{said}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let measured: Vec<_> = report["sections"].as_array().unwrap().iter().map(|section| &section["topology"]).collect();
    assert_eq!(measured, ["embedded"]);
    assert!(std::fs::read_to_string(written).unwrap().contains("could not be measured: P9 mesh"));
}

#[test]
fn what_makes_no_sense_is_said_before_anything_is_started() {
    for (wrong, sentence) in [
        (&["P10"][..], "P1 to P9"),
        (&["P2", "--topology", "embedded"], "P3 is the same, embedded"),
        (&["P3", "--topology", "mesh"], "P3 is not measured"),
        (&["P1", "--topology", "cloud"], "embedded or mesh"),
        (&["P3", "--order", "reversed"], "sequential or random"),
        (&["P1", "--pairs", "4"], "5..=100"),
        (&["P1", "--without", "hospital"], "no booking without it"),
        (&["P5", "--short", "--seconds", "2"], "cannot be used with"),
    ] {
        let output = bench(wrong, Path::new("/nonexistent")).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{wrong:?}: {said}");
        assert!(said.contains(sentence), "{wrong:?}: {said}");
    }
}
