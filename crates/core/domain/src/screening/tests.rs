//! The table of transitions, and the invariants of any sequence of commands.

mod queue;

use contract::event::v1::event_envelope::Payload;
use fault::Reason;
use jiff::Timestamp;
use jiff::civil::date;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::ids::HospitalId;

pub(super) fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// 10:00 in Seoul on the day before the screening.
pub(super) fn before() -> Timestamp {
    at("2027-01-03T01:00:00Z")
}

pub(super) fn slot() -> SlotId {
    SlotId::parse("hospitals/seoul/slots/2027-01-04").unwrap()
}

pub(super) fn booking() -> Booking {
    Booking {
        id: ScreeningId(Uuid::from_u128(1)),
        customer: CustomerId::from_segment("kim").unwrap(),
        customer_display_name: "김".into(),
        slot: slot(),
        joins_waitlist: false,
    }
}

pub(super) fn terms() -> Terms {
    Terms {
        hospital_display_name: "서울".into(),
        time_zone: "Asia/Seoul".into(),
        cancellation_close_time: Some(at("2027-01-03T15:00:00Z")),
        reschedule_limit: Some(3),
        customer_limit: None,
    }
}

pub(super) fn other() -> ScreeningId {
    ScreeningId(Uuid::from_u128(2))
}

pub(super) fn row(state: State) -> Screening {
    let confirmed = apply(None, &Event::Confirmed(booking(), terms()), before());
    let waits = matches!(state, State::Waitlisted | State::Expired);
    Screening { state, queued: waits.then(queued), ..confirmed }
}

/// A place in a queue from which nobody gets a place in the last 12 hours.
pub(super) fn queued() -> Queued {
    Queued { position: 3, closes_at: at("2027-01-03T03:00:00Z") }
}

fn fence() -> Screening {
    apply(None, &Event::Rejected(booking().claim(), slot(), Reason::HospitalUnavailable), before())
}

fn revoke() -> Command {
    Command::Revoke {
        claim: booking().claim(),
        slot: slot(),
        cause: Revocation::HospitalDeleted,
        message: "closing down".into(),
    }
}

fn cancel(by: Party) -> Command {
    Command::Cancel { by, message: "a cold".into(), etag: String::new() }
}

/// The state after a command, or the reason of its refusal; `None` if nothing changes.
fn outcome(row: Option<&Screening>, command: &Command, now: Timestamp) -> Result<Option<State>, Reason> {
    match decide(row, command, now) {
        Ok(Decision::Change(event) | Decision::Refuse(event, _)) => Ok(Some(apply(row, &event, now).state)),
        Ok(Decision::Keep | Decision::Fenced | Decision::Ignore(_)) => Ok(None),
        Err(fault) => Err(fault.reason()),
    }
}

#[test]
fn the_contracts_table_of_transitions() {
    let confirm = Command::Confirm { booking: booking(), terms: terms(), conflict: None };
    let give_up = Command::GiveUp { reason: Reason::SlotFull };
    let complete = Command::Complete { etag: String::new() };
    let no_show = Command::MarkNoShow { etag: String::new() };
    let join = Command::Queue { booking: booking(), terms: terms(), queued: queued(), conflict: None };
    let after = at("2027-01-05T00:00:00Z");
    let that_day = at("2027-01-04T10:00:00Z");
    let wrong = Err(Reason::ScreeningStateInvalid);
    use State::{Cancelled, Completed, Confirmed, Expired, ForceCancelled, NoShow, Rejected, Waitlisted};
    for state in State::ALL {
        let row = row(*state);
        let row = Some(&row);
        let by_state = |pending, confirmed, waitlisted, no_show, ended| match state {
            State::Pending => pending,
            Confirmed => confirmed,
            Waitlisted => waitlisted,
            NoShow => no_show,
            Cancelled | ForceCancelled | Rejected | Completed | Expired => ended,
        };
        let (kept, to) = (Ok(None), |state| Ok(Some(state)));
        assert_eq!(outcome(row, &confirm, before()), by_state(to(Confirmed), kept, to(Confirmed), kept, kept));
        assert_eq!(outcome(row, &join, before()), by_state(to(Waitlisted), kept, kept, kept, kept));
        assert_eq!(outcome(row, &Command::Expire, before()), kept, "it may still get a place");
        assert_eq!(outcome(row, &Command::Expire, that_day), by_state(kept, kept, to(Expired), kept, kept));
        assert_eq!(outcome(row, &give_up, before()), by_state(to(State::Pending), kept, kept, kept, kept));
        assert_eq!(outcome(row, &Command::Reject, before()), kept);
        let cancelled = by_state(to(Cancelled), to(Cancelled), to(Cancelled), wrong, wrong);
        assert_eq!(outcome(row, &cancel(Party::Customer), before()), cancelled);
        assert_eq!(outcome(row, &cancel(Party::Admin), that_day), cancelled);
        let forced = by_state(to(ForceCancelled), to(ForceCancelled), to(ForceCancelled), kept, kept);
        assert_eq!(outcome(row, &revoke(), before()), forced);
        let completed = by_state(wrong, to(Completed), wrong, to(Completed), wrong);
        assert_eq!(outcome(row, &complete, after), completed);
        assert_eq!(outcome(row, &no_show, after), by_state(wrong, to(NoShow), wrong, wrong, wrong));
    }
}

#[test]
fn a_new_booking_is_confirmed_parked_or_given_back() {
    let confirm = |conflict| Command::Confirm { booking: booking(), terms: terms(), conflict };
    let park = |conflict| Command::Park { booking: booking(), terms: Terms::default(), conflict };
    assert_eq!(outcome(None, &confirm(None), before()), Ok(Some(State::Confirmed)));
    assert_eq!(outcome(None, &park(None), before()), Ok(Some(State::Pending)));
    assert_eq!(outcome(None, &park(Some(Conflict::Date(other()))), before()), Err(Reason::CustomerDateConflict));
    let Ok(Decision::Refuse(event, fault)) = decide(None, &confirm(Some(Conflict::Date(other()))), before()) else {
        panic!()
    };
    assert_eq!(fault.metadata()["screening"], other().to_string());
    let given_back = apply(None, &event, before());
    assert!(given_back.is_fence());
    let [(1, Payload::ScreeningRejected(fact))] = &facts(&given_back, &event)[..] else { panic!() };
    assert_eq!(fact.claim_id, booking().claim().to_string());
    assert_eq!(fact.screening.as_ref().unwrap().customer, "");
}

#[test]
fn a_booking_above_the_limit_gives_its_place_back_and_one_that_counted_before_keeps_it() {
    let limit = Some(Conflict::Limit(2));
    let confirm = Command::Confirm { booking: booking(), terms: terms(), conflict: limit };
    let join = Command::Queue { booking: booking(), terms: terms(), queued: queued(), conflict: limit };
    for command in [&confirm, &join] {
        let Ok(Decision::Refuse(event, fault)) = decide(None, command, before()) else { panic!() };
        assert_eq!((fault.reason(), fault.metadata()["limit"].as_str()), (Reason::CustomerLimitReached, "2"));
        assert_eq!(fault.metadata()["hospital"], "hospitals/seoul");
        assert_eq!(apply(None, &event, before()).state_reason, "CUSTOMER_LIMIT_REACHED");
        // a PENDING one is judged only now
        let given_up = Ok(Decision::Change(Event::GivenUp(Reason::CustomerLimitReached)));
        assert_eq!(decide(Some(&row(State::Pending)), command, before()), given_up);
    }
    assert_eq!(outcome(Some(&row(State::Waitlisted)), &confirm, before()), Ok(Some(State::Confirmed)));
}

#[test]
fn a_row_keeps_no_limit_that_was_judged() {
    let limited = Terms { customer_limit: Some(2), ..terms() };
    let booked = apply(None, &Event::Confirmed(booking(), limited), before());
    assert_eq!(booked.terms, terms());
}

#[test]
fn a_given_up_booking_is_not_confirmed_any_more() {
    let give_up = Event::GivenUp(Reason::SlotFull);
    let pending = row(State::Pending);
    let given_up = apply(Some(&pending), &give_up, before());
    assert_eq!((given_up.state, given_up.version), (State::Pending, pending.version));
    assert_eq!(facts(&given_up, &give_up), []);
    let confirm = Command::Confirm { booking: booking(), terms: terms(), conflict: None };
    assert_eq!(decide(Some(&given_up), &confirm, before()), Ok(Decision::Keep));
    assert_eq!(outcome(Some(&given_up), &Command::Reject, before()), Ok(Some(State::Rejected)));
    assert_eq!(outcome(Some(&given_up), &cancel(Party::Customer), before()), Ok(Some(State::Cancelled)));
    assert_eq!(outcome(Some(&given_up), &revoke(), before()), Ok(Some(State::ForceCancelled)));
    let Ok(Decision::Change(event)) = decide(Some(&given_up), &Command::Reject, before()) else { panic!() };
    assert_eq!(apply(Some(&given_up), &event, before()).state_reason, "SLOT_FULL");
}

#[test]
fn a_fence_keeps_a_late_commit_out() {
    for fence in [
        fence(),
        apply(
            None,
            &Event::ForceCancelled(booking().claim(), slot(), Revocation::SlotCancelled, String::new()),
            before(),
        ),
    ] {
        let confirm = Command::Confirm { booking: booking(), terms: terms(), conflict: None };
        let park = Command::Park { booking: booking(), terms: terms(), conflict: None };
        assert_eq!(decide(Some(&fence), &confirm, before()), Ok(Decision::Fenced));
        assert_eq!(decide(Some(&fence), &park, before()), Ok(Decision::Fenced));
        let again = Command::Fence { claim: booking().claim(), slot: slot() };
        assert_eq!(decide(Some(&fence), &again, before()), Ok(Decision::Keep));
    }
}

#[test]
fn the_cut_off_binds_customers_and_not_admins() {
    let row = row(State::Confirmed);
    let close = at("2027-01-03T15:00:00Z");
    let just_before = close - jiff::SignedDuration::from_micros(1);
    assert_eq!(outcome(Some(&row), &cancel(Party::Customer), just_before), Ok(Some(State::Cancelled)));
    let refused = decide(Some(&row), &cancel(Party::Customer), close).unwrap_err();
    assert_eq!(refused.reason(), Reason::CancellationClosed);
    assert_eq!(refused.metadata()["closesAt"], "2027-01-03T15:00:00Z");
    assert_eq!(outcome(Some(&row), &cancel(Party::Admin), close), Ok(Some(State::Cancelled)));
}

#[test]
fn nobody_cancels_what_is_over() {
    let ends = at("2027-01-04T15:00:00Z");
    let moment = jiff::SignedDuration::from_micros(1);
    let confirmed = row(State::Confirmed);
    assert_eq!(outcome(Some(&confirmed), &cancel(Party::Admin), ends - moment), Ok(Some(State::Cancelled)));
    assert_eq!(outcome(Some(&confirmed), &cancel(Party::Admin), ends), Err(Reason::DateInPast));
    assert_eq!(outcome(Some(&confirmed), &cancel(Party::Customer), ends), Err(Reason::CancellationClosed));
    // A revocation by Hospital, and a booking without a place, do not depend on the date.
    assert_eq!(outcome(Some(&confirmed), &revoke(), ends), Ok(Some(State::ForceCancelled)));
    let pending = Screening { terms: Terms::default(), ..row(State::Pending) };
    for party in [Party::Admin, Party::Customer] {
        assert_eq!(outcome(Some(&pending), &cancel(party), ends), Ok(Some(State::Cancelled)));
    }
}

#[test]
fn nothing_is_parked_on_a_date_that_is_over() {
    let park = |terms| Command::Park { booking: booking(), terms, conflict: None };
    let ends = at("2027-01-04T15:00:00Z");
    let ends_everywhere = at("2027-01-05T12:00:00Z");
    let moment = jiff::SignedDuration::from_micros(1);
    assert_eq!(outcome(None, &park(terms()), ends - moment), Ok(Some(State::Pending)));
    assert_eq!(outcome(None, &park(terms()), ends), Err(Reason::DateInPast));
    assert_eq!(outcome(None, &park(Terms::default()), ends_everywhere - moment), Ok(Some(State::Pending)));
    let refused = decide(None, &park(Terms::default()), ends_everywhere).unwrap_err();
    assert_eq!((refused.reason(), refused.metadata()["timeZone"].as_str()), (Reason::DateInPast, "Etc/GMT+12"));
}

#[test]
fn attendance_waits_for_the_date_where_the_hospital_is() {
    let row = row(State::Confirmed);
    let complete = Command::Complete { etag: String::new() };
    let no_show = Command::MarkNoShow { etag: String::new() };
    let begins = at("2027-01-03T15:00:00Z");
    let ends = at("2027-01-04T15:00:00Z");
    let moment = jiff::SignedDuration::from_micros(1);
    assert_eq!(outcome(Some(&row), &complete, begins - moment), Err(Reason::DateNotReached));
    assert_eq!(outcome(Some(&row), &complete, begins), Ok(Some(State::Completed)));
    let refused = decide(Some(&row), &no_show, ends - moment).unwrap_err();
    assert_eq!(refused.reason(), Reason::DateNotReached);
    assert_eq!(refused.metadata()["today"], date(2027, 1, 4).to_string());
    assert_eq!(refused.metadata()["timeZone"], "Asia/Seoul");
    assert_eq!(outcome(Some(&row), &no_show, ends), Ok(Some(State::NoShow)));
}

#[test]
fn a_stale_etag_changes_nothing() {
    let row = row(State::Confirmed);
    let after = at("2027-01-06T00:00:00Z");
    let stale = || "\"9\"".to_owned();
    for command in [
        Command::Cancel { by: Party::Admin, message: String::new(), etag: stale() },
        Command::Complete { etag: stale() },
        Command::MarkNoShow { etag: stale() },
        Command::Rename { name: Some("이".into()), etag: stale() },
        Command::Rename { name: None, etag: stale() },
    ] {
        let refused = decide(Some(&row), &command, after).unwrap_err();
        assert_eq!(refused.reason(), Reason::EtagMismatch);
        assert_eq!(refused.resource().unwrap().name, row.id.to_string());
    }
}

fn any_conflict() -> impl Strategy<Value = Option<Conflict>> {
    prop_oneof![3 => Just(None), 1 => Just(Some(Conflict::Date(other()))), 1 => Just(Some(Conflict::Limit(2)))]
}

/// A move to another date, or to the own one.
fn any_move() -> impl Strategy<Value = Command> {
    let party = prop_oneof![Just(Party::Customer), Just(Party::Admin)];
    let etag = prop_oneof![3 => Just(String::new()), 1 => (1..6_i64).prop_map(crate::token::etag)];
    (party, etag, any_conflict(), 4..7_i8, 1..7_i32).prop_map(|(by, etag, conflict, day, generation)| {
        let slot = SlotId { date: date(2027, 1, day), ..slot() };
        let asked = Reschedule { by, slot, message: "why".into(), etag };
        Command::Reschedule { asked, generation, terms: terms(), conflict }
    })
}

fn any_command() -> impl Strategy<Value = Command> {
    let conflict = any_conflict;
    let etag = || prop_oneof![3 => Just(String::new()), 1 => (1..6_i64).prop_map(crate::token::etag)];
    let party = prop_oneof![Just(Party::Customer), Just(Party::Admin)];
    let name = prop_oneof![Just(None), Just(Some("이".to_owned())), Just(Some(String::new()))];
    prop_oneof![
        conflict().prop_map(|conflict| Command::Confirm { booking: booking(), terms: terms(), conflict }),
        conflict().prop_map(|conflict| Command::Park { booking: booking(), terms: Terms::default(), conflict }),
        conflict()
            .prop_map(|conflict| { Command::Queue { booking: booking(), terms: terms(), queued: queued(), conflict } }),
        Just(Command::Expire),
        Just(Command::GiveUp { reason: Reason::SlotFull }),
        Just(Command::Reject),
        (1..7_i32).prop_map(|generation| {
            Command::Fence { claim: ClaimId { generation, ..booking().claim() }, slot: slot() }
        }),
        any_move(),
        any_move(),
        (1..7_i32).prop_map(|generation| {
            let claim = ClaimId { generation, ..booking().claim() };
            let (cause, message) = (Revocation::SlotCancelled, String::new());
            Command::Revoke { claim, slot: slot(), cause, message }
        }),
        (party, etag()).prop_map(|(by, etag)| Command::Cancel { by, message: "why".into(), etag }),
        (name, etag()).prop_map(|(name, etag)| Command::Rename { name, etag }),
        etag().prop_map(|etag| Command::Complete { etag }),
        etag().prop_map(|etag| Command::MarkNoShow { etag }),
        Just(revoke()),
    ]
}

/// Whether the contract's table lists this transition.
fn listed(from: Option<State>, to: State) -> bool {
    use State::{Cancelled, Completed, Confirmed, Expired, ForceCancelled, NoShow, Pending, Rejected, Waitlisted};
    match from {
        None => matches!(to, Confirmed | Pending | Waitlisted | Rejected | ForceCancelled),
        Some(Pending) => matches!(to, Confirmed | Waitlisted | Rejected | Cancelled | ForceCancelled),
        Some(Waitlisted) => matches!(to, Confirmed | Cancelled | ForceCancelled | Expired),
        Some(Confirmed) => matches!(to, Confirmed | Cancelled | ForceCancelled | Completed | NoShow),
        Some(NoShow) => to == Completed,
        Some(Cancelled | ForceCancelled | Rejected | Completed | Expired) => false,
    }
}

proptest! {
    #[test]
    fn any_history_is_contiguous_and_never_resurrects(
        commands in prop::collection::vec((any_command(), 0..72_i64), 1..24)
    ) {
        let mut row: Option<Screening> = None;
        for (command, hours) in commands {
            // A person can only command a booking that they can see.
            let visible = row.as_ref().is_some_and(|row| !row.is_fence());
            let needs_row = matches!(
                command,
                Command::Cancel { .. }
                    | Command::Complete { .. }
                    | Command::MarkNoShow { .. }
                    | Command::Rename { .. }
                    | Command::Reschedule { .. }
            );
            if needs_row && !visible {
                continue;
            }
            let now = before() + jiff::SignedDuration::from_hours(hours);
            let (event, refused) = match decide(row.as_ref(), &command, now) {
                Ok(Decision::Change(event)) => (event, false),
                Ok(Decision::Refuse(event, _)) => (event, true),
                Ok(Decision::Keep | Decision::Fenced | Decision::Ignore(_)) | Err(_) => continue,
            };
            let next = apply(row.as_ref(), &event, now);
            let facts = facts(&next, &event);
            let Some((_, fact)) = facts.last() else {
                // one that gives up, renames or fences a claim: no state, version or etag changes without a fact
                let before = row.clone().expect("a row that is given up, renamed or fenced");
                let Screening { given_up, update_time, .. } = before;
                let customer_display_name = before.customer_display_name.clone();
                let fenced_generation = next.fenced_generation;
                prop_assert!(before.fenced_generation <= fenced_generation);
                let kept =
                    Screening { given_up, update_time, customer_display_name, fenced_generation, ..next.clone() };
                prop_assert_eq!(Screening { fenced_generation, ..before }, kept);
                row = Some(next);
                continue;
            };
            let moved = matches!(event, Event::Rescheduled { .. });
            prop_assert!(listed(row.as_ref().map(|row| row.state), next.state));
            let before = row.as_ref().map_or(0, |row| row.version);
            let versions: Vec<i64> = facts.iter().map(|(version, _)| *version).collect();
            prop_assert_eq!(versions, if moved { vec![before + 1, before + 2] } else { vec![before + 1] });
            prop_assert_eq!(facts.last().map(|(version, _)| *version), Some(next.version));
            prop_assert!(next.update_time >= next.create_time);
            prop_assert!(!(refused && next.state.is_active()));
            if let Some(row) = &row {
                prop_assert_eq!(row.is_fence(), next.is_fence());
                // what a call asked for earlier does not undo a correction
                prop_assert_eq!(&row.customer_display_name, &next.customer_display_name);
                prop_assert_eq!((row.id, row.create_time), (next.id, next.create_time));
                prop_assert_eq!(moved, row.slot != next.slot);
                prop_assert_eq!(moved, row.generation != next.generation);
                prop_assert!(!moved || next.generation >= row.next_claim().generation);
            }
            prop_assert!(next.given_up.is_none() || !matches!(next.state, State::Confirmed | State::Waitlisted));
            queue::check_queued(row.as_ref(), &next, fact)?;
            row = Some(next);
        }
    }
}

#[test]
fn a_booking_is_seen_by_its_customer_and_its_hospital_and_a_fence_by_nobody() {
    let customer = |id| Scope::Customer(CustomerId::from_segment(id).unwrap());
    let hospitals = |id| Scope::Hospitals([HospitalId::from_segment(id).unwrap()].into());
    let admitted = [Scope::Everything, customer("kim"), hospitals("seoul")];
    let booked = row(State::Confirmed);
    assert!(admitted.iter().all(|scope| booked.is_visible(scope)));
    assert!(![customer("lee"), hospitals("busan")].iter().any(|scope| booked.is_visible(scope)));
    assert!(!admitted.iter().any(|scope| fence().is_visible(scope)));
}
