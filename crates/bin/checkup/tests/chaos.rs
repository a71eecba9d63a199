//! Every fault that the mesh promises to survive, in short form, with real processes, real servers and continuous load.
//!
//! These tests check correctness: nothing is lost, doubled or oversold, and all services agree. `make chaos` measures
//! how fast the mesh recovers: it plays the same scenarios for longer, under more load and with a release build.

use std::io::Write;
use std::path::PathBuf;
use std::time::Duration;

use chaos::{Error, Form, Plan, Row, Scenario};
use mesh::for_tests::or_skip;
use testkit::seed;

/// The number of confirmed bookings below which a scenario had too little load.
const CONFIRMED: u64 = 10;

/// Plays a scenario and asserts that nothing is wrong. `None`, with a message, if this machine cannot play it.
async fn survives(scenario: Scenario) -> Option<Row> {
    let (seed, binary) = (seed(scenario.name()).number(), PathBuf::from(env!("CARGO_BIN_EXE_checkup")));
    // what is replaced is the same version here; `.ci/upgrade` replaces the last release
    let plan = Plan { before: Some(binary.clone()), ..scenario.plan(Form::Short, binary, seed) };
    let row = match scenario.run(&plan).await {
        Ok(row) => row,
        Err(Error::Server(error)) => return or_skip("a mesh", Err(error)),
        Err(Error::Skipped(why)) => {
            // not `eprintln!`: the test harness hides that when the test passes
            let _ = writeln!(std::io::stderr(), "skipped: {}: {why}", scenario.name());
            return None;
        }
        Err(error) => panic!("{} could not be played: {error}", scenario.name()),
    };
    println!("{}", row.text());
    assert!(row.is_clean(), "{}", row.text());
    assert!(row.effects[0] >= CONFIRMED && row.looks > 0, "there was hardly any load: {row:?}");
    Some(row)
}

macro_rules! survives {
    ($($test:ident: $scenario:ident,)*) => {
        $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $test() {
            survives(Scenario::$scenario).await;
        })*
    };
}

survives! {
    kill_of_a_replica_of_each_service: Kill,
    postgres_stopped_immediate: Postgres,
    hospital_stands_still_in_mid_transaction: Freeze,
    partition_between_screening_and_hospital: Partition,
    nats_down: NatsDown,
    nats_killed_again_and_again: NatsKill,
    nats_loses_its_volume: NatsWipe,
    nats_loses_what_no_view_has_read: NatsGap,
    every_event_published_twice: Twice,
    commits_applied_and_their_answers_lost: Commit,
    hospital_deleted_under_load: Deletion,
    clock_of_one_process_is_wrong: Clock,
    disk_of_the_databases_is_full: Disk,
    poison_events: Poison,
    a_version_replaced_replica_by_replica: Upgrade,
    a_view_of_an_earlier_version: EarlierView,
    rolling_restart_of_every_service: Rolling,
    flash_sale: Flash,
    embedded_disk_full: EmbeddedFull,
    embedded_io_errors: EmbeddedIo,
    embedded_syncs_fail: EmbeddedSync,
    embedded_slow_disk: EmbeddedSlow,
    embedded_stands_still: EmbeddedPause,
    embedded_killed_while_its_disk_fails: EmbeddedKill,
    embedded_killed_in_a_checkpoint: EmbeddedCheckpoint,
    embedded_power_failures: EmbeddedPower,
    embedded_hospital_deleted_under_load: EmbeddedDeletion,
    embedded_flash_sale: EmbeddedFlash,
    embedded_clock_is_wrong: EmbeddedClock,
    embedded_restarts: EmbeddedRestart,
    postgres_power_failures: PostgresPower,
    disk_of_a_my_page_replica_is_full: MyPageFull,
    database_of_hospital_comes_back_older: OlderHospital,
    database_of_screening_comes_back_older: OlderScreening,
    database_of_reservation_comes_back_older: OlderReservation,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_is_found() {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_checkup"));
    let mut plan = Scenario::Kill.plan(Form::Short, binary, seed("damage").number());
    (plan.settle, plan.keep) = (Duration::ZERO, false);
    let row = match chaos::damage(&plan).await {
        Ok(row) => row,
        Err(Error::Server(error)) => {
            let _ = or_skip::<()>("a mesh", Err(error));
            return;
        }
        Err(error) => panic!("there is nothing to be found: {error}"),
    };
    println!("{}", row.text());
    let found = row.lost >= 1 && row.doubled >= 1 && row.oversold >= 1;
    assert!(found && row.complaints.iter().any(|complaint| complaint.starts_with("verify")), "{}", row.text());
}

/// With `fsync=off`, PostgreSQL loses bookings in a power failure. If this were not found, the row about its power
/// failures would prove nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_syncs_nothing_is_found() {
    let binary = PathBuf::from(env!("CARGO_BIN_EXE_checkup"));
    let mut plan = Scenario::PostgresPower.plan(Form::Short, binary, seed("unsynced").number());
    (plan.settle, plan.keep, plan.rounds) = (Duration::ZERO, false, 1);
    let row = match chaos::unsynced(&plan).await {
        Ok(row) => row,
        Err(Error::Server(error)) => {
            let _ = or_skip::<()>("a mesh", Err(error));
            return;
        }
        Err(Error::Skipped(why)) => {
            let _ = writeln!(std::io::stderr(), "skipped: a server that syncs nothing: {why}");
            return;
        }
        // the service compares the database that came back with the stream, and notices it before its callers do
        Err(error) if error.to_string().contains("has lost its own past") => return,
        Err(error) => panic!("there is nothing to be found: {error}"),
    };
    println!("{}", row.text());
    assert!(row.lost >= 1, "{}", row.text());
}

#[test]
fn every_scenario_has_a_name_of_its_own_that_can_be_typed() {
    for scenario in Scenario::ALL {
        assert_eq!(scenario.name().parse(), Ok(scenario));
        assert!(!scenario.about().is_empty());
    }
    assert!("earthquake".parse::<Scenario>().is_err_and(|why| why.contains("nats-wipe")));
}
