//! Reads the services' rows over gRPC, page by page: everything, or one subject.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use contract::capacity::v1 as capacity;
use contract::hospital::v1 as hospital;
use contract::mypage::v1 as mypage;
use contract::reservation::v1 as reservation;
use contract::screening::v1 as screening;
use domain::ids::{CustomerId, Malformed};
use domain::invariants::{ClaimRow, ServiceRows, SlotRow, emptied};
use futures::{StreamExt, TryStreamExt, stream};
use runtime::backoff::Backoff;
use runtime::clock::Clock;
use tonic::{Code, Response, Status};

use super::rows::Names;
use crate::exit::Failure;
use crate::party::{Party, describe};
use crate::service::Service;
use crate::terminal::Progress;

/// The page size of every list: the largest one.
const PAGE_SIZE: i32 = 1000;
/// How many short lists are read at the same time.
pub(super) const CONCURRENCY: usize = 16;
/// The name of every slot in ListCapacityClaims.
const EVERY_SLOT: &str = "hospitals/-/slots/-";
/// How often a read is tried when a service is busy or starting.
const MAX_TRIES: u32 = 5;
/// The pause before the first repetition. It doubles with every repetition.
const FIRST_PAUSE: Duration = Duration::from_millis(20);

/// Reads the services as an auditor.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) auditor: Party,
    pub(super) names: Names,
    /// The clock by which the services judge whether a claim still may get a place.
    pub(super) clock: Clock,
    pub(super) progress: Progress,
    /// Services that do not run, in the order in which that was noticed.
    pub(super) absent: Vec<&'static str>,
}

/// Makes one read, and repeats it if the service is busy. `None` if the service does not run.
pub(super) async fn read<T>(
    what: &'static str,
    call: impl AsyncFn() -> Result<Response<T>, Status>,
) -> Result<Option<T>, Failure> {
    let mut backoff = Backoff::new(FIRST_PAUSE, Duration::MAX);
    let mut tries = 0;
    loop {
        let status = match call().await {
            Ok(response) => return Ok(Some(response.into_inner())),
            Err(status) => status,
        };
        tries += 1;
        match status.code() {
            Code::Unimplemented => return Ok(None),
            Code::Unavailable | Code::ResourceExhausted | Code::DeadlineExceeded if tries < MAX_TRIES => {
                tokio::time::sleep(backoff.pause()).await;
            }
            _ => return Err(Failure::failed(format!("{what} failed: {}", describe(&status)))),
        }
    }
}

/// Reads one resource. `None` if it does not exist.
pub(super) async fn find<T>(
    what: &'static str,
    call: impl AsyncFn() -> Result<Response<T>, Status>,
) -> Result<Option<T>, Failure> {
    let absent = |status: &Status| status.code() == Code::NotFound;
    let found = read(what, async || match call().await {
        Err(status) if absent(&status) => Ok(Response::new(None)),
        answer => answer.map(|response| response.map(Some)),
    });
    Ok(found.await?.flatten())
}

/// Reads every page of a list and passes its rows to `each`. Returns false if the service does not run.
async fn pages<R>(
    what: &'static str,
    call: impl AsyncFn(String) -> Result<Response<(Vec<R>, String)>, Status>,
    mut each: impl FnMut(Vec<R>) -> Result<(), Failure>,
) -> Result<bool, Failure> {
    let mut token = String::new();
    loop {
        let page = read(what, async || call(token.clone()).await).await?;
        let Some((rows, next)) = page else { return Ok(false) };
        each(rows)?;
        if next.is_empty() {
            return Ok(true);
        }
        token = next;
    }
}

/// Reads every page of a list of a service that has answered before. That it does not know the list is no absence then:
/// rows that cannot be read must not count as rows that are not there.
async fn whole<R>(
    what: &'static str,
    call: impl AsyncFn(String) -> Result<Response<(Vec<R>, String)>, Status>,
    each: impl FnMut(Vec<R>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if pages(what, call, each).await? {
        return Ok(());
    }
    Err(Failure::failed(format!("{what} failed: no service answers it, and its service answered before")))
}

impl Reader {
    pub(super) fn new(auditor: Party, clock: Clock, progress: Progress) -> Self {
        Self { auditor, names: Names::default(), clock, progress, absent: Vec::new() }
    }

    /// Reads everything, producers first, so that a view is not older than what it follows.
    pub(super) async fn everything(&mut self) -> Result<ServiceRows, Failure> {
        let mut service_rows = ServiceRows::default();
        self.absent.clear();
        self.read_hospital(&mut service_rows).await?;
        self.read_screenings(&mut service_rows).await?;
        self.read_reservations(&mut service_rows).await?;
        self.read_items(&mut service_rows).await?;
        for (service, is_there) in [
            (Service::Hospital, service_rows.slots.is_some()),
            (Service::Screening, service_rows.screenings.is_some()),
            (Service::Reservation, service_rows.reservations.is_some()),
            (Service::MyPage, service_rows.items.is_some()),
        ] {
            if !is_there {
                self.absent.push(service.name());
            }
        }
        Ok(service_rows)
    }

    async fn read_hospital(&mut self, service_rows: &mut ServiceRows) -> Result<(), Failure> {
        self.progress.phase("hospitals", None);
        let mut hospitals = Vec::new();
        let auditor = self.auditor.clone();
        let list = async |page_token| {
            let (page_size, show_deleted) = (PAGE_SIZE, true);
            let request = hospital::ListHospitalsRequest { page_size, page_token, show_deleted, ..Default::default() };
            let page = auditor.hospital().list_hospitals(auditor.request(request)).await?;
            Ok(page.map(|page| (page.hospitals, page.next_page_token)))
        };
        let is_there = pages("ListHospitals", list, |rows| {
            for row in rows {
                let unread = |why: Malformed| Failure::failed(format!("{} cannot be read: {}", row.name, why.0));
                service_rows.deleted.extend(emptied(&row).map_err(unread)?);
                hospitals.push(row.name);
            }
            Ok(())
        });
        if !is_there.await? {
            return Ok(());
        }
        let slots = self.read_slots(hospitals).await?;
        service_rows.claims = Some(self.read_claims().await?);
        service_rows.slots = Some(slots);
        // after the claims: one whose time ended meanwhile may have been left without a place
        service_rows.read_at = Some(self.clock.now());
        Ok(())
    }

    async fn read_slots(&mut self, hospitals: Vec<String>) -> Result<Vec<SlotRow>, Failure> {
        self.progress.phase("slots", Some(hospitals.len() as u64));
        let mut found = Vec::new();
        let mut lists = stream::iter(hospitals.into_iter().map(|name| {
            let auditor = self.auditor.clone();
            async move { slots_of(&auditor, &name).await }
        }))
        .buffer_unordered(CONCURRENCY);
        while let Some(rows) = lists.try_next().await? {
            for row in &rows {
                found.push(self.names.slot_row(row)?);
            }
            self.progress.done(1);
        }
        Ok(found)
    }

    /// Reads the claims of all slots in one list: most slots have none, and there may be millions of slots.
    async fn read_claims(&mut self) -> Result<Vec<ClaimRow>, Failure> {
        self.progress.phase("claims", None);
        let mut found = Vec::new();
        let (progress, names) = (self.progress.clone(), &mut self.names);
        claims(&self.auditor, EVERY_SLOT, |rows| {
            progress.done(rows.len() as u64);
            for row in &rows {
                found.push(names.claim_row(row)?);
            }
            Ok(())
        })
        .await?;
        Ok(found)
    }

    async fn read_screenings(&mut self, service_rows: &mut ServiceRows) -> Result<(), Failure> {
        self.progress.phase("screenings", None);
        let mut found = Vec::new();
        let (auditor, progress, names) = (self.auditor.clone(), self.progress.clone(), &mut self.names);
        let list = async |page_token| {
            let (page_size, show_waitlisted) = (PAGE_SIZE, true);
            let request =
                screening::ListScreeningsRequest { page_size, page_token, show_waitlisted, ..Default::default() };
            let page = auditor.screening().list_screenings(auditor.request(request)).await?;
            Ok(page.map(|page| (page.screenings, page.next_page_token)))
        };
        let is_there = pages("ListScreenings", list, |rows| {
            progress.done(rows.len() as u64);
            for row in &rows {
                found.push(names.screening_row(row)?);
            }
            Ok(())
        });
        service_rows.screenings = is_there.await?.then_some(found);
        Ok(())
    }

    async fn read_reservations(&mut self, service_rows: &mut ServiceRows) -> Result<(), Failure> {
        self.progress.phase("reservations", None);
        let mut found = Vec::new();
        let (auditor, progress, names) = (self.auditor.clone(), self.progress.clone(), &mut self.names);
        let list = async |page_token| {
            let request =
                reservation::ListReservationsRequest { page_size: PAGE_SIZE, page_token, ..Default::default() };
            let page = auditor.reservation().list_reservations(auditor.request(request)).await?;
            Ok(page.map(|page| (page.reservations, page.next_page_token)))
        };
        let is_there = pages("ListReservations", list, |rows| {
            progress.done(rows.len() as u64);
            for row in &rows {
                found.push(names.reservation_row(row)?);
            }
            Ok(())
        });
        service_rows.reservations = is_there.await?.then_some(found);
        Ok(())
    }

    /// Reads the items of every customer that another service names, because items can only be listed per customer.
    async fn read_items(&mut self, service_rows: &mut ServiceRows) -> Result<(), Failure> {
        let screenings = service_rows.screenings.iter().flatten().map(|row| &row.customer);
        let reservations = service_rows.reservations.iter().flatten().map(|row| &row.customer);
        let customers: BTreeSet<Arc<CustomerId>> = screenings.chain(reservations).cloned().collect();
        // a customer who does not exist has an empty page, which shows whether the service runs
        let nobody = CustomerId::parse("customers/nobody").map(Arc::new).into_iter();
        let asked: Vec<_> = if customers.is_empty() { nobody.collect() } else { customers.into_iter().collect() };
        self.progress.phase("my-pages", Some(asked.len() as u64));
        let mut found = Vec::new();
        let mut pages = stream::iter(asked.into_iter().map(|customer| {
            let auditor = self.auditor.clone();
            async move {
                let name = customer.to_string();
                items_of(&auditor, &name).await.map(|items| (name, items))
            }
        }))
        .buffer_unordered(CONCURRENCY);
        while let Some((customer, items)) = pages.try_next().await? {
            let Some(items) = items else { return Ok(()) };
            for item in &items {
                found.push(self.names.item_row(&customer, item)?);
            }
            self.progress.done(1);
        }
        drop(pages);
        service_rows.items = Some(found);
        Ok(())
    }
}

/// Every screening that a filter matches.
pub(super) async fn screenings_of(auditor: &Party, filter: String) -> Result<Vec<screening::Screening>, Failure> {
    let mut found = Vec::new();
    let list = async |page_token| {
        let request = screening::ListScreeningsRequest {
            page_size: PAGE_SIZE,
            page_token,
            filter: filter.clone(),
            show_waitlisted: true,
            ..Default::default()
        };
        let page = auditor.screening().list_screenings(auditor.request(request)).await?;
        Ok(page.map(|page| (page.screenings, page.next_page_token)))
    };
    whole("ListScreenings", list, |rows| {
        found.extend(rows);
        Ok(())
    })
    .await?;
    Ok(found)
}

async fn slots_of(auditor: &Party, hospital: &str) -> Result<Vec<hospital::Slot>, Failure> {
    let mut found = Vec::new();
    let list = async |page_token| {
        let (parent, page_size) = (hospital.to_owned(), PAGE_SIZE);
        let request = hospital::ListSlotsRequest { parent, page_size, page_token, ..Default::default() };
        let page = auditor.hospital().list_slots(auditor.request(request)).await?;
        Ok(page.map(|page| (page.slots, page.next_page_token)))
    };
    whole("ListSlots", list, |rows| {
        found.extend(rows);
        Ok(())
    })
    .await?;
    Ok(found)
}

/// The claims of a slot that are ACTIVE, WAITING or REVOKED.
pub(super) async fn claims_of(auditor: &Party, slot: &str) -> Result<Vec<capacity::CapacityClaim>, Failure> {
    let mut found = Vec::new();
    claims(auditor, slot, |rows| {
        found.extend(rows);
        Ok(())
    })
    .await?;
    Ok(found)
}

/// Passes these claims of a slot, or of [`EVERY_SLOT`], to `each`, page by page.
async fn claims(
    auditor: &Party,
    slot: &str,
    each: impl FnMut(Vec<capacity::CapacityClaim>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let list = async |page_token| {
        let (slot, filter) = (slot.to_owned(), "state!=RELEASED".to_owned());
        let request = capacity::ListCapacityClaimsRequest { slot, page_size: PAGE_SIZE, page_token, filter };
        let page = auditor.capacity().list_capacity_claims(auditor.request(request)).await?;
        Ok(page.map(|page| (page.claims, page.next_page_token)))
    };
    whole("ListCapacityClaims", list, each).await
}

/// Every item of a customer's page. `None` if the service does not run.
pub(super) async fn items_of(auditor: &Party, customer: &str) -> Result<Option<Vec<mypage::MyPageItem>>, Failure> {
    let mut found = Vec::new();
    let list = async |page_token| {
        let request = mypage::ListMyPageItemsRequest {
            parent: format!("{customer}/myPage"),
            page_size: PAGE_SIZE,
            page_token,
            show_waitlisted: true,
            ..Default::default()
        };
        let page = auditor.my_page().list_my_page_items(auditor.request(request)).await?;
        Ok(page.map(|page| (page.items, page.next_page_token)))
    };
    let is_there = pages("ListMyPageItems", list, |rows| {
        found.extend(rows);
        Ok(())
    });
    Ok(is_there.await?.then_some(found))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_list_that_its_service_does_not_know_is_not_an_empty_one() {
        let unknown = async |_: String| Err::<Response<(Vec<()>, String)>, _>(Status::unimplemented("no such method"));
        assert!(!pages("ListReservations", unknown, |_| Ok(())).await.expect("the service does not run"));
        let failure = whole("ListCapacityClaims", unknown, |_| Ok(())).await.expect_err("no claims were read");
        assert!(failure.to_string().starts_with("ListCapacityClaims failed"), "{failure}");
    }
}
