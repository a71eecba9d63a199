//! Two versions side by side: an earlier one that is replaced, and a view of an earlier one beside this one.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use contract::screening::v1::screening::State;
use testkit::{Booking, Cancelling, Outcome, Party};

use super::process::SERVICES;
use crate::Error;
use crate::pool::RetryPolicy;
use crate::row::Row;
use crate::run::{Plan, Run, START_TIMEOUT, Setup};

/// The bookings that wait for a place at the view of an earlier version, and those that hold the places.
const WAITING: usize = 3;
const HOLDING: usize = 2;

/// The binary of the earlier version.
fn before(plan: &Plan) -> Result<&Path, Error> {
    let missing = || Error::Skipped("name the binary of an earlier version with --before".to_owned());
    plan.before.as_deref().ok_or_else(missing)
}

/// Runs an earlier version, migrates its databases while it serves, and replaces its replicas in the order of
/// docs/operations/upgrade.md. Customers do only what that version knows.
pub(super) async fn upgrade(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    const ORDER: [&str; 5] = ["hospital", "reservation", "marketing", "mypage", "screening"];
    let mut earlier = Plan { binary: before(plan)?.to_owned(), ..plan.clone() };
    earlier.pressure.moved_percent = 0;
    let setup = Setup { replicas: SERVICES.map(|service| (service, 2)).into(), ..Setup::default() };
    let mut run = Run::start(&earlier, setup, |_| {}).await?;
    run.plan.binary.clone_from(&plan.binary);
    run.stage.migrate_to(&plan.binary).await?;
    let mut longest = Duration::ZERO;
    for service in ORDER {
        for index in 0..2 {
            run.replica(service, index)?.replace_binary(&plan.binary);
            run.strikes();
            longest = longest.max(run.restart(service, index).await?);
            // both versions of the service serve meanwhile
            run.goes_on(plan.after / 4).await;
        }
    }
    run.goes_on(plan.after).await;
    run.notes.push(format!("a replica away at most {:.1} s", longest.as_secs_f64()));
    let mut row = run.finish(name, "an earlier version replaced replica by replica, 2 of each service").await?;
    if row.unknown > 0 {
        row.complaints.push(format!("{} calls without a definite answer, in a rollout", row.unknown));
    }
    Ok(row)
}

/// Gives one replica of my-page an earlier version, while bookings move and get places from a queue. It begins with the
/// first event and reads those that it knows. In the end both replicas show the same bookings on the same dates, and
/// there is no dead letter.
pub(super) async fn earlier_view(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let before = before(plan)?;
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    run.strikes();
    let replica = run.replica("mypage", 1)?;
    replica.stop().await?;
    for file in ["mypage.db", "mypage.db-wal", "mypage.db-shm"] {
        match std::fs::remove_file(replica.directory().join(file)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(Error::system("remove a view")(error));
            }
            _ => {}
        }
    }
    replica.replace_binary(before);
    replica.start()?;
    replica.ready(START_TIMEOUT).await?;
    run.goes_on(plan.fault).await;
    promote(&mut run).await?;
    run.goes_on(plan.after).await;
    run.notes.push(format!("{WAITING} got places from a queue"));
    run.finish(name, "my-page of an earlier version beside this one: moves, and places from a queue").await
}

/// Lets customers wait for places, and gives them all one: those of the holders, and a new one.
async fn promote(run: &mut Run) -> Result<(), Error> {
    let (places, added) =
        (i32::try_from(HOLDING).unwrap_or_default(), i32::try_from(WAITING - HOLDING).unwrap_or_default());
    let slot = crate::run::open(&run.hospital, &run.desk.tokens, "waited-for", &[places]).await?.remove(0).name;
    let (observed, admin) = (Arc::clone(&run.observed), testkit::Desk::of(&run.admin()));
    let mut bookings = Vec::new();
    for index in 0..HOLDING + WAITING {
        let request_id = run.random.uuid_v7().to_string();
        if index >= HOLDING {
            observed.history.joins(&request_id);
        }
        let (customer, slot, outcome) = (format!("q{index}"), slot.clone(), Outcome::Unknown);
        let mut booking = Booking { customer, slot, request_id, outcome, moves: Vec::new(), cancelling: None };
        let token = run.desk.tokens.customer(&booking.customer);
        run.desk.book(&observed, &token, &mut booking, RetryPolicy::CUSTOMER).await;
        bookings.push((booking, token));
    }
    for (booking, token) in &mut bookings[..HOLDING] {
        let request_id = run.random.uuid_v7().to_string();
        booking.cancelling = Some(Cancelling { request_id, outcome: Outcome::Unknown });
        run.desk.cancel(&observed, token, booking, RetryPolicy::CUSTOMER).await;
    }
    let screening = Party::new(run.desk.screening.next(), Some(&run.desk.tokens.auditor()));
    let screening = testkit::Desk::of(&screening);
    admin.add_places(&slot, added).await.map_err(Error::call("SetSlotCapacity"))?;
    for (booking, _) in &bookings[HOLDING..] {
        match &booking.outcome {
            Outcome::Done(name) => drop(screening.becomes(name, State::Confirmed).await),
            other => observed.complain(format!("a booking that was to wait is {other:?}")),
        }
    }
    bookings.into_iter().for_each(|(booking, _)| observed.history.note(booking));
    Ok(())
}
