//! Which crate may use which, and why. The tests read the workspace's metadata from cargo. [`circles`] holds the files
//! within a crate to one direction.
//!
//! `cargo deny` could enforce such rules too, but building it takes longer than this project's whole suite. This test
//! needs no other tool.

#[path = "architecture/circles.rs"]
mod circles;
#[path = "architecture/examples.rs"]
mod examples;
#[path = "architecture/modules.rs"]
mod modules;
#[path = "architecture/unit_tests.rs"]
mod unit_tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use examples::example_below;
use unit_tests::test_of;

/// Crates for tests only. They may use any crate, and only tests may use them.
const INSTRUMENTS: &[&str] = &["testkit", "chaos", "simulation"];

/// The folders of `crates/`, lowest first. Production code uses its own folder and the folders below it.
const FLOORS: &[&str] = &["core", "platform", "services", "bin"];
/// The folder beside them. Its crates may use any crate.
const LAB: &str = "lab";
/// The lab crates that production code may use, because `checkup mesh` and `checkup bench` are commands.
const COMMANDS: &[(&str, &str)] = &[("checkup", "mesh"), ("checkup", "bench")];

const SLICES: &[&str] = &["hospital", "screening", "reservation", "mypage", "marketing"];

/// A crate, or a family of crates with the same first name, and the crates that may use it.
struct Rule {
    used: &'static str,
    by: &'static [&'static str],
    why: &'static str,
}

/// The rules for production code. Tests may use more: `relay` tests itself on a database, and the services test
/// themselves with `testkit`.
const RULES: &[Rule] = &[
    Rule {
        used: "async-nats",
        by: &["bus"],
        why: "the broker is one transport of two; whoever names it cannot take the other",
    },
    Rule {
        used: "bus",
        by: &["relay", "checkup"],
        why: "a service cannot publish: it writes its outbox in the transaction of the effect, and the relay does the rest",
    },
    Rule {
        used: "sea-orm",
        by: &["store", "hospital", "screening", "reservation", "mypage", "marketing"],
        why: "tables belong to the service that owns them, and everybody else asks it",
    },
    Rule {
        used: "tonic",
        by: &["contract", "runtime", "hospital", "screening", "reservation", "mypage", "marketing", "bench", "checkup"],
        why: "rules, storage and events must not know how calls travel",
    },
    Rule {
        used: "relay",
        by: &["hospital", "screening", "reservation", "mypage", "marketing", "checkup"],
        why: "it stands above store, bus and runtime",
    },
    Rule {
        used: "store",
        by: &["relay", "hospital", "screening", "reservation", "mypage", "marketing", "checkup"],
        why: "rules and the runtime work without a database",
    },
    Rule {
        used: "runtime",
        by: &["relay", "hospital", "screening", "reservation", "mypage", "marketing", "bench", "checkup"],
        why: "rules and storage do not know the process they run in",
    },
    Rule { used: "testkit", by: &[], why: "it panics where production code answers" },
    Rule { used: "chaos", by: &[], why: "it breaks what production code keeps whole" },
    Rule { used: "simulation", by: &[], why: "it owns the clock, of which production has another" },
    Rule {
        used: "bench",
        by: &["checkup"],
        why: "it measures services from outside; one that knew of it could be made to look well",
    },
    Rule { used: "mesh", by: &["bench", "checkup"], why: "services are started by it and do not know of it" },
    Rule { used: "checkup", by: &[], why: "the binary is the end of every dependency" },
];

fn cargo(arguments: &[&str]) -> String {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let output =
        Command::new(env!("CARGO")).args(arguments).args(["--offline", "--locked"]).current_dir(root).output().unwrap();
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// A dependency as a manifest declares it.
struct Edge {
    from: String,
    to: String,
    /// `None` for production code, `dev` or `build` otherwise.
    kind: Option<String>,
}

fn metadata() -> Value {
    serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap()
}

/// The root file of every library, binary and test of the workspace, with the name of its package.
fn targets() -> Vec<(String, PathBuf)> {
    let metadata = metadata();
    let packages = metadata["packages"].as_array().unwrap().iter();
    let targets = packages.flat_map(|package| {
        let name = package["name"].as_str().unwrap();
        let targets = package["targets"].as_array().unwrap().iter();
        targets.map(move |target| (name.to_owned(), target["src_path"].as_str().unwrap().into()))
    });
    targets.collect()
}

/// The manifests of the workspace by crate, and the dependencies that they declare.
fn workspace() -> (BTreeMap<String, PathBuf>, Vec<Edge>) {
    let metadata = metadata();
    let (mut manifests, mut edges) = (BTreeMap::new(), Vec::new());
    for package in metadata["packages"].as_array().unwrap() {
        let from = package["name"].as_str().unwrap().to_owned();
        for dependency in package["dependencies"].as_array().unwrap() {
            let (to, kind) = (dependency["name"].as_str().unwrap(), dependency["kind"].as_str());
            edges.push(Edge { from: from.clone(), to: to.to_owned(), kind: kind.map(str::to_owned) });
        }
        manifests.insert(from, package["manifest_path"].as_str().unwrap().into());
    }
    (manifests, edges)
}

/// Whether a crate belongs to a family: `tonic` includes `tonic-types`.
fn is_of(crate_name: &str, family: &str) -> bool {
    crate_name.strip_prefix(family).is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

#[test]
fn crates_use_only_what_their_place_allows() {
    let (_, edges) = workspace();
    let mut broken = Vec::new();
    for Edge { from, to, .. } in edges.iter().filter(|edge| edge.kind.as_deref() != Some("dev")) {
        for Rule { used, by, why } in RULES {
            let examines = INSTRUMENTS.contains(&from.as_str()) && *used != "async-nats";
            if is_of(to, used) && !by.contains(&from.as_str()) && !examines {
                broken.push(format!("{from} must not depend on {to}: {why}"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

/// The folder of `crates/` that a crate is in.
fn floor(manifest: &Path) -> &str {
    let folder = manifest.parent().and_then(Path::parent).and_then(Path::file_name);
    folder.and_then(OsStr::to_str).unwrap_or_default()
}

#[test]
fn a_crate_uses_its_own_floor_and_those_below() {
    let (manifests, edges) = workspace();
    let floors: BTreeMap<&str, &str> =
        manifests.iter().map(|(name, manifest)| (name.as_str(), floor(manifest))).collect();
    let height = |floor: &str| FLOORS.iter().position(|known| *known == floor);
    let mut broken = Vec::new();
    for (name, floor) in &floors {
        if height(floor).is_none() && *floor != LAB {
            broken.push(format!("{name} is in {floor}, which is none of {FLOORS:?} and not {LAB}"));
        }
    }
    for Edge { from, to, .. } in edges.iter().filter(|edge| edge.kind.as_deref() != Some("dev")) {
        let (Some(lower), Some(upper)) = (floors.get(to.as_str()), floors.get(from.as_str())) else { continue };
        let allowed = *upper == LAB || height(lower) <= height(upper) && *lower != LAB;
        if !allowed && !COMMANDS.contains(&(from.as_str(), to.as_str())) {
            broken.push(format!("{from} ({upper}) must not depend on {to} ({lower}): an arrow points down"));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_floor_says_what_lives_there() {
    let (manifests, _) = workspace();
    for folder in manifests.values().filter_map(|manifest| manifest.parent()?.parent()).collect::<BTreeSet<_>>() {
        let text = std::fs::read_to_string(folder.join("README.md")).unwrap_or_default();
        assert!(
            text.contains("Not here: "),
            "{} needs a README.md that says what may not live there",
            folder.display()
        );
    }
}

#[test]
fn services_never_name_each_other() {
    let (_, edges) = workspace();
    let between =
        edges.iter().filter(|edge| SLICES.contains(&edge.from.as_str()) && SLICES.contains(&edge.to.as_str()));
    let broken: Vec<String> = between
        .map(|Edge { from, to, .. }| {
            format!("{from} must not depend on {to}, not even in tests: services know each other by contract, as other teams do")
        })
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_error_vocabulary_depends_on_nothing() {
    let (_, edges) = workspace();
    let named: Vec<&str> = edges.iter().filter(|edge| edge.from == "fault").map(|edge| edge.to.as_str()).collect();
    assert_eq!(named, [""; 0], "fault is what every layer shares, so it must not bring anything with it");
}

#[test]
fn the_rules_do_not_know_the_runtime() {
    let tree = cargo(&["tree", "-p", "domain", "-e", "normal", "--prefix", "none"]);
    for banned in ["tokio", "tonic", "hyper", "sea-orm"] {
        let found = tree.lines().find(|line| line.split(' ').next().is_some_and(|name| is_of(name, banned)));
        assert_eq!(found, None, "domain decides without waiting: no {banned} in what it is built from");
    }
}

/// An example in a doc comment is compiled and run, or there is none: `doctest = false` spares the run that finds
/// nothing.
#[test]
fn no_example_is_left_out_of_the_tests() {
    for package in metadata()["packages"].as_array().unwrap() {
        let name = package["name"].as_str().unwrap();
        let targets = package["targets"].as_array().unwrap();
        let runs = targets.iter().any(|target| target["doctest"].as_bool().unwrap());
        let sources = Path::new(package["manifest_path"].as_str().unwrap()).parent().unwrap().join("src");
        // the comments of the contract are written for the .proto files, so none of them is Rust
        let found = example_below(&sources).filter(|_| name != "contract");
        assert_eq!(runs, found.is_some(), "{name} runs examples: {runs}; it has one in {found:?}");
    }
}

/// A test is run, or there is none: `test = false` spares the executable that would be linked for nothing.
#[test]
fn no_test_is_left_out_of_the_tests() {
    for package in metadata()["packages"].as_array().unwrap() {
        for target in package["targets"].as_array().unwrap() {
            let (name, kind) = (target["name"].as_str().unwrap(), target["kind"][0].as_str().unwrap());
            if !["lib", "bin"].contains(&kind) {
                continue;
            }
            let found = test_of(Path::new(target["src_path"].as_str().unwrap()), kind == "lib");
            let is_tested = target["test"].as_bool().unwrap();
            assert_eq!(
                is_tested,
                found.is_some(),
                "the {kind} {name} says test = {is_tested}; it has one in {found:?}"
            );
        }
    }
}

#[test]
fn every_crate_keeps_the_workspace_lints() {
    let (manifests, _) = workspace();
    assert!(manifests.len() >= 14, "{manifests:?}");
    for (name, path) in manifests {
        let manifest = std::fs::read_to_string(path).unwrap();
        let lints =
            manifest.split_once("[lints]").is_some_and(|(_, after)| after.trim_start().starts_with("workspace = true"));
        assert!(lints, "{name} needs [lints] workspace = true: a lint that one crate leaves out teaches nobody");
    }
}
