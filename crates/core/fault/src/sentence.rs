//! A sentence per reason, in Korean and in English, for the people who use this system.
//!
//! `Status.message` is for developers: it is English, and names fields and resources. These sentences are for whoever
//! looks at a screen. They say what happened and what to do next, and no word of the inside. `{key}` stands for a value
//! of the fault's metadata, one that the contract promises for the reason and that people can read: a date, an instant,
//! a number, a time zone. Names of resources and states are none of these.

use crate::Reason;

/// A language that the sentences are in, named in `accept-language` by its [`Language::tag`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// `ko`, and every region of it.
    Korean,
    /// `en`, and every region of it.
    English,
}

impl Language {
    /// Each language once, in the order of its number.
    pub const ALL: [Self; 2] = [Self::Korean, Self::English];

    /// The BCP 47 tag, a primary language without a region.
    #[must_use]
    pub const fn tag(self) -> &'static str {
        match self {
            Self::Korean => "ko",
            Self::English => "en",
        }
    }
}

macro_rules! sentences {
    ($($reason:ident: $korean:literal, $english:literal;)+) => {
        impl Reason {
            /// The sentence for people, with `{key}` for a value of the metadata.
            #[must_use]
            pub const fn sentence(self, language: Language) -> &'static str {
                // Without a wildcard, so that a new reason does not compile until it has its sentences.
                let [korean, english] = match self {
                    $(Self::$reason => [$korean, $english],)+
                };
                match language {
                    Language::Korean => korean,
                    Language::English => english,
                }
            }
        }
    };
}

sentences! {
    FieldInvalid: "입력한 내용에 잘못된 부분이 있습니다. 확인하고 고쳐 주세요.",
        "Something that was entered is not valid. Please check it and correct it.";
    DateInvalid: "없는 날짜이거나 날짜가 다 입력되지 않았습니다. 날짜를 확인해 주세요.",
        "This date does not exist or is incomplete. Please check the date.";
    TimeZoneUnknown: "알 수 없는 시간대입니다. Asia/Seoul과 같은 이름으로 입력해 주세요.",
        "This time zone is not known. Please enter a name such as Asia/Seoul.";
    FilterInvalid: "검색 조건을 이해할 수 없습니다. 조건을 고쳐 주세요.",
        "The search condition cannot be understood. Please change it.";
    PageTokenInvalid: "목록을 이어서 볼 수 없습니다. 처음부터 다시 조회해 주세요.",
        "The list cannot be continued. Please start again from its beginning.";
    RequestIdMalformed: "요청이 올바르지 않아 처리하지 않았습니다. 다시 시도해 주세요.",
        "The request was not valid, so nothing was done. Please try again.";
    RequestIdReused: "같은 요청이 다른 내용으로 이미 접수되었습니다. 새로 요청해 주세요.",
        "This request was made before with other content. Please make a new request.";
    EtagRequired: "최신 내용을 확인한 뒤에 바꿀 수 있습니다. 다시 불러온 뒤 시도해 주세요.",
        "This can be changed only after its latest state was seen. Please load it again, then change it.";
    HospitalNotFound: "병원을 찾을 수 없습니다.", "The hospital was not found.";
    SlotNotFound: "이 병원에서 검진 예약을 받지 않는 날짜입니다. 다른 날짜를 선택해 주세요.",
        "The hospital offers no screening on this date. Please choose another date.";
    ScreeningNotFound: "예약을 찾을 수 없습니다.", "The booking was not found.";
    ReservationNotFound: "예약 내역을 찾을 수 없습니다. 방금 예약했다면 잠시 뒤에 다시 확인해 주세요.",
        "The reservation was not found. If it was made just now, please look again in a moment.";
    CapacityRequestNotFound: "정원을 늘려 달라는 요청을 찾을 수 없습니다.", "The request for more places was not found.";
    ClaimNotFound: "확보된 자리를 찾을 수 없습니다.", "No place is held.";
    HospitalAlreadyExists: "이미 사용 중인 병원 아이디입니다. 다른 아이디를 선택해 주세요.",
        "This hospital id is taken. Please choose another one.";
    SlotAlreadyExists: "이미 등록된 날짜입니다. 필요하면 정원을 바꿔 주세요.",
        "This date is registered already. If needed, change its capacity.";
    CustomerDateConflict: "같은 날짜에 이미 예약이 있습니다. 하루에 한 건만 예약할 수 있습니다.",
        "There is a booking on this date already. Only one booking a day is possible.";
    SlotFull: "이 날짜는 예약이 모두 찼습니다. 다른 날짜나 병원을 선택해 주세요.",
        "Every place on this date is taken. Please choose another date or hospital.";
    SlotClosed: "이 날짜는 예약을 받지 않습니다. 다른 날짜나 병원을 선택해 주세요.",
        "This date takes no new bookings. Please choose another date or hospital.";
    HospitalDeleted: "이 병원은 더 이상 예약을 받지 않습니다. 다른 병원을 선택해 주세요.",
        "This hospital takes no more bookings. Please choose another hospital.";
    HospitalHasBookings: "아직 유효한 예약이 {activeBookingCount}건 있어 병원을 삭제하지 않았습니다.",
        "The hospital still has active bookings ({activeBookingCount}), so it was not deleted.";
    DateInPast: "이미 지난 날짜입니다. 오늘은 {today}입니다. 다른 날짜를 선택해 주세요.",
        "This date has passed; today is {today}. Please choose a later date.";
    OutsideBookingWindow: "이 날짜는 지금 예약할 수 없습니다. 예약 기간은 {opensAt}부터 {closesAt}까지입니다({timeZone}).",
        "This date cannot be booked now. It can be booked from {opensAt} until {closesAt} ({timeZone}).";
    CancellationClosed: "취소할 수 있는 기한이 지났습니다. 병원에 문의해 주세요.",
        "It is too late to cancel. Please ask the hospital.";
    ScreeningStateInvalid: "예약의 지금 상태에서는 할 수 없습니다. 예약 상태를 확인해 주세요.",
        "The current state of the booking does not allow this. Please check the booking.";
    CapacityBelowBooked: "이미 {bookedCount}명이 예약되어 있어 정원을 {requestedCapacity}명으로 바꿀 수 없습니다.",
        "{bookedCount} places are booked already, so the capacity cannot become {requestedCapacity}.";
    CapacityRequestDecided: "이미 처리되었거나 기한이 지난 요청입니다.",
        "This request for more places was decided before, or has expired.";
    DateNotReached: "아직 기록할 수 있는 날짜가 아닙니다. 오늘은 {today}입니다.",
        "It is too early to record this; today is {today}.";
    ClaimTerminated: "이미 반환된 자리라 다시 사용할 수 없습니다.", "This place was given back and cannot be used again.";
    WaitlistFull: "대기 인원이 가득 찼거나 대기를 받지 않는 병원입니다. 다른 날짜를 선택해 주세요.",
        "The waitlist of this date is full, or the hospital has none. Please choose another date.";
    WaitlistClosed: "이 날짜의 대기 접수는 {closesAt}에 끝났습니다. 다른 날짜를 선택해 주세요.",
        "The waitlist of this date closed at {closesAt}. Please choose another date.";
    RescheduleClosed: "예약을 옮길 수 있는 기한이 지났습니다. 병원에 문의해 주세요.",
        "It is too late to move the booking. Please ask the hospital.";
    RescheduleLimitReached: "예약은 {limit}번까지만 옮길 수 있습니다. 병원에 문의해 주세요.",
        "The booking can be moved {limit} times at most. Please ask the hospital.";
    CustomerLimitReached: "이 병원에는 예약을 {limit}건까지만 할 수 있습니다. 다른 예약을 먼저 취소해 주세요.",
        "You can have {limit} bookings at this hospital at most. Please cancel another one first.";
    EtagMismatch: "그사이에 내용이 바뀌었습니다. 다시 불러온 뒤 시도해 주세요.",
        "This was changed in the meantime. Please load it again, then decide again.";
    RequestInProgress: "같은 요청을 처리하고 있습니다. 잠시 뒤에 다시 시도해 주세요.",
        "The same request is being worked on. Please try again in a moment.";
    RevocationInProgress: "이 날짜의 예약이 아직 취소되고 있습니다. 잠시 후 다시 시도해 주세요.",
        "The bookings of this date are still being cancelled. Please try again in a moment.";
    RateLimited: "한꺼번에 너무 많은 요청을 보냈습니다. 잠시 뒤에 다시 시도해 주세요.",
        "Too many requests were sent at once. Please try again in a moment.";
    Overloaded: "지금 이용자가 많습니다. 잠시 뒤에 다시 시도해 주세요.",
        "The service is very busy. Please try again in a moment.";
    HospitalUnavailable: "결과를 아직 확인하지 못했습니다. 잠시 뒤에 다시 시도해 주세요.",
        "The outcome is not known yet. Please try the same again in a moment.";
    ViewLagging: "최신 내용이 아직 반영되지 않았습니다. 잠시 뒤에 다시 확인해 주세요.",
        "The latest change does not show yet. Please look again in a moment.";
    NotReady: "서비스를 준비하고 있습니다. 잠시 뒤에 다시 시도해 주세요.",
        "The service is not ready at the moment. Please try again soon.";
    StorageUnavailable: "지금은 처리할 수 없습니다. 잠시 뒤에 다시 시도해 주세요.",
        "This cannot be done at the moment. Please try again soon.";
    CredentialsMissing: "로그인이 필요합니다.", "Please sign in.";
    CredentialsInvalid: "로그인 정보가 올바르지 않거나 만료되었습니다. 다시 로그인해 주세요.",
        "The sign-in is not valid or has expired. Please sign in again.";
    NotOwner: "다른 사람의 것이거나 없는 항목입니다.", "This belongs to somebody else, or does not exist.";
    RoleRequired: "이 일을 할 권한이 없습니다.", "You are not permitted to do this.";
    DeadlineExceeded: "시간 안에 끝나지 않았습니다. 이미 처리되었을 수 있으니 확인한 뒤 다시 시도해 주세요.",
        "This took too long. It may have been done all the same: please check, then try again.";
    CursorExpired: "너무 오래되어 이어서 볼 수 없습니다. 새로 불러와 주세요.",
        "This is too old to be continued. Please load it anew.";
    Internal: "문제가 발생했습니다. 계속되면 알려 주세요.",
        "Something went wrong on our side. Please report it if it happens again.";
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    /// Words that only those know who built the system, as whole words of English sentences.
    const INTERNAL: [&str; 16] = [
        "slot",
        "claim",
        "etag",
        "token",
        "cursor",
        "field",
        "filter",
        "metadata",
        "request_id",
        "grpc",
        "replica",
        "queue",
        "writer",
        "outbox",
        "database",
        "storage",
    ];

    fn keys(sentence: &str) -> BTreeSet<&str> {
        sentence.split('{').skip(1).map(|rest| rest.split_once('}').expect("a closed placeholder").0).collect()
    }

    #[test]
    fn every_reason_is_said_in_every_language_with_the_same_values() {
        let hangul = |character: char| ('가'..='힣').contains(&character);
        let mut said = BTreeSet::new();
        for reason in Reason::ALL {
            let [korean, english] = Language::ALL.map(|language| reason.sentence(language));
            assert!(korean.chars().any(hangul), "{}: {korean}", reason.name());
            assert!(english.is_ascii() && english.contains(' '), "{}: {english}", reason.name());
            for sentence in [korean, english] {
                assert!(sentence.ends_with('.'), "{}: {sentence}", reason.name());
                assert!(said.insert(sentence), "said for two reasons: {sentence}");
            }
            assert_eq!(keys(korean), keys(english), "{}", reason.name());
        }
    }

    #[test]
    fn no_sentence_has_a_word_of_the_inside() {
        for reason in Reason::ALL {
            let english = reason.sentence(Language::English);
            let words = english.split(|character: char| !character.is_alphanumeric() && character != '_');
            for word in words.map(str::to_lowercase) {
                assert!(!INTERNAL.contains(&word.as_str()), "{}: {word} in {english}", reason.name());
            }
            for language in Language::ALL {
                let sentence = reason.sentence(language);
                assert!(!Reason::ALL.iter().any(|other| sentence.contains(other.name())), "{sentence}");
            }
        }
    }
}
