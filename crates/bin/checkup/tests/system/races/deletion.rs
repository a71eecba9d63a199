//! R4 to R6 and R18: bookings, cancels and late events against the deletion of their hospital.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use contract::hospital::v1 as hospital;
use contract::reservation::v1 as reservation;
use contract::screening::v1::screening::State;
use fault::Reason;
use hospital::{CloseSlotRequest, DeleteHospitalRequest, GetHospitalRequest, Hospital};
use reservation::reservation::State as ReservationState;
use reservation::{GetReservationRequest, ListReservationHistoryRequest};
use testkit::{Checkup, Desk, Party, eventually, gather, refused, refused_one_of, rush, seed, start_together};
use tonic::{Response, Status};

use super::{all_screenings, claims};
use crate::{embedded, launch};

const REASON: &str = "the building is sold";

fn deletion(name: &str) -> DeleteHospitalRequest {
    DeleteHospitalRequest {
        name: name.to_owned(),
        force: true,
        reason: REASON.to_owned(),
        ..DeleteHospitalRequest::default()
    }
}

/// Waits until the hospital is DELETED.
async fn deleted(party: &Party, name: &str) -> Hospital {
    eventually("the deletion to end", async || {
        let request = GetHospitalRequest { name: name.to_owned() };
        let now = party.hospital().get_hospital(request).await.map_err(|status| status.to_string())?.into_inner();
        if now.state() == hospital::hospital::State::Deleted { Ok(now) } else { Err(format!("{now:?}")) }
    })
    .await
}

/// Waits until a screening and its reservation are in these final states.
async fn settled(auditor: &Party, name: &str, state: State, ledger: ReservationState) {
    eventually("a screening and its reservation to settle", async || {
        let screening = Desk::of(auditor).screening(name).await.map_err(|status| status.to_string())?;
        if screening.state() != state {
            return Err(format!("{screening:?}"));
        }
        let request = GetReservationRequest {
            name: name.replace("screenings/", "reservations/"),
            min_consistency_token: screening.consistency_token,
        };
        let row = auditor.reservation().get_reservation(request).await.map_err(|status| status.to_string())?;
        if row.get_ref().state() == ledger { Ok(()) } else { Err(format!("{row:?}")) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r04_a_claim_before_the_deletion_is_revoked_and_none_comes_after() {
    let checkup = launch().start().await;
    let admin = checkup.admin().await;
    let slots = Desk::of(&admin).open("doomed", &[7, 8, 9], 100_000).await;
    let gone = Arc::new(AtomicBool::new(false));
    let served = checkup.served();
    let workers = start_together(6, |worker| {
        let (served, slots, gone) = (served.clone(), slots.clone(), Arc::clone(&gone));
        async move {
            let desk = Desk::of(&served.admin().await);
            let mut booked = Vec::new();
            for turn in 0.. {
                let was_gone = gone.load(Ordering::SeqCst);
                let slot = &slots[turn % slots.len()];
                match desk.book(&format!("patient-{worker}-{turn}"), slot, "").await {
                    Ok(screening) => {
                        assert!(!was_gone, "{} was booked after the deletion", screening.name);
                        booked.push(screening.name);
                    }
                    Err(status) => {
                        let refusal = refused(Err::<(), _>(status), Reason::HospitalDeleted);
                        assert_eq!(refusal.value("hospital"), "hospitals/doomed");
                        if was_gone {
                            break;
                        }
                    }
                }
            }
            booked
        }
    });
    eventually("some bookings", async || {
        let booked = Desk::of(&admin).booked(&slots[0]).await?;
        if booked >= 8 { Ok(()) } else { Err(format!("{booked} booked")) }
    })
    .await;
    let answer = admin.hospital().delete_hospital(deletion("hospitals/doomed")).await.expect("an admin deletes");
    gone.store(true, Ordering::SeqCst);
    assert_ne!(answer.get_ref().state(), hospital::hospital::State::Active);

    let booked: Vec<String> = gather(workers).await.concat();
    let end = deleted(&admin, "hospitals/doomed").await;
    assert_eq!(end.active_booking_count, 0);
    let progress = end.revocation_progress.expect("a deleted hospital tells how many it revoked");
    assert_eq!(progress.revoked, progress.total);
    assert!(progress.total >= i32::try_from(booked.len()).unwrap_or(i32::MAX), "{progress:?}, {} booked", booked.len());

    let auditor = checkup.auditor().await;
    for name in &booked {
        settled(&auditor, name, State::ForceCancelled, ReservationState::ForceCancelled).await;
    }
    for screening in all_screenings(&auditor, "hospital=\"hospitals/doomed\"").await {
        assert!(matches!(screening.state(), State::ForceCancelled | State::Rejected), "{screening:?}");
        if screening.state() == State::ForceCancelled {
            assert_eq!(screening.state_reason, "HOSPITAL_DELETED");
            assert_eq!(screening.state_message, REASON, "what the admin wrote reaches the customer");
        }
    }
    for slot in &slots {
        let after = Desk::of(&admin).slot(slot).await.expect("the slot of a deleted hospital is read");
        assert_eq!((after.booked_count, after.state()), (0, hospital::slot::State::Deleted));
        assert!(claims(&auditor, slot, "ACTIVE").await.is_empty());
    }
}

/// Creates a hospital with one slot and a booking per customer.
async fn booked_up(checkup: &Checkup, id: &str, customers: &[Party], prefix: &str) -> (String, Vec<String>) {
    let slot = Desk::of(&checkup.admin().await).open(id, &[7], 1_000).await.remove(0);
    let names = rush(customers.len(), |i| {
        let (desk, slot, customer) = (Desk::of(&customers[i]), slot.clone(), format!("{prefix}-{i}"));
        async move { desk.book(&customer, &slot, "").await.expect("a place").name }
    })
    .await;
    (slot, names)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r05_the_first_transition_of_a_row_wins_against_the_deletion() {
    const CUSTOMERS: usize = 80;
    let checkup = launch().start().await;
    let customers = checkup.served().customers("guest", CUSTOMERS, 4).await;
    let (slot, names) = booked_up(&checkup, "torn", &customers, "guest").await;
    let admin = checkup.admin().await;
    let mut random = seed("r05");
    // The nemesis: the deletion comes after a random number of cancels.
    let turn = usize::try_from(random.below(CUSTOMERS as u64)).unwrap_or(0);
    let answers = rush(CUSTOMERS + 1, |i| {
        let admin = admin.clone();
        let work = (i < CUSTOMERS).then(|| (Desk::of(&customers[i]), names[i].clone()));
        async move {
            let Some((desk, name)) = work else {
                for _ in 0..turn {
                    tokio::task::yield_now().await;
                }
                admin.hospital().delete_hospital(deletion("hospitals/torn")).await.expect("an admin deletes");
                return None;
            };
            Some(desk.cancel(&name, "").await)
        }
    })
    .await;
    deleted(&admin, "hospitals/torn").await;

    let auditor = checkup.auditor().await;
    let mut cancelled = 0;
    for (name, answer) in names.iter().zip(answers.into_iter().flatten()) {
        match answer {
            Ok(screening) => {
                assert_eq!(screening.state(), State::Cancelled);
                cancelled += 1;
                settled(&auditor, name, State::Cancelled, ReservationState::Cancelled).await;
            }
            Err(status) => {
                let refusal = refused(Err::<(), _>(status), Reason::ScreeningStateInvalid);
                assert_eq!((refusal.value("state"), refusal.value("screening")), ("FORCE_CANCELLED", name.as_str()));
                settled(&auditor, name, State::ForceCancelled, ReservationState::ForceCancelled).await;
            }
        }
    }
    println!("{cancelled} of {CUSTOMERS} were cancelled before the deletion reached them");
    let after = Desk::of(&admin).slot(&slot).await.expect("the slot");
    assert_eq!((after.booked_count, after.remaining_count), (0, after.capacity), "every place is back, once");
    assert!(claims(&auditor, &slot, "ACTIVE").await.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r06_no_late_event_resurrects_a_final_state() {
    const CUSTOMERS: usize = 12;
    let start = embedded().without("reservation,mypage,marketing");
    let checkup = start.start().await;
    let customers = checkup.served().customers("guest", CUSTOMERS, 4).await;
    let (slot, names) = booked_up(&checkup, "late-news", &customers, "guest").await;
    let admin = checkup.admin().await;
    // A third of the customers cancel while the slot is cancelled for the rest.
    let answers = rush(CUSTOMERS + 1, |i| {
        let admin = admin.clone();
        let close = CloseSlotRequest {
            name: slot.clone(),
            cancel_bookings: true,
            reason: REASON.to_owned(),
            ..CloseSlotRequest::default()
        };
        let work = (i < CUSTOMERS && i % 3 == 0).then(|| (Desk::of(&customers[i]), names[i].clone()));
        async move {
            match work {
                Some((desk, name)) => Some(desk.cancel(&name, "").await),
                None if i == CUSTOMERS => {
                    admin.hospital().close_slot(close).await.expect("an admin closes");
                    None
                }
                None => None,
            }
        }
    })
    .await;
    let expected: Vec<State> = (0..CUSTOMERS)
        .map(|i| match &answers[i] {
            Some(Ok(_)) => State::Cancelled,
            Some(Err(status)) => {
                let refusal = refused_one_of(Err::<(), _>(status.clone()), &[Reason::ScreeningStateInvalid]);
                assert_eq!(refusal.value("state"), "FORCE_CANCELLED");
                State::ForceCancelled
            }
            None => State::ForceCancelled,
        })
        .collect();
    let auditor = checkup.auditor().await;
    wait_for_states(&auditor, &names, &expected).await;
    checkup.stop().await;

    // The views that did not run get all events at once, long after the bookings ended, and again after a kill.
    let awake = embedded().on(start.data());
    let checkup = awake.start().await;
    let launch = checkup.kill().await;
    let checkup = launch.start().await;
    let auditor = checkup.auditor().await;
    for (name, state) in names.iter().zip(&expected) {
        let ledger =
            if *state == State::Cancelled { ReservationState::Cancelled } else { ReservationState::ForceCancelled };
        settled(&auditor, name, *state, ledger).await;
        let request = ListReservationHistoryRequest {
            parent: name.replace("screenings/", "reservations/"),
            ..ListReservationHistoryRequest::default()
        };
        let history = auditor.reservation().list_reservation_history(request).await.expect("a history").into_inner();
        let states: Vec<_> = history.entries.iter().map(|entry| (entry.screening_version, entry.state())).collect();
        assert_eq!(states, [(1, ReservationState::Registered), (2, ledger)]);
    }
    wait_for_states(&auditor, &names, &expected).await;
}

async fn wait_for_states(auditor: &Party, names: &[String], expected: &[State]) {
    for (name, state) in names.iter().zip(expected) {
        eventually("a final state", async || {
            let seen = Desk::of(auditor).screening(name).await.map_err(|status| status.to_string())?;
            if seen.state() == *state { Ok(()) } else { Err(format!("{:?}, not {state:?}", seen.state())) }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r18_two_deletions_are_one() {
    let checkup = launch().start().await;
    let customers = checkup.served().customers("guest", 30, 4).await;
    booked_up(&checkup, "twice-gone", &customers, "guest").await;
    let admin = checkup.admin().await;
    let request_id = uuid();
    let answers: Vec<Result<Hospital, Status>> = rush(12, |i| {
        let mut request = deletion("hospitals/twice-gone");
        // Half of the calls repeat one request, the others are requests of their own.
        if i % 2 == 0 {
            request.request_id.clone_from(&request_id);
        }
        let admin = admin.clone();
        async move { admin.hospital().delete_hospital(request).await.map(Response::into_inner) }
    })
    .await;
    for answer in answers {
        let hospital = answer.expect("a second deletion is fine");
        assert_ne!(hospital.state(), hospital::hospital::State::Active);
        assert_eq!(hospital.revocation_progress.expect("progress").total, 30);
    }
    let end = deleted(&admin, "hospitals/twice-gone").await;
    let mut again = deletion("hospitals/twice-gone");
    again.request_id = request_id;
    let replay = admin.hospital().delete_hospital(again).await.expect("a replay").into_inner();
    assert_eq!(replay, end, "a replay answers the hospital as it is now");
    let fresh = admin.hospital().delete_hospital(deletion("hospitals/twice-gone")).await.expect("another").into_inner();
    assert_eq!(fresh, end);
}

fn uuid() -> String {
    testkit::Random::new(u64::from(std::process::id())).uuid().to_string()
}
