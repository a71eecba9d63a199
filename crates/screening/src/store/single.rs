//! Single bookings, read for all that ask at once.

use ::store::{Lookup, Reader};
use async_trait::async_trait;
use domain::access::Scope;
use domain::ids::ScreeningId;
use domain::screening::Screening;
use sea_orm::DbErr;

use super::by_ids;

/// A booking that somebody wants to read.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// What they may see.
    pub(crate) scope: Scope,
    /// Which one.
    pub(crate) id: ScreeningId,
}

/// Finds them, each for whoever may see it.
#[derive(Debug)]
pub(crate) struct Singles;

#[async_trait]
impl Lookup for Singles {
    type Question = Wanted;
    type Answer = Option<Screening>;

    async fn look(&self, reader: &Reader, questions: &[&Wanted]) -> Result<Vec<Option<Screening>>, DbErr> {
        let rows = by_ids(reader, questions.iter().map(|wanted| wanted.id)).await?;
        let found = |wanted: &&Wanted| rows.get(&wanted.id).filter(|row| row.is_visible(&wanted.scope)).cloned();
        Ok(questions.iter().map(found).collect())
    }
}
