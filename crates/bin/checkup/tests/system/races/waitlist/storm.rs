//! Everything at once on one slot: places given back, tickets given back, newcomers who wait and newcomers who do not.

use contract::hospital::v1::BookingPolicy;
use contract::screening::v1::screening::State;
use testkit::{Desk, Random, seed};

use super::{Press, Queue, Watch, agree, counts, in_order, of_slot, promoted, turned_away};
use crate::launch;
use crate::races::claims;

const PLACES: usize = 20;
const WAITING: usize = 100;
const CANCELS: usize = 50;
const NEWCOMERS: usize = 60;

/// Which of those who wait leave: so many that with the holders there are [`CANCELS`] cancels. They are among the
/// first, who are promoted.
fn leavers(random: &mut Random) -> Vec<bool> {
    let mut leaves = vec![false; WAITING];
    while leaves.iter().filter(|leaves| **leaves).count() < CANCELS - PLACES {
        leaves[usize::try_from(random.below(WAITING as u64 / 2)).unwrap_or(0)] = true;
    }
    leaves
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r19_a_storm_promotes_by_ticket_and_nobody_twice() {
    let mut random = seed("r19 storm");
    let checkup = launch().start().await;
    let queue = Queue::set(&checkup, "storm", PLACES, WAITING).await;
    let policy = BookingPolicy { waitlist_limit: Some(1_000), ..BookingPolicy::default() };
    Desk::of(&checkup.admin().await).set_policy("hospitals/storm", policy).await.expect("a policy");
    let leaves = leavers(&mut random);
    let leaving: Vec<usize> = (0..WAITING).filter(|i| leaves[*i]).collect();
    let newcomers = checkup.served().customers("newcomer", NEWCOMERS, 8).await;
    let watch = Watch::over(&checkup, &queue.slot).await;
    let press = Press::on(&checkup, &queue.slot).await;
    let auditor = checkup.auditor().await;
    let answers = queue
        .released_while(&auditor, leaving.len() + NEWCOMERS, |i| {
            let leaver = leaving.get(i).map(|leaver| &queue.waiters[*leaver]);
            let leaver = leaver.map(|(party, joined)| (Desk::of(party), joined.name.clone()));
            let newcomer = i.checked_sub(leaving.len()).map(|i| (Desk::of(&newcomers[i]), format!("newcomer-{i}")));
            let (slot, joins) = (queue.slot.clone(), i.is_multiple_of(2));
            async move {
                if let Some((desk, name)) = leaver {
                    desk.cancel(&name, "").await.expect("cancelled");
                }
                let (desk, customer) = newcomer?;
                if !joins {
                    turned_away(desk.book(&customer, &slot, "").await, &slot);
                    return None;
                }
                let joined = desk.join(&customer, &slot, "").await.expect("a ticket");
                assert_eq!((joined.state(), joined.version), (State::Waitlisted, 1), "not in front");
                Some(joined.name)
            }
        })
        .await;

    let joined: Vec<String> = answers.into_iter().flatten().collect();
    let names = queue.names();
    let stay = (0..WAITING).filter(|i| !leaves[*i]).map(|i| names[i]);
    let stay: Vec<&str> = stay.chain(joined.iter().map(String::as_str)).collect();
    promoted(&auditor, &queue.slot, &stay, PLACES).await;
    counts(&auditor, &queue.slot, PLACES, stay.len() - PLACES).await;
    press.end().await;
    watch.end().await;
    let at = in_order(claims(&auditor, &queue.slot, "ACTIVE").await, &stay);
    assert!(at.len() == PLACES && at.is_sorted(), "in the order of the tickets: {at:?}");
    agree(&checkup).await;

    let seen = of_slot(&auditor, &queue.slot).await;
    let left = leaving.iter().map(|i| seen[names[*i]]);
    let left: Vec<(State, i64)> = left.collect();
    assert!(left.iter().all(|(state, _)| *state == State::Cancelled), "nobody came back: {left:?}");
    let had_a_place = left.iter().filter(|(_, version)| *version == 3).count();
    println!("{had_a_place} of {} who left had been promoted a moment before", left.len());
}
