//! One service's database is restored to an older state than the others'.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use mesh::{Mesh, State};
use tokio::time::{Instant, sleep};

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, START_TIMEOUT, Setup};

const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Restores a service's database to an earlier state, under load. Its processes must notice that and wait, `checkup
/// recover` repairs the database, and the processes then continue by themselves.
pub(super) async fn older(name: &'static str, plan: &Plan, service: &'static str) -> Result<Row, Error> {
    let mut run = Run::start(plan, Setup::default(), |_| {}).await?;
    let dump = run.stage.directory().join("older.dump");
    client(&run, "pg_dump", &["--format=custom", "--file"], &dump, service).await?;
    let copied = Instant::now();
    run.goes_on(plan.fault).await;

    let begun = Instant::now();
    let replicas = run.stage.of(service).count();
    for index in 0..replicas {
        run.replica(service, index)?.kill().await?;
    }
    publish_the_rest(&mut run, service).await?;
    let age = copied.elapsed();
    for statement in [
        format!("DROP DATABASE {service} WITH (FORCE)"),
        format!("CREATE DATABASE {service} TEMPLATE template0 LOCALE 'C'"),
    ] {
        run.stage.postgres().sql("postgres", &statement).await?;
    }
    client(&run, "pg_restore", &["--no-owner"], &dump, service).await?;

    for index in 0..replicas {
        run.replica(service, index)?.start()?;
    }
    for index in 0..replicas {
        has_noticed(&mut run, service, index).await?;
    }
    let listed = recover(&run).await?;
    for index in 0..replicas {
        run.replica(service, index)?.ready(START_TIMEOUT).await?;
    }
    run.is_over(begun);
    run.notes.push(format!(
        "back by {:.0} s, mended and serving after {:.1} s",
        age.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    ));
    run.notes.extend((listed > 0).then(|| format!("{listed} things listed that nobody knows")));
    run.goes_on(plan.after).await;
    let seconds = plan.fault.as_secs();
    run.finish(name, format!("the database of {service} comes back {seconds} s older than the others'")).await
}

/// Runs a client program of PostgreSQL with a file on a service's database.
async fn client(run: &Run<Mesh>, program: &str, arguments: &[&str], file: &Path, service: &str) -> Result<(), Error> {
    let mut command = tokio::process::Command::from(run.stage.postgres_ref().client(program));
    command.args(arguments);
    if program == "pg_restore" {
        command.arg("--dbname").arg(run.stage.postgres_ref().url(service)).arg(file);
    } else {
        command.arg(file).arg(run.stage.postgres_ref().url(service));
    }
    let output = command.output().await.map_err(Error::system("run a client of PostgreSQL"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(Error::failed(format!("{program}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Publishes what is left in the outbox, by a process that nobody calls. Events that were committed and not published
/// would be lost with the database, and here nothing may be lost.
async fn publish_the_rest(run: &mut Run<Mesh>, service: &str) -> Result<(), Error> {
    let mut command = tokio::process::Command::new(&run.plan.binary);
    mesh::without_settings(command.as_std_mut());
    command.args(["serve", service, "--addr", "127.0.0.1:0", "--config"]).arg(run.stage.configuration());
    // the configuration is that of the tools, which publish nothing
    command.env("CHECKUP_EVENTS__NATS", run.stage.nats().url_of(service));
    let mut child = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .map_err(Error::system("start a process that publishes"))?;
    let end = Instant::now() + START_TIMEOUT;
    loop {
        let waiting = "SELECT count(*) FROM outbox WHERE stream_sequence IS NULL";
        if run.stage.postgres().sql(service, waiting).await? == "0" {
            break;
        }
        if Instant::now() >= end {
            return Err(Error::failed(format!("the events of {service} are not published")));
        }
        sleep(POLL_INTERVAL).await;
    }
    child.kill().await.map_err(Error::system("stop a process that publishes"))
}

/// Waits until a replica reports that it has lost its past. A replica that serves has not noticed, which is an error.
async fn has_noticed(run: &mut Run<Mesh>, service: &str, index: usize) -> Result<(), Error> {
    let end = Instant::now() + START_TIMEOUT;
    loop {
        match run.replica(service, index)?.state().await {
            State::Waiting(why) if why.contains("has lost its own past") => return Ok(()),
            State::Serving => return Err(Error::failed(format!("{service}-{index} serves without its past"))),
            State::Ended(how) => return Err(Error::failed(format!("{service}-{index} ended: {how}"))),
            state if Instant::now() >= end => {
                return Err(Error::failed(format!("{service}-{index} is {state} and says nothing of its past")));
            }
            State::Starting | State::Waiting(_) | State::Stopped => sleep(POLL_INTERVAL).await,
        }
    }
}

/// Runs `checkup recover`. Returns how many bookings it lists whose customer nobody knows.
async fn recover(run: &Run<Mesh>) -> Result<usize, Error> {
    let mut command = tokio::process::Command::new(&run.plan.binary);
    mesh::without_settings(command.as_std_mut());
    command.args(["recover", "--config"]).arg(run.stage.configuration());
    let output = command.output().await.map_err(Error::system("run checkup recover"))?;
    let said = String::from_utf8_lossy(&output.stdout);
    if output.status.success() {
        return Ok(said.lines().filter(|line| line.starts_with("nobody knows: who booked")).count());
    }
    Err(Error::failed(format!("checkup recover: {said}{}", String::from_utf8_lossy(&output.stderr))))
}
