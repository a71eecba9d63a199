//! The cost of one booking, or of ending one: CPU time per process, bytes written, commits.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::section::Rows;
use crate::series::figure;
use crate::testbed::{Services, Testbed};
use crate::{Error, proc};

/// After this time without work, a session of PostgreSQL has reported its statistics.
const REPORTED: Duration = Duration::from_secs(11);

/// What one group of processes has used up to a moment.
#[derive(Debug)]
struct Used {
    name: String,
    cpu: Duration,
    written: u64,
}

/// What a testbed has used up to a moment.
#[derive(Debug)]
pub(crate) struct Bill {
    used: Vec<Used>,
    durable: Durable,
}

/// What was made durable up to a moment: PostgreSQL's log and commits, or the commits that the embedded writers count.
#[derive(Debug, Clone, Copy)]
enum Durable {
    Postgres { bytes: f64, syncs: f64, commits: f64 },
    Sqlite { commits: f64 },
}

impl Durable {
    /// The columns: log bytes, log syncs, commits. SQLite syncs its log once per commit and at checkpoints.
    fn columns(self, before: Self, each: impl Fn(f64) -> String) -> [String; 3] {
        match (self, before) {
            (Self::Postgres { bytes, syncs, commits }, Self::Postgres { bytes: b, syncs: s, commits: c }) => {
                [each(bytes - b), each(syncs - s), each(commits - c)]
            }
            (Self::Sqlite { commits }, Self::Sqlite { commits: before }) => {
                [String::new(), String::new(), each(commits - before)]
            }
            _ => Default::default(),
        }
    }
}

impl Bill {
    /// What the testbed has used until now. On PostgreSQL it waits until every session has reported.
    pub(crate) async fn of(testbed: &mut Testbed) -> Result<Self, Error> {
        let durable = match &mut testbed.services {
            Services::Embedded(embedded) => Durable::Sqlite { commits: commits(embedded.admin_addr()).await? },
            Services::Mesh(mesh) => {
                tokio::time::sleep(REPORTED).await;
                let query = "SELECT pg_current_wal_lsn() - '0/0', (SELECT wal_sync FROM pg_stat_wal), \
                             (SELECT sum(xact_commit) FROM pg_stat_database WHERE datname NOT LIKE 'template%')";
                let text = mesh.postgres().sql("postgres", query).await?;
                let mut fields = text.split('|').map(|field| field.trim().parse().unwrap_or_default());
                let mut next = || fields.next().unwrap_or_default();
                Durable::Postgres { bytes: next(), syncs: next(), commits: next() }
            }
        };
        let used = testbed.processes().into_iter().map(|(name, pids)| Used {
            name,
            cpu: pids.iter().map(|pid| proc::cpu(*pid)).sum(),
            written: pids.iter().map(|pid| proc::written(*pid)).sum(),
        });
        Ok(Self { used: used.collect(), durable })
    }

    /// The use since `before` per item: `count` is the number of items, and `one` names an item.
    pub(crate) fn since(&self, before: &Self, count: u64, one: &str) -> Rows {
        let each = |amount: f64| figure(amount / count.max(1) as f64);
        let mut rows = Vec::new();
        let (mut micros, mut bytes) = (0.0, 0.0);
        for used in &self.used {
            let Some(earlier) = before.used.iter().find(|earlier| earlier.name == used.name) else { continue };
            let cpu = used.cpu.saturating_sub(earlier.cpu).as_secs_f64() * 1e6;
            let written = used.written.saturating_sub(earlier.written) as f64;
            (micros, bytes) = (micros + cpu, bytes + written);
            rows.push(vec![used.name.clone(), each(cpu), each(written), String::new(), String::new(), String::new()]);
        }
        let mut total = vec!["together".to_owned(), each(micros), each(bytes)];
        total.extend(self.durable.columns(before.durable, each));
        rows.push(total);
        let header = ["process", "CPU µs", "bytes written", "WAL bytes", "WAL syncs", "commits"];
        Rows {
            title: format!("the cost of {one}, mean of {}", figure(count as f64)),
            header: header.map(str::to_owned).into(),
            rows,
        }
    }
}

/// The transactions that the writers of a process have committed, from its metrics.
async fn commits(admin: SocketAddr) -> Result<f64, Error> {
    let asked = async {
        let mut stream = TcpStream::connect(admin).await?;
        stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.map(|_| answer)
    };
    let answer = asked.await.map_err(Error::system("read the metrics"))?;
    let counts = answer.lines().filter(|line| line.starts_with("checkup_writer_batch_seconds_count"));
    Ok(counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
