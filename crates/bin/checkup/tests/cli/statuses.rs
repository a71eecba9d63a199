//! Every way in which a command ends: its status, and one sentence that helps.

use std::net::TcpListener;

use testkit::{DataDir, Finished, Launch};

fn launch() -> Launch {
    Launch::new(env!("CARGO_BIN_EXE_checkup"))
}

/// The binary, without the settings in the environment of the test.
fn binary() -> std::process::Command {
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_checkup"));
    mesh::without_settings(&mut command);
    command
}

fn ended(finished: &Finished, code: i32, sentence: &str) {
    assert_eq!(finished.code, Some(code), "{finished:?}");
    assert!(finished.stderr.contains(sentence), "{sentence:?} is not in {finished:?}");
}

#[tokio::test]
async fn help_and_version_are_no_errors_and_a_wrong_command_line_is_64() {
    for fine in [vec!["--help"], vec!["--version"], vec!["up", "--help"], vec!["config", "dump", "--help"]] {
        assert_eq!(launch().run(&fine).await.code, Some(0), "{fine:?}");
    }
    for wrong in [
        vec![],
        vec!["serve"],
        vec!["up", "--without", "hospitals"],
        vec!["up", "--addr", "localhost"],
        vec!["up", "--without", "hospital,screening,reservation,mypage,marketing"],
        vec!["token", "--role", "root", "--subject", "kim"],
        vec!["token", "--role", "customer", "--subject", "customers/kim"],
        vec!["token", "--role", "customer", "--subject", "kim", "--hospitals", "*"],
        vec!["demo", "--token", "not-a-token", "--addr", "127.0.0.1:1"],
        vec!["verify", "--data-dir", "x", "--token", "y"],
        vec!["bench", "--callers", "0"],
    ] {
        let finished = launch().run(&wrong).await;
        assert_eq!(finished.code, Some(64), "{wrong:?} {finished:?}");
        assert!(finished.stdout.is_empty() && !finished.stderr.is_empty(), "{wrong:?} {finished:?}");
    }
}

#[tokio::test]
async fn a_wrong_configuration_is_64_and_every_mistake_is_named() {
    let mistakes = ["--set", "server.max_calls=many", "--set", "surprise=1", "--set", "telemetry.format=loud"];
    for command in [&["config", "check"][..], &["config", "dump"][..], &["up"][..]] {
        let finished = launch().run(&[command, &mistakes[..4]].concat()).await;
        ended(&finished, 64, "server.max_calls: has to be an integer");
        ended(&finished, 64, "surprise: is not a known key");
    }
    ended(&launch().run(&[&["config", "check"][..], &mistakes[4..]].concat()).await, 64, "telemetry");
    let nonsense = ["config", "check", "--set", "screening.hospital_address=nonsense"];
    ended(
        &launch().run(&nonsense).await,
        64,
        "screening.hospital_address: \"nonsense\" is not of the form http://HOST:PORT",
    );
    ended(&launch().run(&["config", "check", "--config", "/nowhere/checkup.toml"]).await, 64, "/nowhere/checkup.toml");

    let fine = launch().run(&["config", "dump", "--set", "server.max_calls=7"]).await;
    assert!(fine.code == Some(0) && fine.stdout.contains("max_calls = 7 # flag --set server.max_calls=7"), "{fine:?}");
    let default = launch().run(&["config", "dump"]).await;
    assert_eq!(default.stdout, checkup::config::DEFAULT);
}

#[tokio::test]
async fn the_environment_and_a_file_configure_too() {
    let dir = DataDir::new();
    let file = dir.path().join("checkup.toml");
    std::fs::write(&file, "[server]\nmax_calls = 5\nmax_streams = 5\n").unwrap();
    let file = file.to_string_lossy().into_owned();
    let launch = launch().env("CHECKUP_SERVER__MAX_STREAMS", "6");
    let dump = launch.run(&["config", "dump", "--config", &file, "--set", "relay.batch=7"]).await.stdout;
    for line in ["max_calls = 5 ", "max_streams = 6 ", "batch = 7 "] {
        assert!(dump.lines().any(|found| found.starts_with(line)), "{line} is not in {dump}");
    }
}

#[tokio::test]
async fn tools_without_a_process_or_a_key_say_what_to_do() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let addr = free.local_addr().unwrap().to_string();
    drop(free);
    let dir = DataDir::new();
    let data = dir.path().to_string_lossy().into_owned();
    for command in ["demo", "verify"] {
        let finished = launch().run(&[command, "--addr", &addr, "--data-dir", &data]).await;
        ended(&finished, 1, "there is no signing key in");
    }
    launch().run(&["token", "--data-dir", &data, "--role", "auditor", "--subject", "kang"]).await;
    for command in ["demo", "verify"] {
        let finished = launch().run(&[command, "--addr", &addr, "--data-dir", &data]).await;
        ended(&finished, 1, "start a process with `checkup up`");
        let nowhere = launch().run(&[command, "--addr", "nowhere", "--data-dir", &data]).await;
        ended(&nowhere, 64, "is not HOST:PORT");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn up_refuses_what_it_cannot_have_with_a_sentence() {
    let first = launch().start().await;
    let data = first.launch().data().path().to_string_lossy().into_owned();
    let second = launch().run(&["up", "--data-dir", &data, "--addr", "127.0.0.1:0"]).await;
    ended(&second, 1, &format!("is in use by the process with pid {}", first.pid()));

    let (addr, other) = (first.addr().to_string(), DataDir::new());
    let other = other.path().to_string_lossy().into_owned();
    let taken = launch().run(&["up", "--data-dir", &other, "--addr", &addr]).await;
    ended(&taken, 1, "another process listens there");
    for flag in ["--addr", "--admin-addr"] {
        let remote = launch().run(&["up", "--data-dir", &other, flag, "0.0.0.0:0"]).await;
        ended(&remote, 64, "--allow-remote");
    }
    let nowhere = launch().run(&["up", "--data-dir", "/proc/nowhere", "--addr", "127.0.0.1:0"]).await;
    ended(&nowhere, 1, "choose another with --data-dir");
    first.stop().await;
}

#[tokio::test]
async fn up_refuses_damaged_files_and_says_which() {
    use std::os::unix::fs::PermissionsExt;
    let dir = DataDir::new();
    let data = dir.path().to_string_lossy().into_owned();
    let up = ["up", "--data-dir", &data, "--addr", "127.0.0.1:0"];
    let key = dir.path().join("signing-key.pem");
    std::fs::write(&key, "no key").unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    ended(&launch().run(&up).await, 1, "signing-key.pem or remove it");
    std::fs::remove_file(&key).unwrap();
    std::fs::write(dir.path().join("hospital.db"), "no database, but long enough to be taken for one".repeat(100))
        .unwrap();
    ended(&launch().run(&up).await, 1, "hospital.db");
}

/// Runs a command whose standard output is a full device.
fn on_a_full_disk(arguments: &[&str]) -> std::process::Output {
    let full = std::fs::File::options().write(true).open("/dev/full").expect("a device that is full");
    let mut command = binary();
    command.args(arguments).stdin(std::process::Stdio::null()).stdout(full).output().expect("the binary runs")
}

fn is_told_to_the_operator(arguments: &[&str]) {
    let ended = on_a_full_disk(arguments);
    let said = String::from_utf8_lossy(&ended.stderr);
    assert_eq!(ended.status.code(), Some(1), "{arguments:?} {said}");
    assert!(said.contains("cannot write to standard output"), "{arguments:?} {said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_result_that_cannot_be_written_is_a_failure_of_every_command() {
    let checkup = launch().topology(testkit::Topology::Embedded).start().await;
    let data = checkup.launch().data().path().to_string_lossy().into_owned();
    let addr = checkup.addr().to_string();
    let running = ["--addr", addr.as_str(), "--data-dir", data.as_str()];
    for command in [
        vec!["token", "--data-dir", &data, "--role", "auditor", "--subject", "kang"],
        vec!["jwks", "--data-dir", &data],
        vec!["config", "dump"],
        vec!["config", "dump", "--set", "server.max_calls=7"],
        vec!["config", "check"],
        vec!["dead-letters", "list", "--data-dir", &data],
        vec!["dead-letters", "list", "--json", "--data-dir", &data],
        [&["demo"], &running[..]].concat(),
        [&["demo", "--json"], &running[..]].concat(),
        [&["verify"], &running[..]].concat(),
        [&["verify", "--json"], &running[..]].concat(),
        vec!["--help"],
        vec!["--version"],
        vec!["token", "--help"],
    ] {
        is_told_to_the_operator(&command);
    }
    checkup.stop().await;
}

#[test]
fn a_reader_that_has_seen_enough_is_no_failure() {
    let mut dump = binary();
    let mut dump = dump.args(["config", "dump"]).stdout(std::process::Stdio::piped()).spawn().expect("the binary runs");
    drop(dump.stdout.take());
    assert_eq!(dump.wait().expect("it ends").code(), Some(0));
}

#[test]
fn a_full_standard_error_changes_no_status() {
    let full = || std::fs::File::options().write(true).open("/dev/full").expect("a device that is full");
    for (arguments, code) in
        [(&["config", "check", "--set", "surprise=1"][..], 64), (&["demo", "--addr", "127.0.0.1:1"], 1)]
    {
        let mut command = binary();
        let dir = DataDir::new();
        let status = command.args(arguments).current_dir(dir.path()).stderr(full()).stdout(full()).status();
        assert_eq!(status.expect("the binary runs").code(), Some(code), "{arguments:?}");
    }
}

#[tokio::test]
async fn a_token_that_nobody_would_accept_is_not_made() {
    let dir = DataDir::new();
    let data = dir.path().to_string_lossy().into_owned();
    let make = async |count: usize| {
        let hospitals: Vec<String> = (0..count).map(|i| format!("a-hospital-whose-id-is-rather-long-{i:03}")).collect();
        let listed = hospitals.join(",");
        launch()
            .run(&["token", "--data-dir", &data, "--role", "admin", "--subject", "lee", "--hospitals", &listed])
            .await
    };
    let most = make(60).await;
    assert_eq!(most.code, Some(0), "{most:?}");
    assert!(most.stdout.trim().len() <= runtime::identity::MAX_TOKEN_BYTES);
    let more = make(80).await;
    ended(&more, 64, "services accept 4096 at most");
    ended(&more, 64, "fewer hospitals, or all of them with *");
    assert_eq!(more.stdout, "");
    let brief = ["token", "--data-dir", &data, "--role", "auditor", "--subject", "kang", "--ttl", "900ms"];
    ended(&launch().run(&brief).await, 64, "--ttl must be a second at least");
}

#[tokio::test]
async fn a_token_is_all_that_is_printed_and_the_first_one_makes_the_key() {
    let dir = DataDir::new();
    let data = dir.path().join("fresh").to_string_lossy().into_owned();
    let made = launch().run(&["token", "--data-dir", &data, "--role", "admin", "--subject", "lee"]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let lines: Vec<&str> = made.stdout.lines().collect();
    assert!(matches!(lines[..], [token] if token.split('.').count() == 3), "{made:?}");
}

#[tokio::test]
async fn jwks_are_the_public_half_of_the_key_that_signs_and_nothing_else() {
    let dir = DataDir::new();
    let data = dir.path().join("fresh").to_string_lossy().into_owned();
    let made = launch().run(&["jwks", "--data-dir", &data]).await;
    assert_eq!(made.code, Some(0), "{made:?}");
    let document: serde_json::Value = serde_json::from_str(&made.stdout).unwrap();
    let keys = document["keys"].as_array().unwrap();
    assert!(matches!(&keys[..], [key] if key["kty"] == "OKP" && key.get("d").is_none()), "{made:?}");
    let verifier = runtime::identity::Verifier::from_jwks(&made.stdout).unwrap();
    let token = launch().run(&["token", "--data-dir", &data, "--role", "admin", "--subject", "lee"]).await.stdout;
    assert!(verifier.verify(token.trim()).is_ok());
}
