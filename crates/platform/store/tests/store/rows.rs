//! Many rows at once: the rows that are read equal those that were written, for any number of rows and any NULLs.

use sea_orm::ActiveValue::{NotSet, Set, Unchanged};
use sea_orm::{
    ActiveModelTrait, ConnectionTrait, DatabaseConnection, DbErr, EntityTrait, IntoActiveModel, QueryFilter,
    QueryOrder, QuerySelect, TransactionTrait,
};
use store::rows::{among, insert_all, insert_missing, replace_all, save_all};
use store::writer::run_once;
use store::{BatchHandler, Fetch as _, Transaction};
use uuid::Uuid;

use crate::backends;
use crate::pages::writing;

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
mod mixed {
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
    #[sea_orm(table_name = "mixed")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub key: Uuid,
        #[sea_orm(primary_key, auto_increment = false)]
        pub part: i32,
        pub note: Option<String>,
        pub amount: Option<i64>,
        pub payload: Vec<u8>,
        pub ratio: f64,
        pub flag: bool,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
mod log {
    use sea_orm::entity::prelude::*;
    use store::rows::NoRelation as Relation;

    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "numbered")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i64,
        pub label: String,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

async fn tables(connection: &DatabaseConnection) {
    let postgres = connection.get_database_backend() == sea_orm::DbBackend::Postgres;
    let (uuid, bytes, number) = if postgres {
        ("uuid", "bytea", "bigserial PRIMARY KEY")
    } else {
        ("uuid_text", "blob", "integer PRIMARY KEY AUTOINCREMENT")
    };
    let mixed = format!(
        "CREATE TABLE mixed (key {uuid} NOT NULL, part integer NOT NULL, note varchar, amount bigint, payload {bytes} NOT NULL, \
         ratio double precision NOT NULL, flag boolean NOT NULL, PRIMARY KEY (key, part))"
    );
    connection.execute_unprepared(&mixed).await.expect("a table");
    let numbered = format!("CREATE TABLE numbered (id {number}, label varchar NOT NULL)");
    connection.execute_unprepared(&numbered).await.expect("a table");
}

fn row(number: u32) -> mixed::Model {
    mixed::Model {
        key: Uuid::from_u128(u128::from(number)),
        part: number as i32 % 3,
        note: number.is_multiple_of(2).then(|| format!("note '{number}'")),
        amount: (!number.is_multiple_of(5)).then_some(i64::MIN + i64::from(number)),
        payload: number.to_be_bytes().to_vec(),
        ratio: f64::from(number) / 7.0,
        flag: number.is_multiple_of(4),
    }
}

fn active(model: mixed::Model) -> mixed::ActiveModel {
    model.into_active_model().reset_all()
}

async fn all(connection: &DatabaseConnection) -> Vec<mixed::Model> {
    mixed::Entity::find().order_by_asc(mixed::Column::Key).all(connection).await.expect("rows")
}

#[tokio::test]
async fn any_number_of_rows_is_written_as_it_is() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        tables(&connection).await;
        for count in [0, 1, 2, 31, 32, 33, 64, 100, 255, 1_500] {
            mixed::Entity::delete_many().exec(&connection).await.expect("emptied");
            let rows: Vec<_> = (0..count).map(row).collect();
            insert_all(&connection, rows.iter().cloned().map(active).collect()).await.expect("written");
            assert_eq!(all(&connection).await, rows, "{count} on {}", backend.name);
        }
    }
}

#[tokio::test]
async fn what_is_there_is_refused_kept_or_replaced() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        tables(&connection).await;
        let before: Vec<_> = (0..10).map(row).collect();
        let after: Vec<_> = (0..10).map(|number| mixed::Model { note: None, amount: Some(7), ..row(number) }).collect();
        insert_all(&connection, before.iter().cloned().map(active).collect()).await.expect("written");
        let transaction = connection.begin().await.expect("begun");
        let refused = insert_all(&transaction, vec![active(row(10)), active(row(3))]).await;
        transaction.rollback().await.expect("rolled back");
        assert!(refused.is_err() && all(&connection).await == before, "{}", backend.name);
        insert_missing(&connection, after.iter().cloned().map(active).collect()).await.expect("kept");
        assert_eq!(all(&connection).await, before, "{}", backend.name);
        replace_all(&connection, after.iter().cloned().map(active).collect()).await.expect("replaced");
        assert_eq!(all(&connection).await, after, "{}", backend.name);
        let mixed = [(true, active(row(0))), (false, active(row(10)))];
        save_all(&connection, mixed).await.expect("saved");
        assert_eq!(all(&connection).await[0], row(0), "{}", backend.name);
        assert_eq!(all(&connection).await.len(), 11, "{}", backend.name);
        let unlike = mixed::ActiveModel { note: NotSet, ..active(row(12)) };
        assert!(insert_all(&connection, vec![active(row(11)), unlike]).await.is_err(), "{}", backend.name);
    }
}

#[tokio::test]
async fn what_is_unchanged_stays_as_it_is_stored() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        tables(&connection).await;
        insert_all(&connection, (0..4).map(row).map(active).collect()).await.expect("written");
        let after = |number| mixed::Model { amount: Some(7), flag: true, ..row(number) };
        let other = || Unchanged(Some("not what is stored".to_owned()));
        // Some rows change the note, some do not, and one changes nothing.
        let nothing: mixed::ActiveModel = after(3).into();
        let rows = vec![
            mixed::ActiveModel { note: other(), ..active(after(0)) },
            mixed::ActiveModel { note: Set(Some("new".to_owned())), ..active(after(1)) },
            mixed::ActiveModel { note: other(), ..active(after(2)) },
            nothing,
        ];
        replace_all(&connection, rows).await.expect("replaced");
        let changed = mixed::Model { note: Some("new".to_owned()), ..after(1) };
        assert_eq!(all(&connection).await, [after(0), changed, after(2), row(3)], "{}", backend.name);
        let new = mixed::ActiveModel { note: Unchanged(Some("first".to_owned())), ..active(row(9)) };
        insert_all(&connection, vec![new]).await.expect("written");
        assert_eq!(all(&connection).await[4].note.as_deref(), Some("first"), "{}", backend.name);
    }
}

#[tokio::test]
async fn numbers_are_given_in_the_order_of_the_rows() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        tables(&connection).await;
        let rows = |from: u32| (from..from + 150).map(|i| log::ActiveModel { id: NotSet, label: Set(i.to_string()) });
        insert_all(&connection, rows(0).collect()).await.expect("written");
        insert_all(&connection, rows(150).collect()).await.expect("written");
        let rows = log::Entity::find().order_by_asc(log::Column::Id).all(&connection).await.expect("rows");
        let labels: Vec<_> = rows.into_iter().map(|row| row.label).collect();
        assert_eq!(labels, (0..300).map(|i| i.to_string()).collect::<Vec<_>>(), "{}", backend.name);
    }
}

#[tokio::test]
async fn a_list_of_keys_finds_those_and_no_others() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        tables(&connection).await;
        insert_all(&connection, (0..50).map(|number| active(row(number))).collect()).await.expect("written");
        for count in [0, 1, 3, 8, 33] {
            let keys = (10..10 + count).map(|number| Uuid::from_u128(u128::from(number)));
            let found = among(&connection, mixed::Column::Key, keys);
            let found = mixed::Entity::find().filter(found).order_by_asc(mixed::Column::Key).all(&connection).await;
            let wanted: Vec<_> = (10..10 + count).map(row).collect();
            assert_eq!(found.expect("rows"), wanted, "{count} on {}", backend.name);
        }
    }
}

/// Writes rows and reads them in the same transaction.
struct WriteAndRead;

#[async_trait::async_trait]
impl BatchHandler for WriteAndRead {
    type Command = Vec<mixed::Model>;
    type Answer = (Vec<mixed::Model>, Option<(Uuid, Option<String>, Option<i64>)>, u64);

    async fn execute(&self, transaction: &Transaction, batch: &[&Self::Command]) -> Result<Vec<Self::Answer>, DbErr> {
        let mut answers = Vec::new();
        for rows in batch {
            insert_all(transaction, rows.iter().cloned().map(active).collect()).await?;
            let sorted = mixed::Entity::find().order_by_asc(mixed::Column::Key);
            let chosen = [mixed::Column::Key, mixed::Column::Note, mixed::Column::Amount];
            let first = sorted.clone().select_only().columns(chosen).fetch_value(transaction).await?;
            let count = mixed::Entity::find().fetch_count(transaction).await?;
            answers.push((sorted.fetch(transaction).await?, first, count));
        }
        Ok(answers)
    }
}

/// A file is written and read without the driver there; the driver is the oracle.
#[tokio::test]
async fn a_transaction_reads_and_writes_as_the_driver_does() {
    for backend in backends().await {
        let connection = writing(&backend).await;
        tables(&connection).await;
        let rows: Vec<_> = (0..100).map(row).collect();
        let written = run_once("test", WriteAndRead, backend.database.clone(), rows.clone()).await;
        let (read, first, count) = written.expect("a commit");
        assert_eq!(read, rows, "{}", backend.name);
        assert_eq!(all(&connection).await, rows, "{}", backend.name);
        assert_eq!(first, Some((rows[0].key, rows[0].note.clone(), rows[0].amount)), "{}", backend.name);
        assert_eq!(count, 100, "{}", backend.name);
    }
}
