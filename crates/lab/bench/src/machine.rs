//! The machine and the versions that figures were measured on.

use std::path::Path;
use std::process::Command;

use runtime::clock::Clock;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, BufReader};

use crate::Error;

/// The machine and the versions, as far as the system tells them.
#[derive(Debug, Clone)]
pub struct Machine {
    cpu: String,
    cores: usize,
    memory: String,
    system: String,
    build: &'static str,
    compiler: &'static str,
    commit: Option<String>,
    /// The time of the inspection in UTC, to the minute.
    date: String,
    /// The versions of PostgreSQL and nats-server, once a mesh has run.
    pub(crate) servers: Option<Servers>,
    load_before: String,
    withheld: Withheld,
}

/// The versions of the servers of a mesh.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) postgres: String,
    pub(crate) nats: String,
}

impl Servers {
    /// Asks the servers of a mesh.
    pub(crate) async fn ask(mesh: &mut mesh::Mesh) -> Result<Self, Error> {
        let postgres = mesh.postgres().sql("postgres", "SHOW server_version").await?;
        // A nats-server sends its version to everyone who connects.
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

/// The share of processor time that a hypervisor withholds from a moment on. On a shared machine, alternating pairs
/// cannot exclude its effect. Zero if the system does not tell.
#[derive(Debug, Clone, Copy)]
pub struct Withheld {
    begun: Times,
}

/// Times since the machine started, in ticks of all processors together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Times {
    all: u64,
    stolen: u64,
}

impl Times {
    /// Parses the first line of `/proc/stat`, whose columns proc(5) names. The eighth is stolen time. The columns after
    /// it are already part of the first two.
    fn parse(stat: &str) -> Self {
        let line = stat.lines().next().unwrap_or_default();
        let columns: Vec<u64> = line.split_whitespace().skip(1).take(8).map_while(|text| text.parse().ok()).collect();
        Self { all: columns.iter().sum(), stolen: columns.get(7).copied().unwrap_or_default() }
    }
}

impl Withheld {
    /// Starts to measure now.
    #[must_use]
    pub fn from_now() -> Self {
        Self { begun: Times::parse(&read("/proc/stat")) }
    }

    /// The withheld share until now, in per cent of all processor time.
    #[must_use]
    pub fn percent(&self) -> f64 {
        self.percent_at(Times::parse(&read("/proc/stat")))
    }

    fn percent_at(&self, now: Times) -> f64 {
        let all = now.all.saturating_sub(self.begun.all);
        now.stolen.saturating_sub(self.begun.stolen) as f64 * 100.0 / all.max(1) as f64
    }
}

impl Machine {
    /// Inspects this machine now.
    #[must_use]
    pub fn inspect() -> Self {
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
            date: Clock::system().now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            servers: None,
            load_before: load(),
            withheld: Withheld::from_now(),
        }
    }

    /// Names and values, for people. The load average at the end is read by this call.
    #[must_use]
    pub fn lines(&self) -> Vec<(&'static str, String)> {
        let mut lines = vec![
            ("machine", format!("{} cores of {}, {}, {}", self.cores, self.cpu, self.memory, self.system)),
            ("build", format!("{}, {}", self.build, self.compiler)),
        ];
        lines.extend(self.commit.clone().map(|commit| ("commit", commit)));
        lines.push(("date", self.date.clone()));
        if let Some(Servers { postgres, nats }) = &self.servers {
            lines.push(("servers", format!("PostgreSQL {postgres}, nats-server {nats}")));
        }
        lines.push(("load average", format!("{} before, {} after", self.load_before, load())));
        lines.push(("processors withheld by the hypervisor", format!("{:.0} % of the time", self.withheld.percent())));
        lines
    }

    /// The same as JSON, for scripts.
    #[must_use]
    pub fn json(&self) -> Value {
        json!({
            "cpu": self.cpu, "cores": self.cores, "memory": self.memory, "system": self.system,
            "build": self.build, "compiler": self.compiler, "commit": self.commit, "date": self.date,
            "postgres": self.servers.as_ref().map(|servers| &servers.postgres),
            "nats": self.servers.as_ref().map(|servers| &servers.nats),
            "load_before": self.load_before, "load_after": load(),
            "withheld_percent": self.withheld.percent(),
        })
    }
}

/// The commit of the source that this was built from; `None` without the source or git.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_eighth_column_is_what_a_hypervisor_gave_to_others() {
        let begun = Times::parse("cpu  100 10 20 500 5 0 3 40 7 0\ncpu0 1 2 3 4 5 6 7 8 9 10\n");
        assert_eq!(begun, Times { all: 678, stolen: 40 });
        let now = Times::parse("cpu  150 10 40 520 5 0 3 50 9 0\n");
        assert!((Withheld { begun }.percent_at(now) - 10.0).abs() < f64::EPSILON);
        assert_eq!(Times::parse(""), Times { all: 0, stolen: 0 });
    }
}
