//! A mesh with one replica of each service, for a test that needs a broker or PostgreSQL whatever topology the suite
//! runs for.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use mesh::{Layout, Mesh};
use tempfile::TempDir;
use testkit::{Party, Tokens, connect};

/// How long its processes may take until they serve.
pub(crate) const START: Duration = Duration::from_secs(60);

/// Starts a mesh with these settings, `KEY=VALUE`, and waits until it serves. Its directory is removed with the handle,
/// which comes first because it has to be dropped last. `None`, and a line that says so, if a server is not installed.
pub(crate) async fn start(settings: &[&str]) -> Option<(TempDir, Mesh)> {
    // PostgreSQL runs as another user, who has to reach its directory.
    let directory = tempfile::Builder::new().permissions(std::fs::Permissions::from_mode(0o755)).tempdir();
    let directory = directory.expect("a temporary directory");
    let layout = Layout::new(env!("CARGO_BIN_EXE_checkup"), directory.path());
    let layout = ["hospital", "screening", "mypage"].iter().fold(layout, |layout, service| layout.replicas(service, 1));
    let layout = Layout { settings: settings.iter().map(|setting| (*setting).to_owned()).collect(), ..layout };
    let mut mesh = mesh::for_tests::or_skip("a mesh", Mesh::start(layout, |_| {}).await)?;
    mesh.ready(START).await.expect("it serves");
    Some((directory, mesh))
}

/// An admin of every hospital who calls this service.
pub(crate) async fn admin(mesh: &Mesh, service: &str) -> Party {
    party(mesh, service, Tokens::of(mesh.directory()).admin("root", "*")).await
}

/// An auditor who calls this service.
pub(crate) async fn auditor(mesh: &Mesh, service: &str) -> Party {
    party(mesh, service, Tokens::of(mesh.directory()).auditor()).await
}

async fn party(mesh: &Mesh, service: &str, token: String) -> Party {
    let replica = mesh.of(service).next().expect("a replica");
    Party::new(connect(replica.addr()).await, Some(&token))
}
