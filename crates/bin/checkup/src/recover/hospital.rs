//! Recovers Hospital from Screening's bookings, the stream, and what Marketing knows of places.

use std::collections::{BTreeMap, BTreeSet};

use domain::capacity::ClaimState;
use domain::demand::{Fact, Places};
use domain::ids::SlotId;
use domain::recovery::ExpectedClaim;
use hospital::recovery::{Known, Recovered};
use store::Database;

use super::report::Report;
use super::{Loss, ROWS_PER_CHUNK, ROWS_PER_READ, Recovery, failed, refused};
use crate::exit::Failure;
use crate::service::Service;

impl Recovery {
    pub(super) async fn hospital(
        &self,
        loss: Loss,
        missed: &[super::MissedFrame],
        report: &mut Report,
    ) -> Result<(), Failure> {
        let database = self.database(Service::Hospital)?;
        let mut known = Known { read: loss.read, ..Known::default() };
        known.claims = self.claims(database).await?;
        self.ask_marketing(database, &mut known).await?;
        take_in(database, missed, &mut known).await?;
        if self.dry_run {
            let names =
                |claims: &[ExpectedClaim]| claims.iter().map(|expected| expected.claim.to_string()).collect::<Vec<_>>();
            report.did("claims stand as their bookings say", &names(&known.claims));
            let slots: Vec<String> = known.places.iter().map(|places| places.slot.to_string()).collect();
            report.did("slots have the newest capacity that is known", &slots);
            let gone: Vec<String> = known.gone.iter().map(ToString::to_string).collect();
            report.did("hospitals are deleted again", &gone);
        } else {
            add_to_report(&Box::pin(self.write(database, known, loss)).await?, report);
        }
        if loss.read > 0 || !missed.is_empty() {
            report.not_known(String::from(
                "what else admins changed since the database was as it is: compare booking policies, names, closings without \
                 cancellations and requests for capacity with what they remember"
            ));
        }
        Ok(())
    }

    /// The claims that are not in the state that Screening's bookings require, in the order in which to write them.
    async fn claims(&self, hospital: &Database) -> Result<Vec<ExpectedClaim>, Failure> {
        let screening = self.database(Service::Screening)?;
        let (mut after, mut changes) = (None, Vec::new());
        loop {
            let rows = screening::recovery::bookings(screening, after, ROWS_PER_READ).await.map_err(failed)?;
            let Some(last) = rows.last() else { break };
            after = Some(last.id);
            let expected = rows.iter().filter_map(ExpectedClaim::of).collect();
            changes.extend(hospital::recovery::claims_to_change(hospital, expected).await.map_err(failed)?);
        }
        // they are written in this order: places are taken before anybody waits for one, and who waited longer is first
        changes.sort_by_key(|expected| (matches!(expected.state, ClaimState::Waiting(_)), expected.since));
        Ok(changes)
    }

    async fn ask_marketing(&self, hospital: &Database, known: &mut Known) -> Result<(), Failure> {
        let Some(marketing) = self.databases.get(&Service::Marketing) else { return Ok(()) };
        let mut after: Option<Places> = None;
        loop {
            let from = after.as_ref().map(|places| &places.slot);
            let places = marketing::recovery::places(marketing, from, ROWS_PER_READ).await.map_err(failed)?;
            let Some(last) = places.last() else { break };
            after = Some(last.clone());
            known.places.extend(hospital::recovery::newer_places(hospital, places).await.map_err(failed)?);
        }
        let hospitals = marketing::recovery::hospitals(marketing).await.map_err(failed)?;
        let gone: BTreeSet<_> = hospitals.iter().filter(|(_, known)| known.gone).map(|(id, _)| id.clone()).collect();
        known.gone = hospital::recovery::active(hospital, gone).await.map_err(failed)?;
        known.time_zones = hospitals.into_iter().map(|(id, known)| (id, known.time_zone)).collect();
        Ok(())
    }

    /// Writes in several transactions: capacities, then claims, and last the deletions and the end of the gap.
    async fn write(&self, database: &Database, known: Known, loss: Loss) -> Result<Recovered, Failure> {
        let Known { claims, places, gone, time_zones, read, .. } = known;
        let blank = || Known { time_zones: time_zones.clone(), read, ..Known::default() };
        let mut parts: Vec<Known> = Vec::new();
        // capacities first: every slot then has room for its claims, and a slot without a known capacity gets no more
        // than its claims need
        parts.extend(places.chunks(ROWS_PER_CHUNK).map(|places| Known { places: places.to_vec(), ..blank() }));
        parts.extend(claims.chunks(ROWS_PER_CHUNK).map(|claims| Known { claims: claims.to_vec(), ..blank() }));
        parts.push(Known { gone, closes: loss.gap, ..blank() });
        let mut all = Recovered::default();
        for part in parts {
            let recovered = Box::pin(hospital::recovery::recover(database, part, self.clock)).await.map_err(refused)?;
            all.taken.extend(recovered.taken);
            all.waiting.extend(recovered.waiting);
            all.ended.extend(recovered.ended);
            all.slots.extend(recovered.slots);
            all.closed.extend(recovered.closed);
            all.registered.extend(recovered.registered);
            all.deleted.extend(recovered.deleted);
        }
        Ok(all)
    }
}

/// Adds what the lost events of Hospital say about places, time zones and deletions.
async fn take_in(hospital: &Database, missed: &[super::MissedFrame], known: &mut Known) -> Result<(), Failure> {
    let mut places: BTreeMap<SlotId, Places> =
        known.places.drain(..).map(|places| (places.slot.clone(), places)).collect();
    let mut gone = BTreeSet::new();
    for event in missed.iter().flat_map(|frame| &frame.events) {
        match Fact::decode(event) {
            Ok(Some(Fact::Places(newer))) => {
                let known = places.entry(newer.slot.clone()).or_insert_with(|| newer.clone());
                if newer.slot_version > known.slot_version {
                    *known = newer;
                }
            }
            Ok(Some(Fact::Located { hospital, time_zone })) => {
                known.time_zones.insert(hospital, time_zone);
            }
            Ok(Some(Fact::Gone { hospital })) => {
                gone.insert(hospital);
            }
            Ok(Some(Fact::Booked { .. } | Fact::Refused { .. }) | None) | Err(_) => {}
        }
    }
    let places: Vec<Places> = places.into_values().collect();
    for chunk in places.chunks(ROWS_PER_CHUNK) {
        known.places.extend(hospital::recovery::newer_places(hospital, chunk.to_vec()).await.map_err(failed)?);
    }
    known.gone.extend(hospital::recovery::active(hospital, gone).await.map_err(failed)?);
    Ok(())
}

/// Reports what was recovered, and what an admin has to look at.
fn add_to_report(recovered: &Recovered, report: &mut Report) {
    let Recovered { taken, waiting, ended, slots, closed, registered, deleted } = recovered;
    report.did("claims hold a place again", &taken.iter().map(ToString::to_string).collect::<Vec<_>>());
    report.did("claims wait for a place again", &waiting.iter().map(ToString::to_string).collect::<Vec<_>>());
    report.did("claims are ended again", &ended.iter().map(ToString::to_string).collect::<Vec<_>>());
    let changed = slots.iter().filter(|(_, capacity, before)| *before != Some(*capacity));
    let changed: Vec<String> = changed
        .map(|(slot, capacity, before)| match before {
            Some(before) => format!("{slot} {before} → {capacity}"),
            None => format!("{slot} {capacity}"),
        })
        .collect();
    report.did("slots have the newest capacity that is known, and room for what is booked", &changed);
    report.did("hospitals are deleted again", &deleted.iter().map(ToString::to_string).collect::<Vec<_>>());
    for slot in closed {
        report.not_known(format!(
            "whether {slot} was on sale again after its bookings were cancelled: it is closed, reopen it if so"
        ));
    }
    for hospital in registered {
        report.not_known(format!(
            "the booking policy of {hospital}, which was registered later than the database is: it has the default one, set yours"
        ));
    }
}
