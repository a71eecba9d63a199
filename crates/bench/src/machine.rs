//! What the figures were taken on: they mean nothing without it.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Error;

/// The machine and the versions, as far as the system tells.
#[derive(Debug, Clone)]
pub struct Machine {
    cpu: String,
    cores: usize,
    memory: String,
    system: String,
    build: &'static str,
    compiler: &'static str,
    commit: Option<String>,
    /// PostgreSQL and nats-server, once a mesh has said theirs.
    pub(crate) servers: Option<Servers>,
    load_before: String,
}

/// Versions of what a mesh runs on.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) postgres: String,
    pub(crate) nats: String,
}

impl Servers {
    /// Those of a mesh.
    pub(crate) async fn ask(mesh: &mut mesh::Mesh) -> Result<Self, Error> {
        let postgres = mesh.postgres().sql("postgres", "SHOW server_version").await?;
        // a nats-server says who it is to everybody who connects
        let addr = ("127.0.0.1", mesh.nats().port());
        let stream = tokio::net::TcpStream::connect(addr).await.map_err(Error::system("ask nats-server"))?;
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).await.map_err(Error::system("ask nats-server"))?;
        let info: Value = serde_json::from_str(line.trim_start_matches("INFO ").trim()).unwrap_or_default();
        let nats = info["version"].as_str().unwrap_or("of an unknown version").to_owned();
        Ok(Self { postgres, nats })
    }
}

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn after(text: &str, name: &str) -> Option<String> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(rest.trim_start_matches([' ', '\t', ':']).trim().to_owned())
}

/// The load averages of 1, 5 and 15 minutes.
fn load() -> String {
    read("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

impl Machine {
    /// This machine, now.
    #[must_use]
    pub fn look() -> Self {
        let kilobytes = after(&read("/proc/meminfo"), "MemTotal").and_then(|text| text.split(' ').next()?.parse().ok());
        let memory = kilobytes.map_or(String::new(), |kilobytes: u64| format!("{} MiB", kilobytes / 1024));
        Self {
            cpu: after(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            cores: std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
            memory,
            system: format!("{} {}", std::env::consts::OS, read("/proc/sys/kernel/osrelease").trim()),
            build: env!("BENCH_PROFILE"),
            compiler: env!("BENCH_RUSTC"),
            commit: commit(),
            servers: None,
            load_before: load(),
        }
    }

    /// Names and values, for people. The load at the end is that of the moment.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("machine", format!("{} cores of {}, {}, {}", self.cores, self.cpu, self.memory, self.system)),
            ("build", format!("{}, {}", self.build, self.compiler)),
        ];
        lines.extend(self.commit.clone().map(|commit| ("commit", commit)));
        if let Some(Servers { postgres, nats }) = &self.servers {
            lines.push(("servers", format!("PostgreSQL {postgres}, nats-server {nats}")));
        }
        lines.push(("load average", format!("{} before, {} after", self.load_before, load())));
        lines
    }

    /// For scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cores": self.cores, "memory": self.memory, "system": self.system,
            "build": self.build, "compiler": self.compiler, "commit": self.commit,
            "postgres": self.servers.as_ref().map(|servers| &servers.postgres),
            "nats": self.servers.as_ref().map(|servers| &servers.nats),
            "load_before": self.load_before, "load_after": load(),
        })
    }
}

/// The commit of the source this was built from, where that is still there and git knows.
fn commit() -> Option<String> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR"));
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(source).args(arguments).output().ok()?;
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let changed = git(&["status", "--porcelain"]).is_some_and(|changed| !changed.is_empty());
    Some(if changed { format!("{commit} with changes") } else { commit })
}
