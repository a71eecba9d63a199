//! The cost of one call: CPU time per process, bytes written, commits.
//!
//! [`Spent`] is the cost of turns of one kind, which alternate with other turns. [`Bill`] is the cost of everything
//! between two moments, and the only one that knows of commits: PostgreSQL reports them too late for a turn.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::section::Rows;
use crate::series::{Series, figure};
use crate::testbed::{Services, Testbed};
use crate::{Error, proc};

/// After this time without work, a session of PostgreSQL has reported its statistics.
const REPORTED: Duration = Duration::from_secs(11);

/// What one group of processes has used up to a moment.
#[derive(Debug, Clone)]
pub(crate) struct Used {
    pub(crate) name: String,
    pub(crate) cpu: Duration,
    /// Bytes that were written to storage.
    pub(crate) written: u64,
}

impl Used {
    /// What these processes have used until now; each group is a name and process ids.
    pub(crate) fn of(processes: Vec<(String, Vec<u32>)>) -> Vec<Self> {
        let used = |(name, pids): (String, Vec<u32>)| Self {
            name,
            cpu: pids.iter().map(|pid| proc::cpu(*pid)).sum(),
            written: pids.iter().map(|pid| proc::written(*pid)).sum(),
        };
        processes.into_iter().map(used).collect()
    }

    /// What each group used after `before`. A group that was not there before is left out: its past is unknown.
    fn since(now: &[Self], before: &[Self]) -> Vec<Self> {
        let since = |used: &Self| {
            let earlier = before.iter().find(|earlier| earlier.name == used.name)?;
            Some(Self {
                name: used.name.clone(),
                cpu: used.cpu.saturating_sub(earlier.cpu),
                written: used.written.saturating_sub(earlier.written),
            })
        };
        now.iter().filter_map(since).collect()
    }
}

/// What calls of one kind cost: the sum of their turns, and the CPU time of a call in each turn.
#[derive(Debug, Default)]
pub(crate) struct Spent {
    used: Vec<Used>,
    callers: Duration,
    calls: u64,
    /// CPU µs of the processes per call, one value per turn. NaN for a turn without calls.
    pub(crate) processes: Series,
    /// The same with the callers' part.
    pub(crate) whole: Series,
}

impl Spent {
    /// Adds a turn: what the processes had used before and after it, and the CPU time of its callers.
    pub(crate) fn add(&mut self, before: &[Used], after: &[Used], callers: Duration, calls: u64) {
        let turn = Used::since(after, before);
        let cpu: Duration = turn.iter().map(|used| used.cpu).sum();
        let each = |cpu: Duration| if calls == 0 { f64::NAN } else { micros(cpu) / calls as f64 };
        self.processes.push(each(cpu));
        self.whole.push(each(cpu + callers));
        self.callers += callers;
        self.calls += calls;
        for used in turn {
            match self.used.iter_mut().find(|sum| sum.name == used.name) {
                Some(sum) => (sum.cpu, sum.written) = (sum.cpu + used.cpu, sum.written + used.written),
                None => self.used.push(used),
            }
        }
    }

    /// The number of calls in all turns.
    pub(crate) fn calls(&self) -> u64 {
        self.calls
    }

    /// CPU µs of a call with its caller's part, mean of all turns.
    pub(crate) fn mean(&self) -> f64 {
        let processes: Duration = self.used.iter().map(|used| used.cpu).sum();
        micros(processes + self.callers) / self.calls.max(1) as f64
    }

    /// CPU µs of a call by service, its replicas together, mean of all turns. Other processes keep their names.
    pub(crate) fn by_service(&self) -> BTreeMap<String, f64> {
        let mut services = BTreeMap::new();
        for used in &self.used {
            let replica = used.name.rsplit_once('-').filter(|(_, index)| index.parse::<u32>().is_ok());
            let service = replica.map_or(used.name.as_str(), |(service, _)| service);
            *services.entry(service.to_owned()).or_default() += micros(used.cpu) / self.calls.max(1) as f64;
        }
        services
    }

    /// CPU µs of a call that are its caller's, mean of all turns.
    pub(crate) fn of_callers(&self) -> f64 {
        micros(self.callers) / self.calls.max(1) as f64
    }

    /// The cost of a call by process, mean of all turns. `h` is the CPU µs of a hello-world call with its caller's
    /// part.
    pub(crate) fn rows(&self, one: &str, h: f64) -> Rows {
        let calls = self.calls.max(1) as f64;
        let row = |name: &str, cpu: Duration| {
            let cpu = micros(cpu) / calls;
            let in_h = if h > 0.0 { figure(cpu / h) } else { String::new() };
            vec![name.to_owned(), in_h, figure(cpu)]
        };
        let with_bytes = |name: &str, cpu, written: u64| {
            let mut row = row(name, cpu);
            row.push(figure(written as f64 / calls));
            row
        };
        let mut rows: Vec<_> = self.used.iter().map(|used| with_bytes(&used.name, used.cpu, used.written)).collect();
        let (cpu, written) =
            (self.used.iter().map(|used| used.cpu).sum(), self.used.iter().map(|used| used.written).sum());
        rows.push(with_bytes("together", cpu, written));
        rows.push(row("the callers", self.callers));
        let header = ["process", "CPU H", "CPU µs", "bytes written"].map(str::to_owned).into();
        Rows { title: format!("the cost of {one}, mean of {}", figure(self.calls as f64)), header, rows }
    }
}

fn micros(cpu: Duration) -> f64 {
    cpu.as_secs_f64() * 1e6
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

/// What PostgreSQL has made durable between two moments.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Made {
    /// Bytes of its log.
    pub(crate) bytes: f64,
    /// Transactions, those that only read too.
    pub(crate) commits: f64,
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
        Ok(Self { used: Used::of(testbed.processes()), durable })
    }

    /// The use since `before` per item: `count` is the number of items, and `one` names an item.
    pub(crate) fn since(&self, before: &Self, count: u64, one: &str) -> Rows {
        let each = |amount: f64| figure(amount / count.max(1) as f64);
        let mut rows = Vec::new();
        let (mut all, mut bytes) = (0.0, 0.0);
        for used in Used::since(&self.used, &before.used) {
            let (cpu, written) = (micros(used.cpu), used.written as f64);
            (all, bytes) = (all + cpu, bytes + written);
            rows.push(vec![used.name, each(cpu), each(written), String::new(), String::new(), String::new()]);
        }
        let mut total = vec!["together".to_owned(), each(all), each(bytes)];
        total.extend(self.durable.columns(before.durable, each));
        rows.push(total);
        let header = ["process", "CPU µs", "bytes written", "WAL bytes", "WAL syncs", "commits"];
        Rows {
            title: format!("the cost of {one}, mean of {}", figure(count as f64)),
            header: header.map(str::to_owned).into(),
            rows,
        }
    }

    /// What PostgreSQL has made durable since `before`; `None` if the services are embedded.
    pub(crate) fn made_since(&self, before: &Self) -> Option<Made> {
        match (self.durable, before.durable) {
            (Durable::Postgres { bytes, commits, .. }, Durable::Postgres { bytes: b, commits: c, .. }) => {
                Some(Made { bytes: bytes - b, commits: commits - c })
            }
            _ => None,
        }
    }

    /// What was made durable since `before` per item, without the columns that the database does not tell.
    pub(crate) fn durable_since(&self, before: &Self, count: u64, one: &str) -> Rows {
        let each = |amount: f64| figure(amount / count.max(1) as f64);
        let columns = self.durable.columns(before.durable, each);
        let named = ["WAL bytes", "WAL syncs", "commits"].map(str::to_owned).into_iter().zip(columns);
        let rows = named.filter(|(_, value)| !value.is_empty()).map(|(name, value)| vec![name, value]).collect();
        let header = ["made durable", "each"].map(str::to_owned).into();
        Rows { title: format!("made durable by {one}, mean of {}", figure(count as f64)), header, rows }
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

#[cfg(test)]
mod tests {
    use super::*;

    fn used(name: &str, millis: u64, written: u64) -> Used {
        Used { name: name.to_owned(), cpu: Duration::from_millis(millis), written }
    }

    #[test]
    fn a_call_costs_what_its_turns_cost_and_nothing_between_them() {
        let mut spent = Spent::default();
        let callers = Duration::from_millis(100);
        spent.add(
            &[used("a", 1_000, 0), used("b", 0, 10)],
            &[used("a", 1_300, 0), used("b", 100, 2_010)],
            callers,
            1_000,
        );
        // Between the turns, a used 4.7 s; c has come, and what it used before is unknown.
        let after = [used("a", 6_300, 0), used("b", 200, 2_010), used("c", 9_000, 9)];
        spent.add(&[used("a", 6_000, 0), used("b", 100, 2_010)], &after, callers, 3_000);
        assert_eq!(spent.processes.values(), [400.0, 400.0 / 3.0]);
        assert_eq!(spent.whole.values(), [500.0, 500.0 / 3.0]);
        assert_eq!(spent.mean(), 250.0);
        let rows = spent.rows("one booking", 50.0);
        assert_eq!(rows.title, "the cost of one booking, mean of 4,000");
        assert_eq!(
            rows.rows,
            [
                vec!["a", "3.00", "150", "0.000"],
                vec!["b", "1.00", "50.0", "0.500"],
                vec!["together", "4.00", "200", "0.500"],
                vec!["the callers", "1.00", "50.0"],
            ]
        );
    }

    #[test]
    fn the_replicas_of_a_service_are_added_up() {
        let mut spent = Spent::default();
        let before = [used("mypage-0", 0, 0), used("mypage-1", 0, 0), used("nats-server", 0, 0)];
        let after = [used("mypage-0", 10, 0), used("mypage-1", 20, 0), used("nats-server", 40, 0)];
        spent.add(&before, &after, Duration::from_millis(5), 1_000);
        let expected = [("mypage", 30.0), ("nats-server", 40.0)].map(|(name, micros)| (name.to_owned(), micros));
        assert_eq!((spent.by_service(), spent.of_callers()), (expected.into(), 5.0));
    }

    #[test]
    fn without_calls_nothing_is_said_to_be_cheap() {
        let mut spent = Spent::default();
        spent.add(&[used("a", 0, 0)], &[used("a", 10, 0)], Duration::ZERO, 0);
        assert!(spent.processes.median().is_nan() && spent.whole.median().is_nan());
        assert_eq!(spent.rows("one booking", 0.0).rows[0][1], "", "no hello-world call, so nothing in H");
    }

    #[test]
    fn only_what_a_database_tells_is_listed() {
        let bill = |durable| Bill { used: Vec::new(), durable };
        let postgres = |factor: f64| Durable::Postgres { bytes: 800.0 * factor, syncs: factor, commits: 5.0 * factor };
        let rows = bill(postgres(2.0)).durable_since(&bill(postgres(1.0)), 10, "a booking").rows;
        assert_eq!(rows, [["WAL bytes", "80.0"], ["WAL syncs", "0.100"], ["commits", "0.500"]].map(Vec::from));
        let made = bill(postgres(3.0)).made_since(&bill(postgres(1.0)));
        assert_eq!(made, Some(Made { bytes: 1_600.0, commits: 10.0 }));
        let sqlite = |commits| bill(Durable::Sqlite { commits });
        assert_eq!(bill(postgres(1.0)).made_since(&sqlite(4.0)), None);
        assert_eq!(
            sqlite(9.0).durable_since(&sqlite(4.0), 10, "a booking").rows,
            [["commits", "0.500"]].map(Vec::from)
        );
    }
}
