//! Reads that find no connection: what their callers hear.

use fault::Reason;
use sea_orm::ConnectionTrait;
use sea_orm::sea_query::Query;
use store::read::failed;

use crate::backends;

/// As many as there may be readers of any backend.
const MORE_THAN_READERS: usize = 64;

#[tokio::test]
async fn a_read_that_finds_every_connection_busy_is_told_to_back_off() {
    for backend in backends().await {
        let mut held = Vec::new();
        let busy = loop {
            match backend.database.snapshot().await {
                Ok(snapshot) => held.push(snapshot),
                Err(busy) => break busy,
            }
            assert!(held.len() < MORE_THAN_READERS, "{}: readers without end", backend.name);
        };
        let refusal = failed(busy);
        assert_eq!(refusal.reason(), Reason::Overloaded, "{}: {refusal:?}", backend.name);
        assert!(refusal.retry_delay().is_some());
        let statement = Query::select().expr(1).to_owned();
        let read = backend.database.reader().query_one(&statement).await;
        assert_eq!(failed(read.expect_err("busy")).reason(), Reason::Overloaded, "{}", backend.name);
        drop(held);
        assert!(backend.database.reader().query_one(&statement).await.is_ok(), "{}", backend.name);
    }
}
