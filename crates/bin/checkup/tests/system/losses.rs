//! A broker that loses events in the middle of its stream: `verify` says which of them nobody can publish any more.

use std::process::{Command, Output};

use mesh::Mesh;
use testkit::{Desk, eventually};

use crate::small_mesh::{self, admin};

/// The name of the stream by default.
const STREAM: &str = "checkup";
/// The services that publish events of bookings, in the order in which `verify` names them.
const PRODUCERS: [&str; 3] = ["hospital", "reservation", "screening"];

async fn sql(mesh: &Mesh, service: &str, statement: &str) -> String {
    mesh.postgres_ref().sql(service, statement).await.expect("the database answers")
}

/// Reads one replica of Screening and, by the configuration, every outbox and the stream.
async fn verify(mesh: &Mesh) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_checkup"));
    mesh::without_settings(&mut command);
    let screening = mesh.of("screening").next().expect("a replica").addr();
    command.args(["verify", "--settle", "0s", "--addr", &screening.to_string(), "--data-dir"]).arg(mesh.directory());
    command.arg("--config").arg(mesh.configuration());
    tokio::process::Command::from(command).output().await.expect("verify runs")
}

/// Verifies until the lines about the stream begin with these, in this order.
async fn until(mesh: &Mesh, expected: &[String]) -> Output {
    eventually("verify to say what the stream lacks", async || {
        let verified = verify(mesh).await;
        let said = String::from_utf8_lossy(&verified.stdout);
        let lines: Vec<&str> = said.lines().filter(|line| line.contains("stream-is-whole")).collect();
        let as_expected = lines.len() == expected.len()
            && lines.iter().zip(expected).all(|(line, expected)| line.contains(&format!("stream-is-whole {expected}")));
        if as_expected { Ok(verified.clone()) } else { Err(format!("{verified:?}")) }
    })
    .await
}

/// How many events of a service the stream loses when it keeps one message of each subject; each has one event.
async fn thinned(mesh: &Mesh, service: &str) -> String {
    sql(mesh, service, "SELECT count(*) - count(DISTINCT subject) FROM outbox").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_counts_what_the_stream_lost_and_nobody_can_publish_again() {
    let Some((_directory, mut mesh)) = small_mesh::start(&[]).await else { return };
    let (hospital, screening) = (admin(&mesh, "hospital").await, admin(&mesh, "screening").await);
    let slot = Desk::of(&hospital).open("lossy", &[30], 50).await.remove(0);
    let desk = Desk::of(&screening);
    let mut names = Vec::new();
    for customer in 0..5 {
        let booked = desk.book(&format!("k{customer}"), &slot, "").await.expect("a place");
        desk.cancel(&booked.name, "").await.expect("cancelled");
        names.push(booked.name);
        // One after the other, so that every frame has one event.
        let expected = [names.len(), 2 * names.len()].map(|count| count.to_string());
        eventually("the place to be given back, and the ledger to know it", async || {
            let released = sql(&mesh, "hospital", "SELECT count(*) FROM claim WHERE state = 2").await;
            let told = [released, sql(&mesh, "reservation", "SELECT count(*) FROM outbox").await];
            if told == expected { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    }
    eventually("all to be published", async || {
        let mut waiting = Vec::new();
        for service in PRODUCERS {
            waiting.push(sql(&mesh, service, "SELECT count(*) FROM outbox WHERE stream_sequence IS NULL").await);
        }
        if waiting == ["0", "0", "0"] { Ok(()) } else { Err(format!("{waiting:?}")) }
    })
    .await;
    let whole = until(&mesh, &[]).await;
    assert!(whole.status.success(), "{whole:?}");

    // two events that are old enough for their outbox; other processes publish, so nothing is published again
    let forget = "DELETE FROM outbox WHERE position IN (SELECT position FROM outbox \
                  WHERE subject LIKE '%.screening_confirmed.%' ORDER BY position LIMIT 2)";
    sql(&mesh, "screening", forget).await;
    let held = "UPDATE relay_lease SET holder = gen_random_uuid(), epoch = epoch + 1, expire_time = 9000000000000000";
    let mut owed = Vec::new();
    for service in PRODUCERS {
        owed.push(format!("{service}: {} events that the outbox marks as published", thinned(&mesh, service).await));
        sql(&mesh, service, held).await;
    }
    mesh.nats().thin_out(STREAM).await.expect("thinned out");
    let gone = "screening: 2 events that neither the stream nor the outbox has".to_owned();
    let said = until(&mesh, &[vec![gone.clone()], owed].concat()).await;
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    assert!(names[..2].iter().any(|name| said.contains(&format!("the first is version 1 of {name}"))), "{said}");

    for service in PRODUCERS {
        sql(&mesh, service, "UPDATE relay_lease SET expire_time = 0").await;
    }
    let said = until(&mesh, &[gone]).await;
    assert_eq!(said.status.code(), Some(1), "what is gone stays gone: {said:?}");
    mesh.stop().await.expect("it stops");
}
