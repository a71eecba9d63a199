//! A pooler between a service and PostgreSQL. One that gives each client its own session works like the server; one
//! that shares sessions is refused with advice. Skipped if PgBouncer is not installed.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use sea_orm::{ConnectionTrait, DbBackend, Statement};
use store::{Database, Location};
use tempfile::TempDir;
use testkit::eventually;
use tokio::net::TcpStream;

use crate::empty;
use crate::tables::Migrator;

struct PgBouncer {
    child: Child,
    port: u16,
    _directory: TempDir,
}

impl Drop for PgBouncer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl PgBouncer {
    /// Starts PgBouncer in front of this server, with its default settings otherwise.
    async fn start(program: &Path, url: &str, mode: &str) -> Self {
        let (server, _) = url.trim_start_matches("postgres://").split_once('/').expect("a path");
        let (user, address) = server.split_once('@').expect("a user");
        let (host, port) = address.split_once(':').expect("a port");
        let server = format!("host={host} port={port} user={}", user.split(':').next().expect("a name"));
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::set_permissions(directory.path(), std::fs::Permissions::from_mode(0o755)).expect("permissions");
        let port = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address").port();
        let settings = [
            "listen_addr = 127.0.0.1".to_owned(),
            format!("listen_port = {port}"),
            "unix_socket_dir =".into(),
            "auth_type = any".into(),
            format!("pool_mode = {mode}"),
        ];
        let text = format!("[databases]\n* = {server}\n[pgbouncer]\n{}\n", settings.join("\n"));
        let configuration = directory.path().join("pgbouncer.ini");
        std::fs::write(&configuration, text).expect("written");
        let mut command = Command::new(program);
        // PgBouncer refuses to run as root.
        if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
            command.args(["--user", "nobody"]);
        }
        command.arg(configuration).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("started");
        let started = Self { child, port, _directory: directory };
        eventually("PgBouncer to listen", async || {
            TcpStream::connect(("127.0.0.1", port)).await.map(drop).map_err(|error| error.to_string())
        })
        .await;
        started
    }

    fn location(&self, url: &str) -> Location {
        let name = url.rsplit('/').next().expect("a name");
        Location::Postgres(format!("postgres://checkup@127.0.0.1:{}/{name}", self.port))
    }
}

fn installed() -> Option<PathBuf> {
    let found = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"].map(PathBuf::from);
    let found = found.into_iter().find(|program| program.exists());
    if found.is_none() {
        println!("skipped: PgBouncer is not installed");
    }
    found
}

#[tokio::test]
async fn a_pool_that_gives_sessions_away_whole_is_as_good_as_the_server() {
    let (Some(program), Some(url)) = (installed(), empty().await) else { return };
    let pool = PgBouncer::start(&program, &url, "session").await;
    let location = pool.location(&url);
    assert!(!Database::migrate::<Migrator>(&location).await.expect("migrated").is_empty());
    let database = Database::open::<Migrator>(&location).await.expect("opened");
    let show = Statement::from_string(DbBackend::Postgres, "SHOW statement_timeout");
    let row = database.reader().query_one_raw(show).await.expect("an answer").expect("a row");
    assert_eq!(row.try_get_by_index::<String>(0).expect("a text"), "5s");
}

#[tokio::test]
async fn a_pool_that_shares_sessions_is_refused_with_what_to_do() {
    let (Some(program), Some(url)) = (installed(), empty().await) else { return };
    for mode in ["transaction", "statement"] {
        let pool = PgBouncer::start(&program, &url, mode).await;
        let location = pool.location(&url);
        let refused = [
            Database::migrate::<Migrator>(&location).await.expect_err("refused"),
            Database::open::<Migrator>(&location).await.expect_err("refused"),
        ];
        for refused in refused {
            assert!(refused.to_string().contains("a pool in session mode"), "{mode}: {refused:?}");
            assert!(!refused.is_unreachable());
        }
    }
}
