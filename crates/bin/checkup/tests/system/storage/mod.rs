//! Disks that fail under the real binary: full, broken, slow to sync, without power. No answered write is lost.
//!
//! In each test, customers book, move and cancel while the disk fails. Every answer is checked before the client
//! repeats a call, after it, and after a restart, which shows what is on the disk and not only in a connection.

mod faults;
mod power;
mod room;
mod said;
mod server;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::{Booking, Checkup, DataDir, Desk, Disk, Launch, Outcome, Random, Refusal};
use testkit::{eventually, eventually_within, gather, get};
use tonic::{Code, Status};

use crate::crash::{Run, ask, check_screenings, settle, verify, wanted};

/// The reasons of refusals while a store cannot write: from the service itself, and from the one that calls it.
const REASONS: [&str; 2] = ["STORAGE_UNAVAILABLE", "HOSPITAL_UNAVAILABLE"];
/// How many customers book, move and cancel at the same time.
const CALLERS: usize = 6;
/// How long a customer waits after a refusal or a lost answer.
const PAUSE: Duration = Duration::from_millis(20);
/// How soon a process must report that it cannot write, and that it can again.
const NOTICED: Duration = Duration::from_secs(15);

/// A disk for the parent of a data directory. `None`, with a message, if this machine has no C compiler.
fn disk_under(data: &DataDir) -> Option<Disk> {
    or_skip("a disk that fails", Disk::under(data.parent()))
}

fn or_skip<T>(what: &str, made: Result<T, String>) -> Option<T> {
    use std::io::Write;
    // not `eprintln!`: the test harness hides that when the test passes
    let said = |why: String| drop(writeln!(std::io::stderr(), "skipped: {what}: {why}"));
    made.map_err(said).ok()
}

/// Creates a hospital: slots with room for all, and slots with few places.
async fn open(checkup: &Checkup) -> Arc<Run> {
    let admin = Desk::of(&checkup.admin().await);
    let mut slots = admin.open("roomy", &(5..25).collect::<Vec<_>>(), 10_000).await;
    slots.extend(admin.open("narrow", &(40..45).collect::<Vec<_>>(), 4).await);
    Arc::new(Run::new(slots, checkup.tokens()))
}

/// Runs `work` while customers book, move and cancel, whatever they are answered. Then waits for their last answers.
async fn under_load<T>(checkup: &Checkup, run: &Arc<Run>, random: &mut Random, work: impl Future<Output = T>) -> T {
    run.stop.store(false, Ordering::Relaxed);
    let connections = checkup.served().connections(3).await;
    let callers = (0..CALLERS).map(|caller| {
        let (run, channel) = (Arc::clone(run), connections[caller % connections.len()].clone());
        let mut random = random.fork();
        tokio::spawn(async move {
            while !run.stop.load(Ordering::Relaxed) {
                let customer = format!("c{:x}", random.number());
                let mut booking = wanted(&run, customer, 40, &mut random);
                ask(&run, &channel, &mut booking).await;
                let open = booking.is_open();
                run.history.note(booking);
                if open {
                    tokio::time::sleep(PAUSE).await;
                }
            }
        })
    });
    let callers = callers.collect();
    let done = work.await;
    run.stop.store(true, Ordering::Relaxed);
    gather(callers).await;
    done
}

/// Lets the load run for a while. No event tells when that is enough.
async fn goes_on(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Waits until the readiness of the process is as expected.
async fn is_ready(checkup: &Checkup, expected: bool) {
    let admin = checkup.admin_addr();
    eventually_within(NOTICED, &format!("readiness to be {expected}"), async || {
        let page = get(admin, "/ready").await?;
        if (page.status == 200) == expected { Ok(()) } else { Err(format!("{} {}", page.status, page.body)) }
    })
    .await;
}

/// Checks the refusal of a booking that cannot be written: it may be retried, and it says why.
fn check_refusal(status: &Status) -> Result<(), String> {
    let refusal = Refusal::of(status).ok_or_else(|| format!("a status without ErrorInfo: {status:?}"))?;
    let may_come_again = refusal.code == Code::Unavailable && REASONS.contains(&refusal.reason.as_str());
    if may_come_again { Ok(()) } else { Err(format!("{refusal:?}")) }
}

/// Books the first slot for a new customer.
async fn book(checkup: &Checkup, run: &Run, random: &mut Random) -> Result<String, Status> {
    let mut booking = Booking {
        customer: format!("p{:x}", random.number()),
        slot: run.slots[0].clone(),
        request_id: random.uuid().to_string(),
        outcome: Outcome::Unknown,
        moves: Vec::new(),
        cancelling: None,
    };
    let desk = Desk::of(&checkup.customer(&booking.customer).await);
    let answer = desk.book(&booking.customer, &booking.slot, &booking.request_id).await.map(|screening| screening.name);
    booking.outcome = answer.clone().map_or(Outcome::Unknown, Outcome::Done);
    run.history.note(booking);
    answer
}

/// Waits until the process reports to probes and callers that it cannot write.
async fn says_so(checkup: &Checkup, run: &Run, random: &mut Random) {
    is_ready(checkup, false).await;
    eventually("a booking to be refused", async || match book(checkup, run, random).await {
        Ok(name) => Err(format!("{name} was booked")),
        Err(status) => check_refusal(&status),
    })
    .await;
}

/// Waits until the process works again by itself.
async fn works_again(checkup: &Checkup, run: &Run, random: &mut Random) {
    is_ready(checkup, true).await;
    eventually("a booking to be made", async || {
        book(checkup, run, random).await.map(drop).map_err(|status| format!("{status:?}"))
    })
    .await;
}

/// Checks that every answer is true now, after open calls were repeated, and after a restart; and that the services
/// agree.
async fn every_answer_is_true(checkup: Checkup, run: &Run, when: &str) -> Checkup {
    check_screenings(&checkup, run, when).await;
    settle(&checkup, run).await;
    check_screenings(&checkup, run, &format!("{when}, all settled")).await;
    verify(&checkup, when).await;
    let checkup = checkup.stop().await.start().await;
    check_screenings(&checkup, run, &format!("{when}, restarted")).await;
    verify(&checkup, &format!("{when}, restarted")).await;
    let (answered, unknown) = run.history.counts();
    assert!(answered > 0 && unknown == 0, "{when}: {answered} answered, {unknown} unknown");
    checkup
}

/// Starts one process on a disk that can fail.
async fn on_a_disk(launch: Launch, data: &DataDir, disk: &Disk) -> Checkup {
    let checkup = launch.on(data).disk(disk).start().await;
    assert!(disk.processes() > 0, "the library is not loaded: the binary is static");
    checkup
}
