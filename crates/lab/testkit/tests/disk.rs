//! The faulty disk does what it says, to programs that do not know of it. Without this proof, a test on it that finds
//! nothing would mean nothing.
#![allow(clippy::disallowed_methods, reason = "a test starts its own programs")]

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use testkit::{Call, Disk, Fault, Random};

/// A directory with a faulty disk; `None`, and a line that says so, without a C compiler.
fn disk() -> Option<(TempDir, Disk)> {
    let directory = tempfile::tempdir().expect("a temporary directory");
    match Disk::under(directory.path()).and_then(Disk::with_power) {
        Ok(disk) => Some((directory, disk)),
        Err(why) => {
            // Not with eprintln: the test harness hides its output when the test passes.
            let _ = writeln!(std::io::stderr(), "skipped: a disk that fails: {why}");
            None
        }
    }
}

/// Runs a script in the directory, on the faulty disk.
fn run(directory: &TempDir, disk: &Disk, script: &str) -> Output {
    let mut command = Command::new("/bin/sh");
    command.arg("-ec").arg(script).current_dir(directory.path()).envs(disk.environment());
    command.output().expect("a shell")
}

fn runs(directory: &TempDir, disk: &Disk, script: &str) {
    let output = run(directory, disk, script);
    assert!(output.status.success(), "{script}: {output:?}");
}

fn text(directory: &TempDir, file: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(directory.path().join(file)).ok()
}

#[test]
fn what_was_not_synced_is_gone() {
    let Some((directory, disk)) = disk() else { return };
    fs::write(directory.path().join("before"), "there").expect("a file");
    runs(&directory, &disk, "printf old > a; sync a; sync .; printf new > a");
    runs(&directory, &disk, "printf x > without-name; sync without-name");
    runs(&directory, &disk, "mkdir d; printf x > d/in; sync d/in; sync d");
    disk.lose_power(None).expect("the power fails");
    assert_eq!(text(&directory, "before").as_deref(), Some("there"), "what was there at the start");
    assert_eq!(text(&directory, "a").as_deref(), Some("old"));
    assert_eq!(text(&directory, "without-name"), None, "a name that its directory was not synced with");
    assert_eq!(text(&directory, "d/in"), None, "a directory whose own name was not synced");
    runs(&directory, &disk, "printf x > empty; mkdir d; printf x > d/in; sync d/in; sync d; sync .");
    disk.lose_power(None).expect("the power fails again");
    assert_eq!(text(&directory, "empty").as_deref(), Some(""), "a file that was not synced itself");
    assert_eq!(text(&directory, "d/in").as_deref(), Some("x"));
}

#[test]
fn names_change_when_their_directory_is_synced() {
    let Some((directory, disk)) = disk() else { return };
    runs(&directory, &disk, "printf one > a; sync a; sync .; mv a b; rm -f c; printf two > c; sync c");
    disk.lose_power(None).expect("the power fails");
    assert_eq!(text(&directory, "a").as_deref(), Some("one"), "a rename that was not synced");
    assert_eq!(text(&directory, "b"), None);
    runs(&directory, &disk, "mv a b; sync .; rm b; printf new > reuses-the-number; sync reuses-the-number");
    disk.lose_power(None).expect("the power fails again");
    assert_eq!(text(&directory, "b").as_deref(), Some("one"), "a removal that was not synced");
    assert_eq!((text(&directory, "a"), text(&directory, "reuses-the-number")), (None, None));
    runs(&directory, &disk, "printf three > part; sync part; mv part b; sync .");
    disk.lose_power(None).expect("the power fails once more");
    assert_eq!((text(&directory, "b").as_deref(), text(&directory, "part")), (Some("three"), None));
}

#[test]
fn a_torn_file_has_some_of_what_was_not_synced() {
    const BLOCKS: usize = 200;
    let Some((directory, disk)) = disk() else { return };
    let file =
        |with: char| format!("head -c {} /dev/zero | tr '\\0' {with} | dd of=a bs=4096 conv=notrunc", BLOCKS * 4096);
    runs(&directory, &disk, &format!("{}; sync a; sync .; {}", file('o'), file('n')));
    disk.lose_power(Some(&mut Random::new(7))).expect("the power fails");
    let torn = text(&directory, "a").expect("the file");
    let new = torn.as_bytes().chunks(4096).filter(|block| block.iter().all(|byte| *byte == b'n')).count();
    let old = torn.as_bytes().chunks(4096).filter(|block| block.iter().all(|byte| *byte == b'o')).count();
    assert_eq!(new + old, BLOCKS, "blocks are whole");
    assert!(new > BLOCKS / 4 && old > BLOCKS / 4, "{new} new, {old} old");
}

#[test]
fn faults_strike_what_they_are_to_and_nothing_else() {
    let Some((directory, disk)) = disk() else { return };
    let write = |file: &str| format!("dd if=/dev/zero of={file} bs=4096 count=2 conv=notrunc");
    runs(&directory, &disk, &write("db"));
    disk.arm(&[Fault::full().on("d*")]);
    let refused = run(&directory, &disk, &write("dc"));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("No space left"), "{refused:?}");
    assert_eq!(disk.hits(), 1);
    runs(&directory, &disk, &write("db"));
    runs(&directory, &disk, &write("other"));
    assert_eq!(disk.hits(), 1, "what has its place can be written, and other files");
    disk.arm(&[Fault::failed_sync().times(2)]);
    let fails = |script: &str| !run(&directory, &disk, script).status.success();
    assert!(fails("sync db") && fails("sync db"));
    runs(&directory, &disk, "sync db");
    disk.arm(&[Fault::short_write().on("short")]);
    assert!(fails(&write("short")));
    assert_eq!(fs::metadata(directory.path().join("short")).expect("half of it").len(), 2048);
    disk.arm(&[Fault::broken(&[Call::Rename, Call::Unlink, Call::Mkdir])]);
    assert!(fails("mv db moved") && fails("rm db") && fails("mkdir new"));
    disk.heal();
    runs(&directory, &disk, "mv db moved; rm moved; mkdir new");
}

#[test]
fn a_lie_keeps_nothing_and_a_delay_takes_its_time() {
    let Some((directory, disk)) = disk() else { return };
    disk.arm(&[Fault::unsynced()]);
    runs(&directory, &disk, "printf x > a; sync a; sync .");
    assert_eq!(disk.hits(), 2);
    disk.heal();
    disk.lose_power(None).expect("the power fails");
    assert_eq!(text(&directory, "a"), None);
    disk.arm(&[Fault::slow(Duration::from_millis(200), &[Call::Sync])]);
    let begun = Instant::now();
    runs(&directory, &disk, "printf x > a; sync a; sync .");
    assert!(begun.elapsed() >= Duration::from_millis(400), "{:?}", begun.elapsed());
    assert!(disk.processes() > 0);
}

#[test]
fn what_a_failed_sync_dropped_is_gone_although_the_next_one_succeeds() {
    let Some((directory, disk)) = disk() else { return };
    runs(&directory, &disk, "printf old > a; sync a; sync .; printf newer > a");
    disk.arm(&[Fault::dropped_sync().times(1)]);
    assert!(!run(&directory, &disk, "sync a").status.success());
    runs(&directory, &disk, "sync a");
    assert_eq!(text(&directory, "a").as_deref(), Some("old\0\0"), "the length is another matter");
    disk.lose_power(None).expect("the power fails");
    assert_eq!(text(&directory, "a").as_deref(), Some("old\0\0"));
}

#[test]
fn a_share_of_the_calls_follows_from_the_seed() {
    const CALLS: u64 = 100;
    let Some((directory, disk)) = disk() else { return };
    let struck = |seed| {
        disk.arm(&[Fault::unsynced().per_mille(250, &mut Random::new(seed))]);
        runs(&directory, &disk, &format!("touch a; for i in $(seq {CALLS}); do sync a; done"));
        disk.hits()
    };
    let (one, same) = (struck(1), struck(1));
    assert_eq!(one, same);
    assert!((CALLS / 8..CALLS / 2).contains(&one), "{one} of {CALLS}");
}
