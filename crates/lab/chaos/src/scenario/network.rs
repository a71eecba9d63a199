//! The network between Screening and Hospital.

use testkit::{Direction, FaultProxy};
use tokio::time::Instant;

use crate::Error;
use crate::row::Row;
use crate::run::{Plan, Run, Setup};

/// Holds back what passes between all replicas of Screening and Hospital, without an error: requests, then answers,
/// then both.
pub(super) async fn partition(name: &'static str, plan: &Plan) -> Result<Row, Error> {
    let links = [FaultProxy::start().await, FaultProxy::start().await];
    let addresses = links.each_ref().map(FaultProxy::uri).join(",");
    let setup = Setup { settings: vec![format!("screening.hospital_address={addresses}")], ..Setup::default() };
    let wire = |mesh: &mut mesh::Mesh| {
        for (link, replica) in links.iter().zip(mesh.of("hospital")) {
            link.forward_to(replica.addr());
        }
    };
    let mut run = Run::start(plan, setup, wire).await?;
    let ways: [&[Direction]; 3] =
        [&[Direction::ToServer], &[Direction::ToClient], &[Direction::ToServer, Direction::ToClient]];
    for _ in 0..plan.rounds {
        for way in ways {
            let begun = Instant::now();
            for link in &links {
                way.iter().for_each(|direction| link.blackhole(*direction));
            }
            run.goes_on(plan.fault).await;
            links.iter().for_each(FaultProxy::heal);
            run.is_over(begun);
            run.goes_on(plan.after).await;
        }
    }
    run.finish(name, format!("partition Screening–Hospital {} s: each way, both", plan.fault.as_secs())).await
}
