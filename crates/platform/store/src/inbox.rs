//! The inbox: the frames of events that a consumer has applied, stored in the transaction of their effects.

mod admission;
pub(crate) mod ignored;

use std::collections::HashMap;
use std::sync::Arc;

use jiff::Timestamp;
use sea_orm::entity::prelude::*;
use sea_orm::{QueryOrder, QuerySelect};

use crate::database::Database;
use crate::simulation::step;
use crate::statement::{Connection, Fetch as _, Run as _};

pub use admission::{admit, admit_repeatable};
pub use ignored::{Ignored, record_ignored};

/// The key by which a repeated event is recognised: the frame that holds it, and its part of the frame.
///
/// A frame is applied and remembered whole if that works. If one of its events fails, it is applied event by event;
/// then what is remembered is how many of its first events are applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InboxKey {
    /// A frame in a source that is read in order: one cursor per source is enough.
    Ordered {
        /// The name of the source: a producer, or a stream with its identity.
        source: Arc<str>,
        /// The frame's position in the source, from 1.
        position: i64,
        /// The id of the frame at that position; nil if it cannot be read.
        frame_id: Uuid,
        /// The event's part of the frame.
        part: Part,
    },
    /// A frame that can be repeated and reordered: one row per frame.
    Unordered {
        /// The id of the frame.
        frame_id: Uuid,
        /// The event's part of the frame.
        part: Part,
    },
}

impl InboxKey {
    /// The key of a single event that is no part of a frame.
    #[must_use]
    pub fn alone(event_id: Uuid) -> Self {
        Self::Unordered { frame_id: event_id, part: Part::WHOLE }
    }

    /// The key of a whole frame in an ordered source.
    #[must_use]
    pub fn at(source: Arc<str>, position: i64, frame_id: Uuid) -> Self {
        Self::Ordered { source, position, frame_id, part: Part::WHOLE }
    }
}

/// Which event of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Part {
    /// How many events of the frame precede it.
    pub index: u32,
    /// Whether the frame is applied once this event is.
    pub is_last: bool,
}

impl Part {
    /// The only event of a frame.
    pub const WHOLE: Self = Self { index: 0, is_last: true };
}

#[expect(unreachable_pub, reason = "the entity macro emits pub items")]
pub(crate) mod seen {
    use crate::rows::NoRelation as Relation;
    use sea_orm::entity::prelude::*;

    /// A frame that arrived by an unordered transport.
    #[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
    #[sea_orm(table_name = "inbox")]
    pub struct Model {
        #[sea_orm(primary_key, auto_increment = false)]
        pub consumer: String,
        #[sea_orm(primary_key, auto_increment = false)]
        pub event_id: Uuid,
        /// How many of its first events are applied; NULL for all.
        pub applied: Option<i32>,
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
        /// The frame at that position; NULL if an earlier version of this software read it.
        pub event_id: Option<Uuid>,
        /// How many of that frame's first events are applied; NULL for all.
        pub applied: Option<i32>,
    }

    impl ActiveModelBehavior for ActiveModel {}
}

/// Makes a single event new to a consumer again.
pub(crate) async fn forget(transaction: &dyn Connection, consumer: &str, event_id: Uuid) -> Result<(), DbErr> {
    seen::Entity::delete_by_id((consumer.to_owned(), event_id)).run(transaction).await.map(drop)
}

/// How many frames one call of [`prune`] removes at most.
const PRUNE_BATCH: u64 = 5_000;

/// Removes a chunk of a consumer's oldest frames, those that were made before `limit`; ids begin with their time. If
/// such a frame is repeated later, its events meet the versions that their effects left. True if there may be more.
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

/// The position up to which a consumer has read each ordered source whole. A source that it never read is not in the
/// map.
///
/// # Errors
/// The error that the database returns.
pub async fn cursors(connection: &dyn Connection, consumer: &str) -> Result<HashMap<String, i64>, DbErr> {
    let rows = cursors::Entity::find().filter(cursors::Column::Consumer.eq(consumer)).fetch(connection).await?;
    // The rest of a frame is read again with the whole frame.
    let whole = |row: &cursors::Model| row.position - i64::from(row.applied.is_some());
    Ok(rows.into_iter().map(|row| (whole(&row), row.source)).map(|(position, source)| (source, position)).collect())
}

/// How far a consumer has read a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadPosition {
    /// The name of the consumer.
    pub consumer: String,
    /// The position up to which it has read.
    pub position: i64,
    /// The frame at that position; `None` if an earlier version of this software read it.
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
