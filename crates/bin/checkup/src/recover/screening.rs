//! Recovers Screening from what the stream, Reservation, my-page and Hospital know of bookings.

use std::collections::{BTreeMap, HashMap};

use contract::event::v1::EventEnvelope;
use domain::capacity::{Claim, ClaimState};
use domain::ids::{ClaimId, ScreeningId, SlotId};
use domain::recovery::{self, Answered, KnownBooking, Place};
use domain::request::RequestKey;
use domain::screening::{Screening, State, Terms};
use domain::screening_fact::ScreeningFact;
use screening::recovery::Known;
use store::Database;

use super::report::Report;
use super::{FRAMES_PER_CHUNK, Loss, ROWS_PER_CHUNK, ROWS_PER_READ, Recovery, failed, refused};
use crate::exit::Failure;
use crate::service::Service;

/// What the others know and Screening does not.
#[derive(Default)]
struct Lost {
    reported: BTreeMap<ScreeningId, KnownBooking>,
    /// The claims of these bookings and of the doubtful ones.
    claims: HashMap<ScreeningId, Vec<Claim>>,
    /// CONFIRMED and WAITLISTED bookings of Screening of which nobody knows a newer version, and whose claims do not
    /// fit.
    doubtful: BTreeMap<ScreeningId, Screening>,
    /// ACTIVE and WAITING claims whose booking nobody knows.
    strangers: Vec<Claim>,
    /// Answered calls that Screening has no record of.
    answered: HashMap<RequestKey, Answered>,
}

impl Lost {
    /// Keeps the bookings that are newer than Screening's.
    async fn keep_newer(&mut self, screening: &Database, reported: Vec<KnownBooking>) -> Result<(), Failure> {
        let held = screening::recovery::find(screening, reported.iter().map(|reported| reported.screening)).await;
        let held = held.map_err(failed)?;
        let newer =
            |reported: &KnownBooking| held.get(&reported.screening).is_none_or(|row| reported.version > row.version);
        for reported in reported.into_iter().filter(newer) {
            let known = self.reported.remove(&reported.screening);
            let both = known.map_or_else(|| reported.clone(), |known| known.and(reported.clone()));
            self.reported.insert(reported.screening, both);
        }
        Ok(())
    }

    async fn keep_unrecorded(&mut self, screening: &Database, answered: Vec<Answered>) -> Result<(), Failure> {
        let missing = screening::recovery::unrecorded(screening, answered).await.map_err(failed)?;
        self.answered.extend(missing.into_iter().map(|call| (call.key.clone(), call)));
        Ok(())
    }
}

impl Recovery {
    pub(super) async fn screening(
        &self,
        loss: Loss,
        reported: &[super::MissedFrame],
        report: &mut Report,
    ) -> Result<(), Failure> {
        let database = self.database(Service::Screening)?;
        let mut lost = Lost::default();
        for reported in reported.chunks(FRAMES_PER_CHUNK) {
            // a fence is nobody's booking; Screening writes it again if it is needed
            let booking = |event: &EventEnvelope| match ScreeningFact::decode(event) {
                Ok(Some(ScreeningFact::Booking(fact))) => Some(fact),
                Ok(Some(ScreeningFact::Fence { .. }) | None) | Err(_) => None,
            };
            let facts: Vec<_> = reported.iter().flat_map(|frame| &frame.events).filter_map(booking).collect();
            lost.keep_newer(database, facts.iter().map(|fact| KnownBooking::from(&**fact)).collect()).await?;
            lost.keep_unrecorded(database, facts.iter().filter_map(|fact| Answered::of_fact(fact)).collect()).await?;
        }
        self.ask_for_requests(database, &mut lost).await?;
        self.ask_views(database, &mut lost).await?;
        self.ask_hospital(database, &mut lost).await?;
        let mut bookings = self.bookings(database, &lost, report).await?;
        let again: Vec<String> = bookings.iter().map(|row| row.id.to_string()).collect();
        report.did("bookings are again as the others know them", &again);
        bookings.extend(lost.doubtful.values().cloned());
        let ended = self.with_their_places(&mut bookings, &lost.claims, report).await?;
        let requests: Vec<String> = lost.answered.keys().map(|key| key.id.to_string()).collect();
        report.did("calls are answered as before when they are repeated", &requests);
        for claim in &lost.strangers {
            let held = if claim.state == ClaimState::Active { "a place" } else { "a place in the queue" };
            report.not_known(format!(
                "who booked {} on {}: Hospital holds {held} for it; once Screening runs it is given back, so keep the name in \
                 case its customer asks",
                claim.id.screening, claim.slot
            ));
        }
        if !again.is_empty() || ended > 0 {
            report
                .not_known("how the customers of bookings that were gone are addressed (customer_display_name)".into());
        }
        if self.dry_run {
            return Ok(());
        }
        // no event of the lost past tells Hospital of these
        let places = bookings.iter().flat_map(|row| {
            let claims = lost.claims.get(&row.id).map(Vec::as_slice).unwrap_or_default();
            let left = |claim: &&Claim| claim.state == ClaimState::Active && claim.id.generation < row.generation;
            claims.iter().filter(left).map(|claim| (claim.id, claim.slot.clone()))
        });
        let places = places.collect();
        let ended = self.write_screening(database, bookings, places, lost.answered, loss).await?;
        report.did("bookings ended, for their customers have a later one on that date", &ended);
        Ok(())
    }

    /// Writes in several transactions: bookings, then request records, and last the places to give back and the end of
    /// the gap. Returns the bookings that were ended because their customers have a later one on that date.
    async fn write_screening(
        &self,
        database: &Database,
        mut bookings: Vec<Screening>,
        places: Vec<(ClaimId, SlotId)>,
        answered: HashMap<RequestKey, Answered>,
        loss: Loss,
    ) -> Result<Vec<String>, Failure> {
        let blank = || Known { read: loss.read, ..Known::default() };
        let answered: Vec<Answered> = answered.into_values().collect();
        let mut parts: Vec<Known> = Vec::new();
        bookings.sort_by(|one, other| one.customer.cmp(&other.customer));
        parts.extend(in_chunks(&bookings).into_iter().map(|bookings| Known { bookings, ..blank() }));
        parts.extend(answered.chunks(ROWS_PER_CHUNK).map(|answered| Known { answered: answered.to_vec(), ..blank() }));
        parts.push(Known { left: places, closes: loss.gap, ..blank() });
        let mut ended = Vec::new();
        for part in parts {
            let recovered = screening::recovery::recover(database, part, self.clock).await.map_err(refused)?;
            ended.extend(recovered.ended.iter().map(ToString::to_string));
        }
        Ok(ended)
    }

    /// Adds the calls in Reservation's history. Older ones than request records are kept are not needed.
    async fn ask_for_requests(&self, screening: &Database, lost: &mut Lost) -> Result<(), Failure> {
        let Some(database) = self.databases.get(&Service::Reservation) else { return Ok(()) };
        let since = self.clock.now() - domain::request::RETENTION;
        let mut after = None;
        while let Some(answers) =
            reservation::recovery::answered(database, since, after, ROWS_PER_READ).await.map_err(failed)?
        {
            after = Some(answers.last);
            lost.keep_unrecorded(screening, answers.calls).await?;
        }
        Ok(())
    }

    /// Adds the bookings that Reservation and my-page know in a newer version than Screening.
    async fn ask_views(&self, screening: &Database, lost: &mut Lost) -> Result<(), Failure> {
        for service in [Service::Reservation, Service::MyPage] {
            let Some(database) = self.databases.get(&service) else { continue };
            let mut after = None;
            loop {
                let reported = match service {
                    Service::Reservation => reservation::recovery::bookings(database, after, ROWS_PER_READ).await,
                    _ => mypage::recovery::bookings(database, after, ROWS_PER_READ).await,
                };
                let reported = reported.map_err(failed)?;
                let Some(last) = reported.last() else { break };
                after = Some(last.screening);
                lost.keep_newer(screening, reported).await?;
            }
        }
        Ok(())
    }

    /// Compares Hospital's claims with the bookings.
    async fn ask_hospital(&self, screening: &Database, lost: &mut Lost) -> Result<(), Failure> {
        let hospital = self.database(Service::Hospital)?;
        let mut after = None;
        loop {
            let claims = hospital::recovery::claims(hospital, after, ROWS_PER_READ).await.map_err(failed)?;
            let Some(last) = claims.last() else { return Ok(()) };
            after = Some(last.id);
            let ids = claims.iter().map(|claim| claim.id.screening);
            let held = screening::recovery::find(screening, ids).await.map_err(failed)?;
            for claim in claims {
                let id = claim.id.screening;
                match (held.get(&id), lost.reported.contains_key(&id)) {
                    (_, true) => lost.claims.entry(id).or_default().push(claim),
                    (Some(row), false) if matches!(row.state, State::Confirmed | State::Waitlisted) => {
                        let later = claim.id.generation > row.generation && claim.state == ClaimState::Active;
                        if later || !fits(row, &claim) {
                            lost.doubtful.insert(id, row.clone());
                            lost.claims.entry(id).or_default().push(claim);
                        }
                    }
                    (Some(_), false) => {}
                    (None, false) => match claim.state {
                        ClaimState::Active | ClaimState::Waiting(_) => lost.strangers.push(claim),
                        // a fence is written again when its event is read again
                        ClaimState::Released | ClaimState::Revoked(_) => {}
                    },
                }
            }
        }
    }

    /// Corrects CONFIRMED and WAITLISTED bookings whose claims say more: they were moved on, got the place that they
    /// waited for, or have ended. Returns how many have ended.
    async fn with_their_places(
        &self,
        bookings: &mut [Screening],
        claims: &HashMap<ScreeningId, Vec<Claim>>,
        report: &mut Report,
    ) -> Result<usize, Failure> {
        let hospital = self.database(Service::Hospital)?;
        let (mut ended, mut promoted, mut moved) = (Vec::new(), Vec::new(), Vec::new());
        for row in bookings {
            match recovery::place(row, claims.get(&row.id).map(Vec::as_slice).unwrap_or_default()) {
                Place::Kept => {}
                Place::Promoted => {
                    *row = recovery::promoted(row, self.clock.now());
                    promoted.push(row.id.to_string());
                }
                Place::Ended(state) => {
                    *row = recovery::without_place(row, state);
                    ended.push(row.id.to_string());
                }
                Place::Moved(claim) => {
                    let terms = hospital::recovery::terms(hospital, &claim.slot).await.map_err(failed)?;
                    *row = recovery::moved(row, claim.id, &claim.slot, terms.unwrap_or_default());
                    moved.push(row.id.to_string());
                    report.not_known(format!(
                        "whether {} is booked on {} or was cancelled: Hospital keeps a place for it there, so it has it; ask \
                         its customer",
                        row.id, claim.slot
                    ));
                }
            }
        }
        report.did("bookings are cancelled again, for they have no place any more", &ended);
        report.did("bookings have the place that they waited for", &promoted);
        report.did("bookings are where Hospital keeps a place for them", &moved);
        Ok(ended.len())
    }

    /// Makes the rows to write, and reports bookings whose hospital nobody knows.
    async fn bookings(
        &self,
        screening: &Database,
        lost: &Lost,
        report: &mut Report,
    ) -> Result<Vec<Screening>, Failure> {
        let hospital = self.database(Service::Hospital)?;
        let held = screening::recovery::find(screening, lost.reported.keys().copied()).await.map_err(failed)?;
        let mut offers: HashMap<SlotId, Option<Terms>> = HashMap::new();
        let mut rows = Vec::with_capacity(lost.reported.len());
        for (id, reported) in &lost.reported {
            let claims = lost.claims.get(id).map(Vec::as_slice).unwrap_or_default();
            let slot = recovery::booked_slot(held.get(id), reported, claims);
            if let Some(slot) = slot.filter(|slot| !offers.contains_key(*slot)) {
                let terms = hospital::recovery::terms(hospital, slot).await.map_err(failed)?;
                offers.insert(slot.clone(), terms);
            }
            let offered = slot.and_then(|slot| offers.get(slot).cloned().flatten());
            match recovery::screening(held.get(id), reported, claims, offered) {
                Some(row) => rows.push(row),
                None => report.not_known(format!(
                    "at which hospital {} asked for {} ({id}, {}): their page shows it, and nobody else; tell them to book again",
                    reported.customer,
                    reported.date,
                    reported.state.name()
                )),
            }
        }
        Ok(rows)
    }
}

/// Whether a claim is in the state that its booking requires. A claim of another generation is not the booking's.
fn fits(row: &Screening, claim: &Claim) -> bool {
    let is_held = match claim.state {
        ClaimState::Active => row.state == State::Confirmed,
        ClaimState::Waiting(_) => row.state == State::Waitlisted,
        ClaimState::Released | ClaimState::Revoked(_) => false,
    };
    row.claim() != claim.id || is_held
}

/// Divides bookings, which are sorted by customer, into parts of about [`ROWS_PER_CHUNK`]. All bookings of a customer
/// are in one part: apart, one that moved to the date that another one left would meet that one there still.
fn in_chunks(bookings: &[Screening]) -> Vec<Vec<Screening>> {
    let mut chunks: Vec<Vec<Screening>> = Vec::new();
    for of_customer in bookings.chunk_by(|one, other| one.customer == other.customer) {
        match chunks.last_mut().filter(|chunk| chunk.len() < ROWS_PER_CHUNK) {
            Some(chunk) => chunk.extend_from_slice(of_customer),
            None => chunks.push(of_customer.to_vec()),
        }
    }
    chunks
}
