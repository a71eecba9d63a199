//! The error table of the contract: every reason is provoked and carries everything that the contract promises.

mod order;
mod provoke;

use std::collections::BTreeMap;

use contract::marketing::v1::ProposeCapacityIncreaseRequest;
use fault::{Language, Reason};
use testkit::{Desk, Refusal, in_days, refused};
use tonic::Code;

/// The metadata that each reason always carries.
const METADATA: &[(Reason, &[&str])] = &[
    (Reason::FieldInvalid, &["field"]),
    (Reason::DateInvalid, &["field"]),
    (Reason::TimeZoneUnknown, &["field"]),
    (Reason::FilterInvalid, &["field"]),
    (Reason::PageTokenInvalid, &["field"]),
    (Reason::RequestIdMalformed, &["field"]),
    (Reason::RequestIdReused, &["requestId"]),
    (Reason::EtagRequired, &["field"]),
    (Reason::HospitalNotFound, &["hospital"]),
    (Reason::SlotNotFound, &["slot"]),
    (Reason::ScreeningNotFound, &["screening"]),
    (Reason::ReservationNotFound, &["reservation"]),
    (Reason::CapacityRequestNotFound, &["capacityRequest"]),
    (Reason::ClaimNotFound, &["claimId"]),
    (Reason::HospitalAlreadyExists, &["hospital"]),
    (Reason::SlotAlreadyExists, &["slot"]),
    (Reason::CustomerDateConflict, &["screening"]),
    (Reason::SlotFull, &["slot", "remaining", "waitlistOpen"]),
    (Reason::SlotClosed, &["slot"]),
    (Reason::HospitalDeleted, &["hospital"]),
    (Reason::HospitalHasBookings, &["hospital", "activeBookingCount"]),
    (Reason::DateInPast, &["today", "timeZone"]),
    (Reason::OutsideBookingWindow, &["today", "timeZone", "opensAt", "closesAt"]),
    (Reason::CancellationClosed, &["screening", "closesAt"]),
    (Reason::ScreeningStateInvalid, &["screening", "state"]),
    (Reason::CapacityBelowBooked, &["slot", "bookedCount", "requestedCapacity"]),
    (Reason::CapacityRequestDecided, &["capacityRequest", "state"]),
    (Reason::DateNotReached, &["screening", "today", "timeZone"]),
    (Reason::ClaimTerminated, &["claimId", "state"]),
    (Reason::WaitlistFull, &["slot", "waitlistLimit"]),
    (Reason::WaitlistClosed, &["slot", "closesAt", "timeZone"]),
    (Reason::RescheduleClosed, &["screening", "closesAt"]),
    (Reason::RescheduleLimitReached, &["screening", "limit"]),
    (Reason::CustomerLimitReached, &["hospital", "limit"]),
    (Reason::EtagMismatch, &["currentEtag"]),
    (Reason::RequestInProgress, &["requestId"]),
    (Reason::RateLimited, &["limit"]),
    (Reason::Overloaded, &[]),
    (Reason::HospitalUnavailable, &[]),
    (Reason::ViewLagging, &[]),
    (Reason::CredentialsMissing, &[]),
    (Reason::CredentialsInvalid, &[]),
    (Reason::NotOwner, &["resourceKind"]),
    (Reason::RoleRequired, &["requiredRole"]),
    (Reason::DeadlineExceeded, &[]),
];

/// Reasons that this module does not provoke, and the place that does or the reason why none can.
const ELSEWHERE: &[(Reason, &str)] = &[
    (Reason::RevocationInProgress, "needs a cancellation of thousands that is held up: Hospital's own tests see it"),
    (Reason::NotReady, "needs a process that is going: the stream and shutdown tests see it"),
    (Reason::StorageUnavailable, "needs a disk that is full: the storage tests see it"),
    (Reason::CursorExpired, "needs a stream that fell behind: the stream tests see it"),
    (Reason::Internal, "is a defect: no test may see it"),
];

/// Codes that a mesh counts as failures of the process that answers them.
const COUNTED_BY_THE_MESH: &[Code] = &[
    Code::Internal,
    Code::Unknown,
    Code::Unavailable,
    Code::DataLoss,
    Code::Cancelled,
    Code::DeadlineExceeded,
    Code::Unimplemented,
];

/// The only reasons with such a code. They do not refuse the request, but report trouble on the way.
const TROUBLE: &[Reason] = &[
    Reason::HospitalUnavailable,
    Reason::ViewLagging,
    Reason::NotReady,
    Reason::StorageUnavailable,
    Reason::DeadlineExceeded,
];

/// One refusal per reason that was provoked.
#[derive(Default)]
struct Seen(BTreeMap<Reason, Refusal>);

impl Seen {
    /// Checks a refusal against the table, and keeps it.
    #[track_caller]
    fn note(&mut self, refusal: Refusal) {
        let reason = Reason::from_name(&refusal.reason).unwrap_or_else(|| panic!("not of the contract: {refusal:?}"));
        check_shape(reason, &refusal);
        self.0.insert(reason, refusal);
    }
}

/// Checks the sentence for the person behind the caller. The parties of these tests read Korean first.
fn check_sentence(reason: Reason, refusal: &Refusal) {
    let (locale, sentence) = refusal.localized.as_ref().expect("a sentence in the caller's language");
    assert_eq!(locale, Language::Korean.tag(), "{refusal:#?}");
    assert!(!sentence.contains(['{', '}', '_']), "nothing of the inside: {refusal:#?}");
    let mut rest = sentence.as_str();
    for part in reason.sentence(Language::Korean).split('}') {
        let (text, key) = part.split_once('{').unwrap_or((part, ""));
        rest = rest.strip_prefix(text).unwrap_or_else(|| panic!("the sentence of the table: {refusal:#?}"));
        let value = match key {
            "" => continue,
            // An instant, which is written in the time zone of the hospital.
            "opensAt" | "closesAt" => &rest["2027-01-04 00:00".len()..],
            _ => rest.strip_prefix(refusal.value(key)).unwrap_or_else(|| panic!("{key}: {refusal:#?}")),
        };
        rest = value;
    }
    assert_eq!(rest, "", "{refusal:#?}");
}

fn check_shape(reason: Reason, refusal: &Refusal) {
    check_sentence(reason, refusal);
    let quota = refusal.quotas.iter().any(|(subject, limit)| !subject.is_empty() && !limit.is_empty());
    assert_eq!(quota, reason == Reason::RateLimited, "QuotaFailure: {refusal:#?}");
    let (_, keys) = METADATA.iter().find(|(listed, _)| *listed == reason).expect("a reason of the table");
    for key in *keys {
        assert!(!refusal.value(key).is_empty(), "{key} says something: {refusal:#?}");
    }
    for value in refusal.metadata.values().filter(|value| value.contains('/')) {
        assert!(!value.starts_with('/'), "a resource is named in full: {refusal:#?}");
    }
    match refusal.code {
        Code::InvalidArgument if reason != Reason::RequestIdReused => {
            let (field, first, description) = refusal.violations.first().expect("BadRequest names the field");
            assert_eq!((first.as_str(), field.as_str()), (reason.name(), refusal.value("field")), "{refusal:#?}");
            assert!(!description.is_empty());
        }
        Code::FailedPrecondition => {
            let kinds: Vec<&str> = refusal.preconditions.iter().map(|(kind, _)| kind.as_str()).collect();
            assert_eq!(kinds, [reason.name()], "PreconditionFailure has the reason for a type: {refusal:#?}");
        }
        Code::NotFound | Code::AlreadyExists => assert_names_a_resource(refusal),
        Code::Aborted if reason == Reason::EtagMismatch => assert_names_a_resource(refusal),
        _ => {}
    }
    let retry =
        matches!(refusal.code, Code::Unavailable | Code::ResourceExhausted) || reason == Reason::RequestInProgress;
    if retry {
        assert!(refusal.retry_after.is_some_and(|delay| !delay.is_zero()), "RetryInfo: {refusal:#?}");
    } else if reason != Reason::DeadlineExceeded {
        assert_eq!(refusal.retry_after, None, "what is not to be repeated says no delay: {refusal:#?}");
    }
}

fn assert_names_a_resource(refusal: &Refusal) {
    let named = refusal.resource.as_ref().is_some_and(|(kind, name)| !kind.is_empty() && !name.is_empty());
    assert!(named, "ResourceInfo names it: {refusal:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_reason_says_what_it_promises() {
    let mut seen = Seen::default();
    provoke::with_everything_up(&mut seen).await;
    provoke::at_the_door(&mut seen).await;
    provoke::without_hospital(&mut seen).await;
    provoke::with_a_slow_hospital(&mut seen).await;
    provoke::with_a_short_queue(&mut seen).await;
    provoke::with_a_small_share(&mut seen).await;

    for reason in Reason::ALL {
        let elsewhere = ELSEWHERE.iter().any(|(listed, _)| listed == reason);
        assert_eq!(seen.0.contains_key(reason), !elsewhere, "{}", reason.name());
    }
    for (reason, refusal) in &seen.0 {
        let counted = COUNTED_BY_THE_MESH.contains(&refusal.code);
        assert_eq!(counted, TROUBLE.contains(reason), "no business refusal looks like a sick pod: {refusal:#?}");
    }
}

/// Marketing asks Hospital for the caller, under a request_id of its own and in fields of another message.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_marketing_passes_on_speaks_of_the_caller_s_request() {
    let checkup = crate::launch().start().await;
    let slots = Desk::of(&checkup.admin().await).open("passing", &[7], 10).await;
    let marketing = checkup.service("marketing").await;
    let proposal = |slot: &str, additional_capacity| ProposeCapacityIncreaseRequest {
        slot: slot.to_owned(),
        additional_capacity,
        request_id: "7f2c1a9e-3b44-4c6e-9a51-0d8e6c1b2f30".to_owned(),
        ..ProposeCapacityIncreaseRequest::default()
    };
    let refusal = async |request, reason| {
        let answer = marketing.marketing().propose_capacity_increase(request).await;
        let refusal = refused(answer, reason);
        check_shape(reason, &refusal);
        refusal
    };
    let unknown = testkit::slot_name("hospitals/passing", in_days(Desk::ZONE, 8));
    let missing = refusal(proposal(&unknown, 5), Reason::SlotNotFound).await;
    assert_eq!(missing.resource, Some(("Slot".to_owned(), unknown)));
    let many = refusal(proposal(&slots[0], 99_999), Reason::FieldInvalid).await;
    assert_eq!(many.value("field"), "additional_capacity");
    marketing.marketing().propose_capacity_increase(proposal(&slots[0], 5)).await.expect("a proposal");
    let reused = refusal(proposal(&slots[0], 6), Reason::RequestIdReused).await;
    assert_eq!(reused.value("requestId"), proposal("", 1).request_id);
}
