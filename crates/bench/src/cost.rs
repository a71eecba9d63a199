//! What one booking costs: time by process, bytes written, commits.

use std::time::Duration;

use crate::section::Rows;
use crate::series::figure;
use crate::stand::{Services, Stand};
use crate::{Error, proc};

/// PostgreSQL's sessions report what they did when they have been idle for so long, at the latest.
const REPORTED: Duration = Duration::from_secs(11);

/// What processes have used until a moment.
#[derive(Debug)]
struct Used {
    name: String,
    cpu: Duration,
    written: u64,
}

/// What a stand has used until a moment.
#[derive(Debug)]
pub(crate) struct Bill {
    used: Vec<Used>,
    wal: Option<Wal>,
}

/// What PostgreSQL has logged.
#[derive(Debug, Clone, Copy, Default)]
struct Wal {
    bytes: f64,
    syncs: f64,
    commits: f64,
}

impl Bill {
    /// Until now. On PostgreSQL it waits until every session has reported.
    pub(crate) async fn of(stand: &mut Stand) -> Result<Self, Error> {
        let wal = match &mut stand.services {
            Services::Embedded(_) => None,
            Services::Mesh(mesh) => {
                tokio::time::sleep(REPORTED).await;
                let query = "SELECT pg_current_wal_lsn() - '0/0', (SELECT wal_sync FROM pg_stat_wal), \
                             (SELECT sum(xact_commit) FROM pg_stat_database WHERE datname NOT LIKE 'template%')";
                let text = mesh.postgres().sql("postgres", query).await?;
                let mut fields = text.split('|').map(|field| field.trim().parse().unwrap_or_default());
                let mut next = || fields.next().unwrap_or_default();
                Some(Wal { bytes: next(), syncs: next(), commits: next() })
            }
        };
        let used = stand.processes().into_iter().map(|(name, pids)| Used {
            name,
            cpu: pids.iter().map(|pid| proc::cpu(*pid)).sum(),
            written: pids.iter().map(|pid| proc::written(*pid)).sum(),
        });
        Ok(Self { used: used.collect(), wal })
    }

    /// What was used since an earlier moment for so many bookings.
    pub(crate) fn since(&self, before: &Self, bookings: u64) -> Rows {
        let each = |amount: f64| figure(amount / bookings.max(1) as f64);
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
        match (self.wal, before.wal) {
            (Some(after), Some(before)) => total.extend([
                each(after.bytes - before.bytes),
                each(after.syncs - before.syncs),
                each(after.commits - before.commits),
            ]),
            _ => total.extend([String::new(), String::new(), String::new()]),
        }
        rows.push(total);
        let header = ["process", "CPU µs", "bytes written", "WAL bytes", "WAL syncs", "commits"];
        Rows {
            title: format!("the cost of one booking, mean of {}", figure(bookings as f64)),
            header: header.map(str::to_owned).into(),
            rows,
        }
    }
}
