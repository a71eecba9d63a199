//! A service that answers what its storage does not have: `checkup verify` reads the files.

use std::fs;

use testkit::{DataDir, Desk};

use crate::embedded;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_what_is_served_and_not_stored() {
    let checkup = embedded().start().await;
    let slot = Desk::of(&checkup.admin().await).open("files", &[7], 5).await.remove(0);
    Desk::of(&checkup.customer("kim").await).book("kim", &slot, "").await.expect("a place");
    let verified = checkup.run(&["verify", "--settle", "20s"]).await;
    assert_eq!(verified.code, Some(0), "the older file has the first booking: {verified:#?}");
    let launch = checkup.stop().await;
    let older = DataDir::new();
    fs::copy(launch.data().path().join("reservation.db"), older.path().join("reservation.db")).expect("copied");

    let checkup = launch.start().await;
    let served = Desk::of(&checkup.customer("lee").await).book("lee", &slot, "").await.expect("a place");
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "what is served is stored: {verified:#?}");
    // the process keeps the files that it has open, but whoever opens the directory now finds other ones
    let moved = DataDir::new();
    for entry in fs::read_dir(checkup.launch().data().path()).expect("a directory").flatten() {
        if entry.file_name().to_string_lossy().starts_with("reservation.db") {
            fs::rename(entry.path(), moved.path().join(entry.file_name())).expect("moved");
        }
    }
    fs::copy(older.path().join("reservation.db"), checkup.launch().data().path().join("reservation.db"))
        .expect("copied");
    let verified = checkup.run(&["verify", "--settle", "1s", "--json"]).await;
    let report: serde_json::Value = serde_json::from_str(&verified.stdout).expect("one JSON object");
    let wrong = report["disagreements"].as_array().expect("disagreements");
    assert_eq!((verified.code, wrong.len()), (Some(1), 1), "{report:#}");
    assert_eq!(wrong[0]["rule"], "served-is-stored", "{report:#}");
    assert_eq!(wrong[0]["subject"], serde_json::Value::String(served.name), "{report:#}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verify_names_a_file_on_which_a_transaction_does_not_end() {
    use sea_orm::ConnectionTrait as _;
    let checkup = embedded().start().await;
    Desk::of(&checkup.admin().await).open("files", &[7], 5).await;
    let url = format!("sqlite://{}", checkup.launch().data().path().join("hospital.db").display());
    let mut options = sea_orm::ConnectOptions::new(url);
    options.max_connections(1);
    let connection = sea_orm::Database::connect(options).await.expect("a connection");
    connection.execute_unprepared("BEGIN IMMEDIATE").await.expect("begun");
    let verified = checkup.run(&["verify", "--settle", "1s"]).await;
    assert_eq!(verified.code, Some(1), "{verified:#?}");
    assert!(verified.stdout.contains("the storage of hospital"), "{verified:#?}");
    connection.execute_unprepared("ROLLBACK").await.expect("rolled back");
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}
