//! A database server that is down: reads are refused as STORAGE_UNAVAILABLE, not as OVERLOADED.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use contract::hospital::v1::ListHospitalsRequest;
use fault::Reason;
use mesh::{Layout, Mesh};
use testkit::{Desk, Party, Served, Tokens, eventually, refused, rush, wait_limit};
use tokio::time::Instant;

/// One replica of Hospital with its servers. `None`, with a message, if a server is not installed.
async fn hospital(directory: &tempfile::TempDir) -> Option<(Mesh, Served)> {
    // PostgreSQL runs as another user if the tests run as root
    let open = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), open).expect("our own directory");
    let mut layout = Layout::new(env!("CARGO_BIN_EXE_checkup"), directory.path());
    layout.replicas = vec![("hospital".to_owned(), 1)];
    let mut mesh = mesh::for_tests::or_skip("PostgreSQL and nats-server", Box::pin(Mesh::start(layout, |_| {})).await)?;
    mesh.ready(wait_limit()).await.expect("Hospital serves");
    let addr = mesh.of("hospital").next().expect("a replica").addr();
    Some((mesh, Served::new(addr, Tokens::of(directory.path()))))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_while_the_database_server_is_down_say_that_storage_is_unavailable() {
    /// Many more than there are connections, so that most reads wait for one.
    const READS: usize = 80;
    let directory = tempfile::tempdir().expect("a temporary directory");
    let Some((mut mesh, served)) = hospital(&directory).await else { return };
    let admin = served.admin().await;
    let slot = Desk::of(&admin).open("downtown", &[7], 5).await.remove(0);
    let token = served.tokens().admin("root", "*");
    let channels = served.connections(4).await;
    mesh.postgres().stop_immediate().await.expect("stopped");
    // once with connections that break, once without any
    for round in 0..2 {
        let reads = rush(READS, |i| {
            let (party, slot) = (Party::new(channels[i % channels.len()].clone(), Some(&token)), slot.clone());
            async move {
                let begun = Instant::now();
                let answer = match i % 2 {
                    0 => Desk::of(&party).slot(&slot).await.map(drop),
                    _ => party.hospital().list_hospitals(ListHospitalsRequest::default()).await.map(drop),
                };
                (answer, begun.elapsed())
            }
        });
        for (answer, took) in reads.await {
            refused(answer, Reason::StorageUnavailable);
            // a read waits at most three seconds for its turn and three for a connection; the rest is for a busy
            // machine
            assert!(took < Duration::from_secs(10), "round {round}: {took:?}");
        }
    }
    mesh.postgres().restart().await.expect("started again");
    eventually("a slot to be read again", async || {
        Desk::of(&admin).slot(&slot).await.map(drop).map_err(|status| format!("{status:?}"))
    })
    .await;
}
