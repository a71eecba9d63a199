//! Disks that fail under the real binary: full, broken, slow to sync, without power. Whatever a disk does, what was answered is there.
//!
//! Each test keeps customers booking and cancelling while the disk fails, and holds the process to every answer it gave: before the
//! client repeats a call, after, and after a restart, which shows what is on the disk and not only in a connection.

mod faults;
mod power;
mod room;
mod said;
mod server;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use testkit::{Booking, Cancelling, Checkup, DataDir, Desk, Disk, Launch, Outcome, Random, Refusal};
use testkit::{eventually, eventually_within, gather, get};
use tonic::{Code, Status};

use crate::crash::{Run, ask, check_ledger, is_open, settle, verify};

/// What callers hear of a store that cannot write, from the service itself and from the one that needs it.
const REASONS: [&str; 2] = ["STORAGE_UNAVAILABLE", "HOSPITAL_UNAVAILABLE"];
/// How many customers book and cancel at once.
const CALLERS: usize = 6;
/// How long a customer waits after an answer that is none.
const PAUSE: Duration = Duration::from_millis(20);
/// How soon a process says that it cannot write, and that it can again.
const NOTICED: Duration = Duration::from_secs(15);

/// The disk under a data directory's parent; where this machine has no C compiler that is said, and there is none.
fn disk_under(data: &DataDir) -> Option<Disk> {
    or_skip("a disk that fails", Disk::under(data.parent()))
}

fn or_skip<T>(what: &str, made: Result<T, String>) -> Option<T> {
    use std::io::Write;
    // not with eprintln: the harness keeps that to itself when the test passes
    let said = |why: String| drop(writeln!(std::io::stderr(), "skipped: {what}: {why}"));
    made.map_err(said).ok()
}

/// A hospital with room for all, and one for few.
async fn open(checkup: &Checkup) -> Arc<Run> {
    let admin = Desk::of(&checkup.admin().await);
    let mut slots = admin.open("roomy", &(5..25).collect::<Vec<_>>(), 10_000).await;
    slots.extend(admin.open("narrow", &(40..45).collect::<Vec<_>>(), 4).await);
    Arc::new(Run::new(slots, checkup.tokens()))
}

/// Does something while customers book and cancel, whatever they are told; then waits for their last answers.
async fn under_load<T>(checkup: &Checkup, run: &Arc<Run>, random: &mut Random, work: impl Future<Output = T>) -> T {
    run.stop.store(false, Ordering::Relaxed);
    let connections = checkup.served().connections(3).await;
    let callers = (0..CALLERS).map(|caller| {
        let (run, channel) = (Arc::clone(run), connections[caller % connections.len()].clone());
        let mut random = random.fork();
        tokio::spawn(async move {
            while !run.stop.load(Ordering::Relaxed) {
                let id = |random: &mut Random| random.uuid().to_string();
                let cancelling =
                    random.chance(40).then(|| Cancelling { request_id: id(&mut random), outcome: Outcome::Unknown });
                let mut booking = Booking {
                    customer: format!("c{:x}", random.number()),
                    slot: random.pick(&run.slots).clone(),
                    request_id: id(&mut random),
                    outcome: Outcome::Unknown,
                    cancelling,
                };
                ask(&run, &channel, &mut booking).await;
                let open = is_open(&booking);
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

/// Lets the load go on: the one thing a test may wait for that nothing tells the end of.
async fn goes_on(millis: u64) {
    tokio::time::sleep(Duration::from_millis(millis)).await;
}

/// Waits until the process says that it is ready, or that it is not.
async fn is_ready(checkup: &Checkup, expected: bool) {
    let admin = checkup.admin_addr();
    eventually_within(NOTICED, &format!("readiness to be {expected}"), async || {
        let page = get(admin, "/ready").await?;
        if (page.status == 200) == expected { Ok(()) } else { Err(format!("{} {}", page.status, page.body)) }
    })
    .await;
}

/// What a booking is told where the store cannot write: that it may come again, and why.
fn check_refusal(status: &Status) -> Result<(), String> {
    let refusal = Refusal::of(status).ok_or_else(|| format!("a status without ErrorInfo: {status:?}"))?;
    let may_come_again = refusal.code == Code::Unavailable && REASONS.contains(&refusal.reason.as_str());
    if may_come_again { Ok(()) } else { Err(format!("{refusal:?}")) }
}

/// A new customer's booking of the first slot.
async fn book(checkup: &Checkup, run: &Run, random: &mut Random) -> Result<String, Status> {
    let mut booking = Booking {
        customer: format!("p{:x}", random.number()),
        slot: run.slots[0].clone(),
        request_id: random.uuid().to_string(),
        outcome: Outcome::Unknown,
        cancelling: None,
    };
    let desk = Desk::of(&checkup.customer(&booking.customer).await);
    let answer = desk.book(&booking.customer, &booking.slot, &booking.request_id).await.map(|screening| screening.name);
    booking.outcome = answer.clone().map_or(Outcome::Unknown, Outcome::Done);
    run.history.note(booking);
    answer
}

/// The process says that it cannot write: to probes, and to whoever calls.
async fn says_so(checkup: &Checkup, run: &Run, random: &mut Random) {
    is_ready(checkup, false).await;
    eventually("a booking to be refused", async || match book(checkup, run, random).await {
        Ok(name) => Err(format!("{name} was booked")),
        Err(status) => check_refusal(&status),
    })
    .await;
}

/// The process works again, without anybody's help.
async fn works_again(checkup: &Checkup, run: &Run, random: &mut Random) {
    is_ready(checkup, true).await;
    eventually("a booking to be made", async || {
        book(checkup, run, random).await.map(drop).map_err(|status| format!("{status:?}"))
    })
    .await;
}

/// Every answer is true: now, after what was left open was asked again, and after a restart; and the services agree.
async fn every_answer_is_true(checkup: Checkup, run: &Run, when: &str) -> Checkup {
    check_ledger(&checkup, run, when).await;
    settle(&checkup, run).await;
    check_ledger(&checkup, run, &format!("{when}, all settled")).await;
    verify(&checkup, when).await;
    let checkup = checkup.stop().await.start().await;
    check_ledger(&checkup, run, &format!("{when}, restarted")).await;
    verify(&checkup, &format!("{when}, restarted")).await;
    let (answered, unknown) = run.history.counts();
    assert!(answered > 0 && unknown == 0, "{when}: {answered} answered, {unknown} unknown");
    checkup
}

/// One process on a disk that can be made to fail.
async fn on_a_disk(launch: Launch, data: &DataDir, disk: &Disk) -> Checkup {
    let checkup = launch.on(data).disk(disk).start().await;
    assert!(disk.processes() > 0, "the library is not loaded: the binary is static");
    checkup
}
