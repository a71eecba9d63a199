//! P8: the memory of each idle process, and how long its start takes.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::Bench;
use crate::section::{Bound, Figure, Section};
use crate::series::Series;
use crate::testbed::{GREETING, START_TIMEOUT, Services, Setup, Testbed};
use crate::{Error, Item, proc};

const MEBIBYTE: f64 = 1_048_576.0;
const POLL_INTERVAL: Duration = Duration::from_millis(1);

pub(super) async fn measure(bench: &mut Bench<'_>) -> Result<Section, Error> {
    let mut testbed = bench.testbed(Item::P8, &Setup::default()).await?;
    let (mut memory, mut starts): (BTreeMap<String, Series>, BTreeMap<String, Series>) = Default::default();
    bench.phase(Item::P8, bench.plan.sizes.starts);
    for _ in 0..bench.plan.sizes.starts {
        for (name, took) in restart(&mut testbed).await? {
            starts.entry(name).or_default().push(took.as_secs_f64() * 1_000.0);
        }
        testbed.rest().await;
        for (name, pids) in testbed.processes() {
            let bytes: u64 = pids.iter().map(|pid| proc::resident(*pid)).sum();
            memory.entry(name).or_default().push(bytes as f64 / MEBIBYTE);
        }
        bench.done();
    }
    let mut section = Section::new(Item::P8, bench.topology);
    for (name, values) in memory {
        let figure = Figure::new(format!("{name}: resident, idle"), "MiB", values);
        // PostgreSQL and nats-server have no goal.
        let ours = starts.contains_key(&name);
        section.figures.push(if ours { figure.goal(Bound::AtMost(30.0)) } else { figure });
    }
    for (name, values) in starts {
        section.figures.push(Figure::new(format!("{name}: start to serving"), "ms", values).goal(Bound::AtMost(200.0)));
    }
    section
        .notes
        .push("started on data that is there; PostgreSQL's sessions count the memory they share each".to_owned());
    testbed.stop().await?;
    Ok(section)
}

/// Restarts every process of the program, one after the other. Returns how long each took until it announced that it
/// serves.
async fn restart(testbed: &mut Testbed) -> Result<Vec<(String, Duration)>, Error> {
    match &mut testbed.services {
        Services::Embedded(embedded) => {
            embedded.stop().await?;
            Ok(vec![("all services".to_owned(), embedded.start().await?)])
        }
        Services::Mesh(mesh) => {
            let mut taken = Vec::new();
            for replica in mesh.replicas_mut() {
                replica.stop().await?;
                let begun = Instant::now();
                replica.start()?;
                while replica.output().find(|line| line.contains(GREETING).then_some(())).is_none() {
                    if begun.elapsed() > START_TIMEOUT {
                        return Err(Error::failed(format!("{} does not serve", replica.name())));
                    }
                    sleep(POLL_INTERVAL).await;
                }
                taken.push((replica.name(), begun.elapsed()));
            }
            Ok(taken)
        }
    }
}
