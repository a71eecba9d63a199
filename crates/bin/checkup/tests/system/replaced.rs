//! A PostgreSQL server whose files are put back to an earlier time while the processes run.

use std::path::Path;
use std::process::Command;

use contract::screening::v1::screening::State;
use mesh::{Mesh, State as Process};
use testkit::{Desk, eventually};

use crate::races::all_screenings;
use crate::small_mesh::{self, START, admin};

const LOST: &str = "has lost its own past";

fn copy(from: &Path, to: &Path) {
    let copied = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("cp runs");
    assert!(copied.success(), "{} is not copied", from.display());
}

/// Waits until all events are published, because nobody else knows an event that is not.
async fn published(mesh: &Mesh) {
    eventually("everything to be published", async || {
        for service in ["hospital", "screening"] {
            let waiting = "SELECT count(*) FROM outbox WHERE stream_sequence IS NULL";
            let waiting = mesh.postgres_ref().sql(service, waiting).await.map_err(|error| error.to_string())?;
            if waiting != "0" {
                return Err(format!("{waiting} of {service}"));
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_replaced_by_an_older_one_takes_no_booking() {
    let Some((directory, mut mesh)) = small_mesh::start(&[]).await else { return };
    let (hospital, screening) = (admin(&mesh, "hospital").await, admin(&mesh, "screening").await);
    let slot = Desk::of(&hospital).open("replaced", &[30], 50).await.remove(0);
    let desk = Desk::of(&screening);
    let first = desk.book("first", &slot, "").await.expect("a place");
    published(&mesh).await;

    // after a stop and a start the same database is back, and the running processes go on
    let data = mesh.postgres_ref().data_dir();
    let older = directory.path().join("older");
    mesh.postgres().stop_fast().await.expect("stopped");
    copy(&data, &older);
    mesh.postgres().restart().await.expect("started");
    let second = eventually("a booking after the restart", async || {
        desk.book("second", &slot, "").await.map_err(|status| format!("{status:?}"))
    })
    .await;
    published(&mesh).await;

    mesh.postgres().stop_fast().await.expect("stopped");
    std::fs::rename(&data, directory.path().join("newer")).expect("moved away");
    std::fs::rename(&older, &data).expect("put back");
    mesh.postgres().restart().await.expect("started");
    for service in ["hospital", "screening"] {
        eventually("the process to say that its database went back", async || {
            let booked = desk.book("third", &slot, "").await;
            assert!(booked.is_err(), "{booked:?} was taken by a database that forgot one");
            let replica = mesh.replica(service, 0).expect("a replica");
            match replica.state().await {
                Process::Ended(_) if replica.output().find(|line| line.contains(LOST).then_some(())).is_some() => {
                    Ok(())
                }
                other => Err(format!("{service} is {other}")),
            }
        })
        .await;
    }
    // after a restart the processes wait; once the command has run, everything that the stream has is there again
    for service in ["hospital", "screening", "reservation", "marketing"] {
        let replica = mesh.replica(service, 0).expect("a replica");
        replica.kill().await.expect("it runs no more");
        replica.start().expect("started");
    }
    let mut command = Command::new(env!("CARGO_BIN_EXE_checkup"));
    mesh::without_settings(&mut command);
    command.args(["recover", "--service", "marketing", "--config"]).arg(mesh.configuration());
    let recovered = tokio::process::Command::from(command).output().await.expect("recover runs");
    assert!(recovered.status.success(), "{recovered:?}");
    mesh.ready(START).await.expect("it serves again");
    let shown = all_screenings(&admin(&mesh, "screening").await, "").await;
    for booked in [&first, &second] {
        let row = shown.iter().find(|row| row.name == booked.name).expect("it is there");
        assert_eq!(row.state(), State::Confirmed);
    }
    mesh.stop().await.expect("it stops");
}

/// The stream keeps events for longer than the outbox does. Nobody asked for anything since, so no event is left in the
/// outbox that could show that it once had the newest one of the stream.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_events_are_all_removed_by_age_serves() {
    let Some((_directory, mut mesh)) = small_mesh::start(&[]).await else { return };
    let (hospital, screening) = (admin(&mesh, "hospital").await, admin(&mesh, "screening").await);
    let slot = Desk::of(&hospital).open("quiet", &[30], 50).await.remove(0);
    let desk = Desk::of(&screening);
    desk.book("first", &slot, "").await.expect("a place");
    published(&mesh).await;

    mesh.replica("hospital", 0).expect("a replica").kill().await.expect("it runs no more");
    let location = store::Location::Postgres(mesh.postgres_ref().url("hospital"));
    let log = store::Database::open::<::hospital::Migrator>(&location).await.expect("the log opens");
    crate::remove_published(&log, jiff::Timestamp::now()).await;
    assert_eq!(store::outbox::head(log.reader()).await.expect("the log"), 0);
    log.close().await;
    mesh.replica("hospital", 0).expect("a replica").start().expect("started");
    mesh.ready(START).await.expect("it serves again");
    eventually("a booking", async || desk.book("second", &slot, "").await.map_err(|status| format!("{status:?}")))
        .await;
    mesh.stop().await.expect("it stops");
}
