//! What a process printed is there once the process has ended.

use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;

use testkit::{Launch, Topology};

/// The process ends at once, and its last line arrives later: a child of it writes it.
#[tokio::test]
async fn the_last_line_of_a_start_that_failed_is_waited_for() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("ends");
    let mut script = std::fs::File::create(&path).expect("a script");
    writeln!(script, "#!/bin/sh\n(sleep 0.3; echo 'the last line' >&2) &\nexit 3").expect("written");
    script.set_permissions(std::fs::Permissions::from_mode(0o755)).expect("ours");
    drop(script);
    let failure = Launch::new(path).topology(Topology::Embedded).try_start().await.expect_err("it ends");
    assert_eq!((failure.code, failure.stderr.as_str()), (Some(3), "the last line"));
}
