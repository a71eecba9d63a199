//! Events are kept for a time, and what the state follows from for ever: a view that begins when the first events are
//! gone ends as the others.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::Path;

use bus::Publish as _;
use bus::jetstream::{JetStream, JetStreamOptions};
use contract::hospital::v1::set_slot_capacity_request::Change;
use contract::hospital::v1::{CloseSlotRequest, DeleteHospitalRequest, Hospital, SetSlotCapacityRequest};
use contract::hospital::v1::{UpdateHospitalRequest, hospital};
use contract::marketing::v1::ListDemandSignalsRequest;
use contract::mypage::v1::{ListMyPageItemsRequest, MyPageItem};
use contract::reservation::v1::{ListReservationsRequest, Reservation, reservation};
use domain::frame::Opened;
use domain::ids::{ClaimId, ScreeningId};
use domain::retention::Aggregate;
use fault::Reason;
use mesh::Mesh;
use prost_types::FieldMask;
use store::migration::prelude::{ConnectionTrait, sea_orm};
use testkit::{Checkup, Desk, Party, eventually, get, refused};

use crate::small_mesh::{START, admin, auditor};
use crate::{embedded, small_mesh};

/// Short enough for a test to see several rounds.
const RETENTION: &str = "2s";
const CUSTOMERS: [&str; 6] = ["kim", "lee", "park", "choi", "jung", "kang"];

/// Everything that can happen to a booking, a slot and a hospital; the last event of each is of another kind.
async fn bring_about(admin: &Party, booking: &Party) {
    let (desk, booking) = (Desk::of(admin), Desk::of(booking));
    let slots = desk.open("kept", &[7, 8, 9], 5).await;
    let doomed = desk.open("doomed", &[7], 5).await.remove(0);
    for (index, customer) in CUSTOMERS[..5].iter().enumerate() {
        let booked = booking.book(customer, &slots[0], "").await.expect("a place");
        if index % 2 == 0 {
            booking.cancel(&booked.name, "").await.expect("cancelled");
        }
        booking.book(customer, &slots[1], "").await.expect("a place");
    }
    refused(booking.book(CUSTOMERS[5], &slots[1], "").await, Reason::SlotFull);
    booking.book("kim", &doomed, "").await.expect("a place");
    let renamed =
        Hospital { name: "hospitals/kept".to_owned(), display_name: "Kept Clinic".to_owned(), ..Hospital::default() };
    let update_mask = Some(FieldMask { paths: vec!["display_name".to_owned()] });
    let update = UpdateHospitalRequest { hospital: Some(renamed), update_mask };
    admin.hospital().update_hospital(update).await.expect("renamed");
    let capacity = SetSlotCapacityRequest {
        name: slots[0].clone(),
        change: Some(Change::Delta(4)),
        ..SetSlotCapacityRequest::default()
    };
    admin.hospital().set_slot_capacity(capacity).await.expect("larger");
    let close = CloseSlotRequest { name: slots[2].clone(), ..CloseSlotRequest::default() };
    admin.hospital().close_slot(close).await.expect("closed");
    let name = "hospitals/doomed".to_owned();
    let delete = DeleteHospitalRequest { name, force: true, ..DeleteHospitalRequest::default() };
    let deleted = admin.hospital().delete_hospital(delete).await.expect("deleted").into_inner();
    assert_ne!(deleted.state(), hospital::State::Active);
}

/// What the views show: the items of my-page, how full each slot is, and the states of the ledger.
#[derive(Debug, Clone, PartialEq, Default)]
struct Shown {
    items: BTreeMap<String, Vec<MyPageItem>>,
    full: BTreeMap<String, String>,
    ledger: BTreeMap<String, (i64, reservation::State)>,
}

async fn shown(page: &Party, demand: Option<&Party>, ledger: &Party) -> Result<Shown, String> {
    let said = |status: tonic::Status| status.to_string();
    let mut shown = Shown::default();
    for customer in CUSTOMERS {
        let parent = format!("customers/{customer}/myPage");
        let request = ListMyPageItemsRequest { parent, page_size: 100, ..ListMyPageItemsRequest::default() };
        let items = page.my_page().list_my_page_items(request).await.map_err(said)?.into_inner().items;
        shown.items.insert(customer.to_owned(), items);
    }
    if let Some(demand) = demand {
        let request = ListDemandSignalsRequest { page_size: 100, ..ListDemandSignalsRequest::default() };
        let signals = demand.marketing().list_demand_signals(request).await.map_err(said)?.into_inner().signals;
        shown.full = signals.into_iter().map(|signal| (signal.slot, format!("{:.6}", signal.fill_ratio))).collect();
    }
    let request = ListReservationsRequest { page_size: 1_000, ..ListReservationsRequest::default() };
    let rows = ledger.reservation().list_reservations(request).await.map_err(said)?.into_inner().reservations;
    let state = |row: Reservation| (row.screening.clone(), (row.screening_version, row.state()));
    shown.ledger = rows.into_iter().map(state).collect();
    Ok(shown)
}

impl Shown {
    /// Fails unless everything that [`bring_about`] did is shown.
    fn whole(self) -> Result<Self, String> {
        let forced = self.items["kim"].iter().filter(|item| item.state == "FORCE_CANCELLED").count();
        let states = self.ledger.values().map(|(_, state)| *state);
        let ended = |wanted| states.clone().filter(|state| *state == wanted).count();
        let ended = (ended(reservation::State::Cancelled), ended(reservation::State::ForceCancelled));
        // 2 of 9, 5 of 5, and the closed one
        let full: Vec<&str> = self.full.values().map(String::as_str).collect();
        let full = full.is_empty() || full == ["0.222222", "1.000000", "0.000000"];
        let items: usize = self.items.values().map(Vec::len).sum();
        if (forced, ended, items, full) == (1, (3, 1), 11, true) { Ok(self) } else { Err(format!("{self:?}")) }
    }
}

async fn shown_by(checkup: &Checkup) -> Result<Shown, String> {
    let (auditor, marketing) = (checkup.auditor().await, checkup.service("marketing").await);
    shown(&auditor, Some(&marketing), &auditor).await?.whole()
}

/// The first and the last position of each log in a data directory.
async fn logs(directory: &Path) -> BTreeMap<&'static str, (i64, i64)> {
    let mut logs = BTreeMap::new();
    for service in ["hospital", "screening", "reservation"] {
        let file = directory.join(format!("{service}.db"));
        let log = sea_orm::Database::connect(format!("sqlite://{}?mode=ro", file.display())).await.expect("opened");
        let row = log.query_one_raw(sea_orm::Statement::from_string(
            sea_orm::DbBackend::Sqlite,
            "SELECT coalesce(min(position), 0), coalesce(max(position), 0) FROM outbox",
        ));
        let row = row.await.expect("answered").expect("a row");
        let at = |index| row.try_get_by_index::<i64>(index).expect("a position");
        logs.insert(service, (at(0), at(1)));
        log.close().await.expect("closed");
    }
    logs
}

/// The version of each booking, claim and reservation in the tables of a directory that no process uses, and the newest
/// that the logs have.
async fn versions(directory: &Path) -> BTreeMap<String, (i64, i64)> {
    const TABLES: [(&str, &str); 3] = [
        ("screening", "SELECT id, 0, version FROM screening"),
        ("hospital", "SELECT screening, generation, version FROM claim"),
        ("reservation", "SELECT screening, 0, version FROM reservation"),
    ];
    let mut versions = BTreeMap::new();
    for (service, sql) in TABLES {
        let file = directory.join(format!("{service}.db"));
        let file = sea_orm::Database::connect(format!("sqlite://{}?mode=ro", file.display())).await.expect("opened");
        let query = async |sql| {
            let rows = file.query_all_raw(sea_orm::Statement::from_string(sea_orm::DbBackend::Sqlite, sql)).await;
            rows.expect("answered")
        };
        let mut reported: BTreeMap<Aggregate, i64> = BTreeMap::new();
        for row in query("SELECT payload FROM outbox").await {
            let payload: Vec<u8> = row.try_get_by_index(0).expect("bytes");
            for event in Opened::new(&payload).decode().expect("events") {
                let Some(aggregate) = Aggregate::of(&event) else { continue };
                let newest = reported.entry(aggregate).or_default();
                *newest = event.aggregate_version.max(*newest);
            }
        }
        for row in query(sql).await {
            let screening = ScreeningId(row.try_get_by_index(0).expect("an id"));
            let aggregate = match service {
                "screening" => Aggregate::Screening(screening),
                "reservation" => Aggregate::Reservation(screening),
                _ => Aggregate::Claim(ClaimId { screening, generation: row.try_get_by_index(1).expect("a number") }),
            };
            let newest = reported.get(&aggregate).copied().unwrap_or(0);
            versions.insert(format!("{aggregate:?}"), (row.try_get_by_index(2).expect("a version"), newest));
        }
        file.close().await.expect("closed");
    }
    versions
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn views_that_begin_when_the_first_events_are_gone_end_as_the_others() {
    let checkup = embedded().set("events.retention", RETENTION).start().await;
    bring_about(&checkup.admin().await, &checkup.admin().await).await;
    let before = eventually("the views to have read it all", async || shown_by(&checkup).await).await;
    let directory = checkup.launch().data().path().to_owned();
    let before_removal = logs(&directory).await;
    eventually("every event to be removed or repeated", async || {
        let now = logs(&directory).await;
        let gone = now.iter().all(|(service, (first, _))| *first > before_removal[service].1);
        if gone { Ok(()) } else { Err(format!("{before_removal:?}, now {now:?}")) }
    })
    .await;
    assert_eq!(shown_by(&checkup).await, Ok(before.clone()), "what is repeated changes nothing");
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");

    let launch = checkup.stop().await;
    let versions = versions(&directory).await;
    assert!(versions.len() > 20, "{versions:?}");
    let unreported: Vec<_> = versions.iter().filter(|(_, (version, newest))| version != newest).collect();
    assert!(unreported.is_empty(), "{unreported:?}");
    for entry in std::fs::read_dir(&directory).expect("a directory") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        if ["mypage", "marketing", "reservation"].iter().any(|view| name.starts_with(view)) && name.contains(".db") {
            std::fs::remove_file(entry.path()).expect("removed");
        }
    }
    let checkup = launch.start().await;
    eventually("new views to end as the old ones", async || {
        let now = shown_by(&checkup).await?;
        if now == before { Ok(()) } else { Err(format!("{now:#?} instead of {before:#?}")) }
    })
    .await;
    let verified = checkup.run(&["verify", "--settle", "5s"]).await;
    assert_eq!(verified.code, Some(0), "{verified:#?}");
}

/// The value of a metric that a service has once.
async fn metric(admin: SocketAddr, name: &str) -> f64 {
    let page = get(admin, "/metrics").await.expect("a page").body;
    let sample = page.lines().find(|line| line.starts_with(&format!("{name}{{")));
    let value = sample.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    value.unwrap_or_else(|| panic!("no {name} in\n{page}"))
}

/// The same on a mesh, whose stream drops events by age.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_view_that_begins_when_the_stream_forgot_its_beginning_ends_as_the_others() {
    let settings = format!("events.retention={RETENTION}");
    let Some((_directory, mut mesh)) = small_mesh::start(&[&settings]).await else { return };
    bring_about(&admin(&mesh, "hospital").await, &admin(&mesh, "screening").await).await;
    let read = async |mesh: &Mesh| {
        shown(&auditor(mesh, "mypage").await, None, &auditor(mesh, "reservation").await).await?.whole()
    };
    let before = eventually("the views to have read it all", async || read(&mesh).await).await;

    let url = mesh.nats().url_of("operator");
    let options = JetStreamOptions { owns_stream: false, ..JetStreamOptions::new(url) };
    let broker = JetStream::connect(options).await.expect("connected");
    let last = broker.state().await.expect("a stream").last;
    eventually("the stream to have forgotten its beginning", async || {
        let now = broker.state().await.map_err(|error| error.to_string())?;
        if now.first > last { Ok(()) } else { Err(format!("{last}, now {now:?}")) }
    })
    .await;
    // what the alerts go by
    let hospital = mesh.of("hospital").next().expect("a replica").admin_addr();
    eventually("the publisher to look at the stream", async || {
        let bytes = metric(hospital, "checkup_stream_bytes").await;
        if bytes > 0.0 { Ok(()) } else { Err("it saw an empty one".to_owned()) }
    })
    .await;
    assert!((metric(hospital, "checkup_stream_limit_bytes").await - 4_294_967_296.0).abs() < 1.0);
    assert!(metric(hospital, "checkup_events_removed_total").await > 0.0);
    assert!(metric(hospital, "checkup_retention_overdue_seconds").await < 60.0);
    let page = mesh.replica("mypage", 0).expect("a replica");
    page.kill().await.expect("it runs no more");
    for entry in std::fs::read_dir(page.directory()).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("mypage")) {
            std::fs::remove_file(path).expect("removed");
        }
    }
    page.start().expect("started");
    mesh.ready(START).await.expect("it serves again");
    eventually("a new view to end as the old one", async || {
        let now = read(&mesh).await?;
        if now == before { Ok(()) } else { Err(format!("{now:#?} instead of {before:#?}")) }
    })
    .await;
    mesh.stop().await.expect("it stops");
}
