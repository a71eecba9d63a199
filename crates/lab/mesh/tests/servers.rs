//! The servers themselves: they start, keep their data through a crash, lose it when wiped, and leave nothing behind.
#![allow(clippy::disallowed_methods, reason = "a test owns its tasks")]

use std::path::Path;
use std::time::Duration;

use mesh::child::Child;
use mesh::for_tests::{self, or_skip};
use mesh::{Nats, Postgres, Signal};
use testkit::eventually;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

#[tokio::test]
async fn postgres_keeps_what_was_committed_through_a_crash() {
    let Some(mut server) = or_skip("PostgreSQL", Postgres::start().await) else { return };
    server.create_database("hospital").await.unwrap();
    server.sql("hospital", "CREATE TABLE place (id int PRIMARY KEY); INSERT INTO place VALUES (1)").await.unwrap();
    let (port, data) = (server.port(), server.data_dir());
    server.stop_immediate().await.unwrap();
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();
    assert_eq!(server.port(), port);
    assert!(server.log().find(|line| line.contains("redo done").then_some(())).is_some(), "{}", server.log().tail(30));
    assert_eq!(server.sql("hospital", "SELECT count(*) FROM place").await.unwrap(), "1");
    server.stop_fast().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(server.sql("hospital", "SELECT count(*) FROM place").await.unwrap(), "1");
    for (setting, value) in [("fsync", "on"), ("synchronous_commit", "on"), ("max_connections", "300")] {
        assert_eq!(server.sql("postgres", &format!("SHOW {setting}")).await.unwrap(), value);
    }
    drop(server);
    assert!(!data.exists());
}

/// The process ends at once, and a child of it writes the last line later.
#[tokio::test]
async fn the_last_line_of_a_child_is_there_when_it_has_ended() {
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "(sleep 0.3; echo 'the last line') & exit 3"]);
    let mut child = Child::spawn("sh", command, Signal::TERM, None).unwrap();
    let status = child.ended(Duration::from_secs(10)).await.unwrap();
    assert_eq!((status.code(), child.output().tail(1).as_str()), (Some(3), "the last line"));
}

#[tokio::test]
async fn postgres_says_what_it_refuses() {
    let Some(server) = or_skip("PostgreSQL", Postgres::start().await) else { return };
    server.create_database("twice").await.unwrap();
    let refused = server.create_database("twice").await.unwrap_err();
    assert!(refused.to_string().contains("already exists"), "{refused}");
}

#[tokio::test]
async fn a_directory_that_is_given_is_kept() {
    let directory = tempfile::Builder::new().prefix("checkup-given-").tempdir().unwrap();
    // The user of the server must be able to enter the directory.
    std::fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let (postgres, nats) = (directory.path().join("postgres"), directory.path().join("nats"));
    let Some(mut server) = or_skip("PostgreSQL", Postgres::start_in(&postgres).await) else { return };
    server.create_database("kept").await.unwrap();
    server.stop_fast().await.unwrap();
    drop(server);
    let server = Postgres::start_in(&postgres).await.unwrap();
    assert_eq!(server.sql("kept", "SELECT 1").await.unwrap(), "1");

    let Some(server) = or_skip("NATS", Nats::start_in(&nats).await) else { return };
    publish(&server, "a").await;
    drop(server);
    assert_eq!(messages(&Nats::start_in(&nats).await.unwrap()).await, 1);
}

#[tokio::test]
async fn tests_share_one_postgres_and_no_database() {
    let Some(server) = or_skip("PostgreSQL", for_tests::postgres().await) else { return };
    let (one, other) = (server.database("shared").await.unwrap(), server.database("shared").await.unwrap());
    assert_ne!(one, other);
    server.sql(&one, "CREATE TABLE place (id int)").await.unwrap();
    server.sql(&other, "CREATE TABLE place (id int)").await.unwrap();
}

#[tokio::test]
async fn nats_keeps_what_it_acknowledged_through_a_crash_and_forgets_it_when_wiped() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    publish(&server, "a").await;
    publish(&server, "b").await;
    let url = server.url();
    server.kill().await.unwrap();
    assert_eq!(server.pid(), None);
    server.restart().await.unwrap();
    assert_eq!(server.url(), url);
    assert_eq!(messages(&server).await, 2);
    server.stop().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(messages(&server).await, 2);
    server.wipe().await.unwrap();
    server.restart().await.unwrap();
    assert_eq!(messages(&server).await, 0);
}

#[tokio::test]
async fn a_paused_nats_answers_nothing_and_goes_on() {
    let Some(mut server) = or_skip("NATS", Nats::start().await) else { return };
    server.pause().await.unwrap();
    // The kernel still accepts connections.
    let mut connection = TcpStream::connect(("127.0.0.1", server.port())).await.unwrap();
    let mut byte = [0];
    assert!(timeout(Duration::from_millis(300), connection.read(&mut byte)).await.is_err());
    // Pausing a paused server is no error.
    server.pause().await.unwrap();
    server.resume();
    assert_eq!(connection.read(&mut byte).await.unwrap(), 1);
    server.pause().await.unwrap();
    let (pid, store) = (server.pid().unwrap(), server.store_dir());
    drop(server);
    assert!(!running(pid) && !store.exists());
}

/// Not a test by itself: the next test runs it in a process of its own and kills that process.
#[tokio::test]
#[ignore = "run by a_server_ends_with_the_process_that_started_it"]
async fn start_and_wait_to_be_killed() {
    let server = Nats::start().await.unwrap();
    println!("\nstarted {} {}", server.pid().unwrap(), server.store_dir().display());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn a_server_ends_with_the_process_that_started_it() {
    if or_skip("NATS", Nats::start().await).is_none() {
        return;
    }
    let mut command = tokio::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", "--nocapture", "start_and_wait_to_be_killed"]);
    let mut starter = command.stdout(std::process::Stdio::piped()).kill_on_drop(true).spawn().unwrap();
    let mut lines = BufReader::new(starter.stdout.take().unwrap()).lines();
    let (pid, store) = loop {
        let line = lines.next_line().await.unwrap().expect("the server starts");
        if let Some((pid, store)) = line.strip_prefix("started ").and_then(|rest| rest.split_once(' ')) {
            break (pid.parse::<u32>().unwrap(), store.to_owned());
        }
    };
    assert!(running(pid) && Path::new(&store).exists());
    starter.kill().await.unwrap();
    eventually("the server and its store to be gone", async || match (running(pid), Path::new(&store).exists()) {
        (false, false) => Ok(()),
        (runs, exists) => Err(format!("process {pid} runs: {runs}; {store} exists: {exists}")),
    })
    .await;
}

/// Whether the process still runs. A zombie does not.
fn running(pid: u32) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    state.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// Sends one request to JetStream in the broker's own protocol. Returns the answer.
async fn ask(server: &Nats, subject: &str, payload: &str) -> String {
    let mut connection = BufReader::new(TcpStream::connect(("127.0.0.1", server.port())).await.unwrap());
    let length = payload.len();
    let connect = "{\"user\":\"operator\",\"pass\":\"operator\"}";
    let said = format!("CONNECT {connect}\r\nSUB answer 1\r\nPUB {subject} answer {length}\r\n{payload}\r\n");
    connection.write_all(said.as_bytes()).await.unwrap();
    let mut line = String::new();
    while !line.starts_with("MSG answer") {
        line.clear();
        assert!(connection.read_line(&mut line).await.unwrap() > 0, "an answer about {subject}");
    }
    line.clear();
    connection.read_line(&mut line).await.unwrap();
    line
}

const STREAM: &str = r#"{"name":"s","subjects":["events"],"storage":"file"}"#;

async fn publish(server: &Nats, payload: &str) {
    ask(server, "$JS.API.STREAM.CREATE.s", STREAM).await;
    let answer = ask(server, "events", payload).await;
    assert!(answer.contains("\"seq\""), "{answer}");
}

async fn messages(server: &Nats) -> u64 {
    let answer = ask(server, "$JS.API.STREAM.CREATE.s", STREAM).await;
    let (_, rest) = answer.split_once("\"messages\":").unwrap_or_else(|| panic!("{answer}"));
    rest.split(',').next().unwrap().parse().unwrap()
}
