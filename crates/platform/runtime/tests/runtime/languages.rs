//! A refusal has a sentence for people, in a language that the caller reads, if the caller names one.

use contract::mypage::v1::WatchMyPageRequest;
use fault::{Language, Reason};
use prost_types::FileDescriptorSet;
use runtime::identity::Role;
use runtime::status::reason_of;
use tonic::{Request, Status};
use tonic_types::StatusExt as _;

use crate::support::{Running, instructed, options, raw, raw_call, soon};

/// The tag and the sentence of a status.
fn said(status: &Status) -> Option<(String, String)> {
    status.get_details_localized_message().map(|said| (said.locale, said.message))
}

/// The tag and the sentence that a refusal of this reason has in a language.
fn sentence(reason: Reason, language: Language) -> Option<(String, String)> {
    Some((language.tag().to_owned(), reason.sentence(language).to_owned()))
}

#[tokio::test]
async fn the_person_behind_the_caller_reads_their_language() {
    let server = Running::start(options()).await;
    let (mut sender, _driver) = raw(server.addr).await;
    let cases: [(&[&str], Option<Language>); 7] = [
        (&[], None),
        (&["ko-KR,ko;q=0.9,en;q=0.8"], Some(Language::Korean)),
        (&["en-US,en;q=0.9"], Some(Language::English)),
        (&["en;q=0.2,ko-KR;q=0.9"], Some(Language::Korean)),
        (&["fr", "ko;q=0.1"], Some(Language::Korean)),
        (&["fr"], None),
        (&["*"], Some(Language::English)),
    ];
    for (values, language) in cases {
        let headers: Vec<(&str, &str)> = values.iter().map(|value| ("accept-language", *value)).collect();
        // From a handler, from the guard against panics, and from the door before the caller is known.
        for (filter, extra, reason) in [
            ("refuse", None, Reason::FilterInvalid),
            ("panic", None, Reason::Internal),
            ("", Some(("authorization", "Bearer x")), Reason::CredentialsInvalid),
            ("", Some(("grpc-timeout", "soon")), Reason::FieldInvalid),
        ] {
            let headers: Vec<_> = headers.iter().copied().chain(extra).collect();
            let status = raw_call(&mut sender, filter, &headers).await;
            assert_eq!(reason_of(&status), Some(reason), "{status:?}");
            assert_eq!(said(&status), language.and_then(|language| sentence(reason, language)), "{values:?} {filter}");
            // The developers' message stays English.
            assert!(status.message().is_ascii(), "{status:?}");
        }
        assert_eq!(raw_call(&mut sender, "", &headers).await.code(), tonic::Code::Ok);
    }
}

#[tokio::test]
async fn a_stream_ends_in_their_language_too() {
    let server = Running::start(options()).await;
    let watch = |name: &str| {
        let mut request = Request::new(WatchMyPageRequest { name: name.to_owned(), ..WatchMyPageRequest::default() });
        request.metadata_mut().insert("accept-language", "ko".parse().unwrap());
        let token = server.token(Role::Customer, "kim");
        request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        request
    };
    let mut stream = server.my_page().watch_my_page(watch("panic")).await.unwrap().into_inner();
    let end = soon(async {
        loop {
            if let Err(status) = stream.message().await {
                break status;
            }
        }
    })
    .await;
    assert_eq!(said(&end), sentence(Reason::Internal, Language::Korean));
}

#[tokio::test]
async fn a_service_that_asks_another_says_nothing_for_people() {
    let server = Running::start(options()).await;
    let status = server.marketing().list_demand_signals(instructed("refuse")).await.unwrap_err();
    assert_eq!((reason_of(&status), said(&status)), (Some(Reason::FilterInvalid), None));
}

/// The metadata that the contract promises for each reason: the names in backquotes between `Metadata:` and the next
/// sentence of a reason's comment that is about the client.
fn promised() -> Vec<(Reason, Vec<String>)> {
    let set: FileDescriptorSet = prost::Message::decode(contract::DESCRIPTORS).unwrap();
    let file = set.file.iter().find(|file| file.package() == "checkup.error.v1").unwrap();
    let at = file.enum_type.iter().position(|found| found.name() == "Reason").unwrap();
    let comments = &file.source_code_info.as_ref().expect("descriptors with comments").location;
    let comment = |value: usize| {
        let path = [5, i32::try_from(at).unwrap(), 2, i32::try_from(value).unwrap()];
        let found = comments.iter().find(|location| location.path == path).expect("a comment");
        found.leading_comments().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let values = file.enum_type[at].value.iter().enumerate();
    let reasons = values.filter_map(|(number, value)| Some((Reason::from_name(value.name())?, comment(number))));
    let keys = |comment: String| {
        let (_, rest) = comment.split_once("Metadata:")?;
        let promise = rest.split(" The client ").next().unwrap_or_default();
        Some(promise.split('`').skip(1).step_by(2).map(str::to_owned).collect())
    };
    reasons.map(|(reason, comment)| (reason, keys(comment).unwrap_or_default())).collect()
}

#[test]
fn a_sentence_has_no_value_but_those_that_the_contract_promises() {
    let promised = promised();
    assert_eq!(promised.len(), Reason::ALL.len(), "every reason has a comment");
    let mut used = 0;
    for (reason, keys) in &promised {
        for language in Language::ALL {
            for part in reason.sentence(language).split('{').skip(1) {
                let key = part.split('}').next().unwrap();
                assert!(keys.iter().any(|promised| promised == key), "{}: {key} of {keys:?}", reason.name());
                used += 1;
            }
        }
    }
    assert!(used > 10, "{used} values in all sentences");
}
