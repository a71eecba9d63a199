//! The inbox: the events that a consumer has applied, stored in the transaction of their effects.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use jiff::Timestamp;
use sea_orm::ActiveValue::Set;
use sea_orm::entity::prelude::*;
use sea_orm::sea_query::OnConflict;
use sea_orm::{DbBackend, QueryOrder, QuerySelect, Statement};

use crate::database::Database;
use crate::rows::{among, array, insert_all};
use crate::simulation::step;
use crate::statement::{Connection, Fetch as _, Run as _};
use crate::time::micros;

/// The key by which a repeated event is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxKey {
    /// The position in a source that is read in order: one cursor per source is enough.
    Ordered {
        /// The name of the source: a producer, or a stream with its identity.
        source: Arc<str>,
        /// The position in the source, from 1.
        position: i64,
        /// The id of the event at that position; nil if it cannot be read.
        event_id: Uuid,
    },
    /// The event's id, if events can be repeated and reordered: one row per event.
    Unordered {
        /// The id of the event.
        event_id: Uuid,
    },
}

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod seen {
    use crate::rows::NoRelation as Relation;
    use sea_orm::entity::prelude::*;

    /// An event that arrived by an unordered transport.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "inbox")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub consumer: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub event_id: Uuid,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod cursors {
    use crate::rows::NoRelation as Relation;
    use sea_orm::entity::prelude::*;

    /// How far a consumer has read one ordered source.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "cursor")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub consumer: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub source: String,
        pub position: i64,
        /// The event at that position; NULL if an earlier version of this software read it.
        pub event_id: Option<Uuid>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod ignored {
    use crate::rows::NoRelation as Relation;
    use sea_orm::entity::prelude::*;

    /// An event that the rules decided to ignore.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "ignored_event")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub event_id: Uuid,
        pub aggregate: String,
        pub reason: String,
        pub ignore_time: i64,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// An event that the rules decided to ignore, stored to explain why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ignored {
    /// The id of the event.
    pub event_id: Uuid,
    /// The name of the resource that it would have changed.
    pub aggregate: String,
    /// Why it changed nothing.
    pub reason: String,
    /// When it was ignored.
    pub time: Timestamp,
}

/// Returns which of these events are new to the consumer, and remembers all of them. Call it first in the transaction
/// of the effect. An event that occurs twice in one call is new once.
///
/// # Errors
/// The error that the database returns.
pub async fn admit(transaction: &dyn Connection, consumer: &str, inbox_keys: &[&InboxKey]) -> Result<Vec<bool>, DbErr> {
    let mut fresh = vec![false; inbox_keys.len()];
    admit_ordered(transaction, consumer, inbox_keys, &mut fresh).await?;
    admit_unordered(transaction, consumer, inbox_keys, &mut fresh).await?;
    Ok(fresh)
}

/// Returns which of these events must be applied if applying an event again changes nothing: all except those up to the
/// cursor of an ordered source. Cursors move; no single event is remembered.
///
/// # Errors
/// The error that the database returns.
pub async fn admit_repeatable(
    transaction: &dyn Connection,
    consumer: &str,
    inbox_keys: &[&InboxKey],
) -> Result<Vec<bool>, DbErr> {
    let mut fresh: Vec<bool> =
        inbox_keys.iter().map(|inbox_key| matches!(inbox_key, InboxKey::Unordered { .. })).collect();
    admit_ordered(transaction, consumer, inbox_keys, &mut fresh).await?;
    Ok(fresh)
}

async fn admit_ordered(
    transaction: &dyn Connection,
    consumer: &str,
    inbox_keys: &[&InboxKey],
    fresh: &mut [bool],
) -> Result<(), DbErr> {
    if !inbox_keys.iter().any(|inbox_key| matches!(inbox_key, InboxKey::Ordered { .. })) {
        return Ok(());
    }
    let before = cursors(transaction, consumer).await?;
    let mut moved: HashMap<&str, (i64, Uuid)> = HashMap::new();
    for (inbox_key, fresh) in inbox_keys.iter().zip(fresh) {
        if let InboxKey::Ordered { source, position, event_id } = inbox_key {
            let known = before.get(&**source).copied().unwrap_or(0);
            let cursor = moved.get(&**source).map_or(known, |(position, _)| *position);
            *fresh = *position > cursor;
            if *fresh {
                moved.insert(source, (*position, *event_id));
            }
        }
    }
    let moved = moved.into_iter().map(|(source, (position, event_id))| cursors::ActiveModel {
        consumer: Set(consumer.to_owned()),
        source: Set(source.to_owned()),
        position: Set(position),
        event_id: Set(Some(event_id).filter(|id| !id.is_nil())),
    });
    let moved: Vec<_> = moved.collect();
    if moved.is_empty() {
        return Ok(());
    }
    let replace = OnConflict::columns([cursors::Column::Consumer, cursors::Column::Source])
        .update_columns([cursors::Column::Position, cursors::Column::EventId])
        .to_owned();
    cursors::Entity::insert_many(moved).on_conflict(replace).run(transaction).await?;
    Ok(())
}

async fn admit_unordered(
    transaction: &dyn Connection,
    consumer: &str,
    inbox_keys: &[&InboxKey],
    fresh: &mut [bool],
) -> Result<(), DbErr> {
    // In order, so that replicas that remember the same events cannot deadlock.
    let ids: BTreeSet<Uuid> = inbox_keys
        .iter()
        .filter_map(|inbox_key| match inbox_key {
            InboxKey::Unordered { event_id } => Some(*event_id),
            InboxKey::Ordered { .. } => None,
        })
        .collect();
    if ids.is_empty() {
        return Ok(());
    }
    let mut new = match transaction.backend() {
        DbBackend::Postgres => remember_at_once(transaction, consumer, &ids).await?,
        _ => remember(transaction, consumer, ids).await?,
    };
    for (inbox_key, fresh) in inbox_keys.iter().zip(fresh) {
        if let InboxKey::Unordered { event_id } = inbox_key {
            // An event that occurs twice in one call is new once.
            *fresh = new.remove(event_id);
        }
    }
    Ok(())
}

/// Remembers events; returns those that were not known yet.
async fn remember(
    transaction: &dyn Connection,
    consumer: &str,
    mut ids: BTreeSet<Uuid>,
) -> Result<BTreeSet<Uuid>, DbErr> {
    let known: Vec<Uuid> = seen::Entity::find()
        .select_only()
        .column(seen::Column::EventId)
        .filter(seen::Column::Consumer.eq(consumer))
        .filter(among(transaction, seen::Column::EventId, ids.iter().copied()))
        .fetch_values(transaction)
        .await?;
    for id in known {
        ids.remove(&id);
    }
    let row = |id: &Uuid| seen::ActiveModel { consumer: Set(consumer.to_owned()), event_id: Set(*id) };
    insert_all(transaction, ids.iter().map(row).collect()).await?;
    Ok(ids)
}

/// Like [`remember`], in one statement whose text does not depend on the number of ids. It waits for any transaction
/// that is remembering one of them; if that commits, the event is not new.
async fn remember_at_once(
    transaction: &dyn Connection,
    consumer: &str,
    ids: &BTreeSet<Uuid>,
) -> Result<BTreeSet<Uuid>, DbErr> {
    const SQL: &str = "INSERT INTO inbox (consumer, event_id) \
                       SELECT $1, event.id FROM unnest($2::uuid[]) AS event(id) \
                       ON CONFLICT DO NOTHING RETURNING event_id";
    let ids = array(ids.iter().copied());
    let statement = Statement::from_sql_and_values(DbBackend::Postgres, SQL, [consumer.into(), ids]);
    let rows = transaction.query(statement).await?;
    rows.into_iter().map(|mut row| row.take(0)).collect()
}

/// Makes an event new to a consumer again.
pub(crate) async fn forget(transaction: &dyn Connection, consumer: &str, event_id: Uuid) -> Result<(), DbErr> {
    seen::Entity::delete_by_id((consumer.to_owned(), event_id)).run(transaction).await.map(drop)
}

/// How many events one call of [`prune`] removes at most.
const PRUNE_BATCH: u64 = 5_000;

/// Removes a chunk of a consumer's oldest events, those that were made before `limit`; ids of events begin with their
/// time. If such an event is repeated later, it meets the version that its effect left. True if there may be more.
///
/// # Errors
/// The error that the database returns.
pub async fn prune(database: &Database, consumer: &str, limit: Timestamp) -> Result<bool, DbErr> {
    use seen::{Column, Entity};
    step(async {
        let millis = u64::try_from(limit.as_millisecond()).unwrap_or(0);
        let bound = Uuid::from_u128(u128::from(millis) << 80);
        let oldest = Entity::find()
            .select_only()
            .column(Column::EventId)
            .filter(Column::Consumer.eq(consumer))
            .filter(Column::EventId.lt(bound))
            .order_by_asc(Column::EventId)
            .limit(PRUNE_BATCH);
        let due: Vec<Uuid> = oldest.fetch_values(database.reader()).await?;
        if due.is_empty() {
            return Ok(false);
        }
        let more = due.len() as u64 == PRUNE_BATCH;
        let transaction = database.begin_outside_writer().await?;
        let forgotten = Entity::delete_many().filter(Column::Consumer.eq(consumer));
        forgotten.filter(Column::EventId.is_in(due)).run(&transaction).await?;
        database.commit(transaction).await?;
        Ok(more)
    })
    .await
}

/// The position up to which a consumer has read each ordered source. A source that it never read is not in the map.
///
/// # Errors
/// The error that the database returns.
pub async fn cursors(connection: &dyn Connection, consumer: &str) -> Result<HashMap<String, i64>, DbErr> {
    let rows = cursors::Entity::find().filter(cursors::Column::Consumer.eq(consumer)).fetch(connection).await?;
    Ok(rows.into_iter().map(|row| (row.source, row.position)).collect())
}

/// How far a consumer has read a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPosition {
    /// The name of the consumer.
    pub consumer: String,
    /// The position up to which it has read.
    pub position: i64,
    /// The event at that position; `None` if an earlier version of this software read it.
    pub event_id: Option<Uuid>,
}

/// How far the consumers of this database have read one ordered source.
///
/// # Errors
/// The error that the database returns.
pub async fn read_of(connection: &dyn Connection, source: &str) -> Result<Vec<ReadPosition>, DbErr> {
    let rows = cursors::Entity::find().filter(cursors::Column::Source.eq(source)).fetch(connection).await?;
    let read_position =
        |row: cursors::Model| ReadPosition { consumer: row.consumer, position: row.position, event_id: row.event_id };
    Ok(rows.into_iter().map(read_position).collect())
}

/// Stores how far a log has come, as the cursor of a consumer that applies no events.
///
/// # Errors
/// The error that the database returns.
pub async fn note(database: &Database, consumer: &str, inbox_key: InboxKey) -> Result<(), DbErr> {
    step(async {
        let transaction = database.begin_outside_writer().await?;
        admit_repeatable(&transaction, consumer, &[&inbox_key]).await?;
        database.commit(transaction).await
    })
    .await
}

/// Makes every consumer of this database read an ordered source again from its first event. Events that were applied
/// change nothing again.
///
/// # Errors
/// The error that the database returns.
pub async fn read_again(database: &Database, source: &str) -> Result<(), DbErr> {
    step(async {
        let transaction = database.begin_outside_writer().await?;
        cursors::Entity::delete_many().filter(cursors::Column::Source.eq(source)).run(&transaction).await?;
        database.commit(transaction).await
    })
    .await
}

/// Stores the events that the rules decided to ignore.
///
/// # Errors
/// The error that the database returns.
pub async fn record_ignored(transaction: &dyn Connection, events: Vec<Ignored>) -> Result<(), DbErr> {
    if events.is_empty() {
        return Ok(());
    }
    let rows = events.into_iter().map(|event| ignored::ActiveModel {
        event_id: Set(event.event_id),
        aggregate: Set(event.aggregate),
        reason: Set(event.reason),
        ignore_time: Set(micros(event.time)),
    });
    let keep = OnConflict::column(ignored::Column::EventId).do_nothing_on([ignored::Column::EventId]).to_owned();
    ignored::Entity::insert_many(rows).on_conflict(keep).run(transaction).await?;
    Ok(())
}
