//! What stands where bookings want to go, looked up for all that ask at once.

use ::store::request_record::{self, Record};
use ::store::{Lookup, Reader};
use async_trait::async_trait;
use domain::ids::ScreeningId;
use domain::request::RequestKey;
use domain::screening::Screening;
use sea_orm::DbErr;

use super::{CustomerDate, active, by_ids};

/// A booking that wants to go somewhere.
#[derive(Debug)]
pub(crate) struct Question {
    /// The call, where its caller chose a request_id.
    pub(crate) key: Option<RequestKey>,
    /// The id it wants.
    pub(crate) id: ScreeningId,
    /// Whose booking it is, and on which date.
    pub(crate) place: CustomerDate,
}

/// What is there.
#[derive(Debug)]
pub(crate) struct Standing {
    /// That this call was answered before, and what it made, as it is now.
    pub(crate) answered: Option<(Record, Option<Screening>)>,
    /// The row that has this id, be it a fence.
    pub(crate) own: Option<Screening>,
    /// Another active booking of the customer on that date.
    pub(crate) other: Option<ScreeningId>,
}

/// Looks that up.
#[derive(Debug)]
pub(crate) struct Standings;

#[async_trait]
impl Lookup for Standings {
    type Question = Question;
    type Answer = Standing;

    async fn look(&self, reader: &Reader, questions: &[&Question]) -> Result<Vec<Standing>, DbErr> {
        let keys: Vec<&RequestKey> = questions.iter().filter_map(|question| question.key.as_ref()).collect();
        // records first: the row of a record is there before the record can be seen
        let records = request_record::find(reader, &keys).await?;
        let made = |record: &Record| ScreeningId::parse(&record.resource).ok();
        let ids = questions.iter().map(|question| question.id).chain(records.values().filter_map(made));
        let rows = by_ids(reader, ids).await?;
        let active = active(reader, questions.iter().map(|question| &question.place.0)).await?;
        let standings = questions.iter().map(|question| {
            let record = question.key.as_ref().and_then(|key| records.get(key)).cloned();
            let answered = record.map(|record| {
                let row = made(&record).and_then(|id| rows.get(&id).cloned());
                (record, row)
            });
            let other = active.get(&question.place).copied().filter(|other| *other != question.id);
            Standing { answered, own: rows.get(&question.id).cloned(), other }
        });
        Ok(standings.collect())
    }
}
