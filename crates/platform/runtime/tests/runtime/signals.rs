//! Signals, seen from outside: the test starts itself as a child process.

use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;

use crate::support::soon;

#[tokio::test]
#[ignore = "the child of the_first_signal_drains_and_the_second_ends"]
async fn child() {
    let (trigger, drain) = runtime::lifecycle::drain_pair();
    let signals = runtime::lifecycle::signals(trigger).unwrap();
    println!("\nwaiting");
    soon(async {
        tokio::join!(signals, async {
            drain.requested().await;
            println!("draining");
        })
    })
    .await;
}

#[tokio::test]
async fn the_first_signal_drains_and_the_second_ends() {
    for (signal, exit_status) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["signals::child", "--exact", "--ignored", "--nocapture"])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        for expected in ["waiting", "draining"] {
            soon(async { while lines.next_line().await.unwrap().expect("a line") != expected {} }).await;
            kill_process(pid, signal).unwrap();
        }
        assert_eq!(soon(child.wait()).await.unwrap().code(), Some(exit_status));
    }
}
