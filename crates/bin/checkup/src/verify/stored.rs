//! Looks up in the files of a data directory what the services of its process have answered.

use std::collections::{HashMap, HashSet};
use std::path::Path;

use domain::ids::{ClaimId, ScreeningId};
use domain::invariants::{Disagreement, Rule, ServiceRows, Subject};
use uuid::Uuid;

use crate::data_dir;
use crate::exit::Failure;
use crate::service::Service;

/// What a service answered and its file lacks. Files that do not exist are not checked, because the databases of a mesh
/// are elsewhere. Nothing is checked if no process uses the directory.
pub(super) async fn check(directory: &Path, service_rows: &ServiceRows) -> Result<Vec<Disagreement>, Failure> {
    let mut found = Vec::new();
    if !data_dir::is_in_use(directory).map_err(|error| Failure::failed(error.to_string()))? {
        return Ok(found);
    }
    for service in [Service::Hospital, Service::Screening, Service::Reservation, Service::MyPage] {
        let file = data_dir::file(directory, service);
        // a mesh has no file of Screening, and the view in one replica's file says nothing about another replica
        if !file.exists() || !data_dir::file(directory, Service::Screening).exists() {
            continue;
        }
        if !store::stored::is_free(&file).await.map_err(|error| unread(&file, &error))? {
            let detail = "a transaction on its file does not end: nothing written in it is stored";
            found.push(missing(Subject::Storage(service.name()), detail.to_owned()));
        }
        let read = async |query| store::stored::numbers(&file, query).await.map_err(|error| unread(&file, &error));
        match service {
            Service::Hospital => {
                let stored = read("SELECT screening, generation FROM claim").await?.into_iter().collect();
                found.extend(unknown(service_rows, &stored));
            }
            Service::Screening => {
                let stored = read("SELECT id, version FROM screening").await?.into_iter().collect();
                let said = service_rows.screenings.iter().flatten().map(|row| (row.screening, row.version));
                found.extend(older(service, said, &stored));
            }
            Service::Reservation => {
                let stored = read("SELECT screening, screening_version FROM reservation").await?.into_iter().collect();
                let said = service_rows.reservations.iter().flatten().map(|row| (row.screening, row.version));
                found.extend(older(service, said, &stored));
            }
            _ => {
                let stored = read("SELECT screening, version FROM item_version WHERE replace_time IS NULL").await?;
                let stored = stored.into_iter().collect();
                let said = service_rows.items.iter().flatten().map(|row| (row.screening, row.version));
                found.extend(older(service, said, &stored));
            }
        }
    }
    Ok(found)
}

fn missing(subject: Subject, detail: String) -> Disagreement {
    Disagreement { subject, rule: Rule::ServedIsStored, detail }
}

/// The claims that Hospital answered and its storage does not have.
fn unknown(service_rows: &ServiceRows, stored: &HashSet<(Uuid, i64)>) -> Vec<Disagreement> {
    let unknown = service_rows.claims.iter().flatten().filter(|row| {
        let ClaimId { screening: ScreeningId(id), generation } = row.claim;
        !stored.contains(&(id, i64::from(generation)))
    });
    let detail = "hospital said the claim, but its storage does not have it";
    unknown.map(|row| missing(Subject::Claim(row.claim, row.slot.clone()), detail.to_owned())).collect()
}

/// The screenings that a service answered in a newer version than its storage has.
fn older(
    service: Service,
    said: impl Iterator<Item = (ScreeningId, i64)>,
    stored: &HashMap<Uuid, i64>,
) -> Vec<Disagreement> {
    let older = said.filter_map(|(screening, version)| {
        let has = match stored.get(&screening.0) {
            Some(stored) if *stored >= version => return None,
            Some(stored) => format!("has version {stored}"),
            None => "does not have it".to_owned(),
        };
        let detail = format!("{} said version {version}, but its storage {has}", service.name());
        let subject = Subject::Booking { screening, slot: None, customer: None };
        Some(missing(subject, detail))
    });
    older.collect()
}

fn unread(file: &Path, error: &store::DbErr) -> Failure {
    Failure::failed(format!("{} cannot be read: {error}", file.display()))
}
