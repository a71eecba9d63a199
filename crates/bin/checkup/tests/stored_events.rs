//! What every service makes of every event that a release has stored.
//!
//! `core/contract/tests/golden/events` keeps the bytes. Each sample goes to the handlers of the services that read it,
//! on new SQLite databases: once to a service that knows nothing, and once to one that knows the booking. The tables
//! afterwards are what `golden/events/{sample}.txt` says. `GOLDEN=update` rewrites these texts; the difference is the
//! review, because it is what an older event shows from now on.

#[path = "stored_events/service.rs"]
mod service;
#[path = "stored_events/tables.rs"]
mod tables;

use std::fs;
use std::path::{Path, PathBuf};

use contract::event::v1::EventEnvelope;
use prost::Message as _;

use crate::service::{Running, SERVICES};

/// The story of the booking that the samples are about, before the sample.
const BEFORE: [&str; 3] = ["slot_opened", "capacity_reserved", "screening_confirmed"];

fn samples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../core/contract/tests/golden/events")
}

fn stored(sample: &str) -> EventEnvelope {
    let bytes = fs::read(samples().join(format!("{sample}.binpb"))).expect("a stored sample");
    EventEnvelope::decode(bytes.as_slice()).expect("a stored event decodes")
}

/// The names of all samples, in order.
fn names() -> Vec<String> {
    let entries = fs::read_dir(samples()).expect("there are samples").map(|entry| entry.expect("readable").path());
    let stored = entries.filter(|path| path.extension().is_some_and(|ending| ending == "binpb"));
    let mut names: Vec<String> = stored.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    names.sort();
    names
}

/// What became of the tables of the services that read this event.
async fn folded(event: &EventEnvelope, services: &[Running]) -> String {
    let mut parts = Vec::new();
    for reader in services.iter().filter(|service| service.reads(event)) {
        for knows in [false, true] {
            let service = Running::open(reader.name(), knows).await;
            if knows {
                for before in BEFORE.map(stored).iter().filter(|before| service.reads(before)) {
                    service.apply(before).await;
                }
            }
            service.apply(event).await;
            let known = if knows { "the booking" } else { "nothing" };
            parts.push(format!("{}, which knew {known}\n{}", service.name(), tables::dump(&service).await));
            service.stop().await;
        }
    }
    if parts.is_empty() { "no service reads it\n".to_owned() } else { parts.join("\n") }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn are_folded_as_they_were_by_every_service() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/events");
    let updating = std::env::var_os("GOLDEN").is_some_and(|wanted| wanted == "update");
    let mut services = Vec::new();
    for name in SERVICES {
        services.push(Running::open(name, false).await);
    }
    let mut wrong = Vec::new();
    for name in names() {
        let (path, found) = (golden.join(format!("{name}.txt")), folded(&stored(&name), &services).await);
        if updating {
            fs::write(&path, &found).expect("the golden file can be written");
        }
        if fs::read_to_string(&path).unwrap_or_default() != found {
            wrong.push(format!("{} says something else; GOLDEN=update rewrites it:\n{found}", path.display()));
        }
    }
    for service in services {
        service.stop().await;
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let texts = fs::read_dir(&golden).expect("there are golden states").count();
    assert_eq!(texts, names().len(), "every state in {} is of a sample", golden.display());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn change_what_every_service_holds() {
    for (name, sample) in [
        ("hospital", "screening_cancelled"),
        ("screening", "capacity_revoked"),
        ("reservation", "screening_cancelled"),
        ("mypage", "screening_force_cancelled"),
        ("marketing", "screening_refused"),
    ] {
        let service = Running::open(name, true).await;
        let before = tables::dump(&service).await;
        service.apply(&stored(sample)).await;
        assert_ne!(before, tables::dump(&service).await, "{name} makes nothing of {sample}");
        service.stop().await;
    }
}
