//! The rules that `buf.validate` states in the contract are what the server enforces, no more and no less.
//!
//! Every field of every request is set to values around what its rules allow, and around limits that no rule states. A
//! judge that reads nothing but the rules says which of them each request breaks. The server must refuse those fields
//! and no others. The seed is printed; `CHECKUP_TEST_SEED` repeats a run.

mod judge;
mod requests;
mod values;
mod words;

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use contract::hospital::v1::WatchAvailabilityRequest;
use contract::mypage::v1::WatchMyPageRequest;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage, MethodDescriptor, Value};
use testkit::{Answer, Checkup, Party, RawMethod, Refusal, call_raw, seed, within};
use tonic::{Code, Response, Status, Streaming};

use self::judge::Broken;
use self::requests::{Scene, Target, base, cel_paths, targets};
use self::words::Words;
use crate::launch;

/// The deadline of a call that must be judged.
const DEADLINE: Duration = Duration::from_secs(20);
/// The reasons of a field that breaks a rule. A field that has another reason, for example DATE_INVALID, breaks what
/// the comments of the contract say in words.
const JUDGED: &[&str] = &["FIELD_INVALID", "REQUEST_ID_MALFORMED", "ETAG_REQUIRED"];

/// A request with one field set to a value of interest.
struct Case {
    method: MethodDescriptor,
    request: DynamicMessage,
    /// The path of the field.
    path: String,
    /// What the field is set to; `None` if it is cleared.
    value: Option<Value>,
}

impl Case {
    /// The value as text; empty if it is none.
    fn text(&self) -> &str {
        self.value.as_ref().and_then(Value::as_str).unwrap_or_default()
    }

    /// The case as a failure shows it.
    fn shown(&self) -> String {
        let mut value = format!("{:?}", self.value);
        if value.len() > 300 {
            value = value.chars().take(300).chain("…".chars()).collect();
        }
        format!("{} with {} = {value}", self.method.full_name(), self.path)
    }
}

/// A running process and a client for each role.
struct Server {
    _checkup: Checkup,
    parties: Vec<(&'static str, Party)>,
}

impl Server {
    async fn start() -> (Self, Scene) {
        let checkup = launch().start().await;
        let parties = vec![
            ("public", checkup.stranger().await),
            ("admin", checkup.admin().await),
            ("marketing", checkup.service("marketing").await),
            ("auditor", checkup.auditor().await),
            ("screening", checkup.service("screening").await),
        ];
        let scene = Scene::set(&checkup).await;
        (Self { _checkup: checkup, parties }, scene)
    }

    /// The fields that the server refuses, each with its reason.
    async fn refusals(&self, case: &Case) -> Vec<(String, String)> {
        let service = case.method.parent_service();
        let allowed = crate::identity::allowed(service.full_name(), case.method.name());
        let party = self.parties.iter().find(|(role, _)| allowed.contains(role));
        let (_, party) = party.unwrap_or_else(|| panic!("nobody may call {}", case.method.full_name()));
        let bytes = Bytes::from(case.request.encode_to_vec());
        let answer = if case.method.is_server_streaming() {
            let first = within(DEADLINE, "the first message of a stream", watch(party, case.method.name(), bytes));
            first.await
        } else {
            call_raw(party, &RawMethod::new(service.full_name(), case.method.name()), bytes, DEADLINE).await
        };
        let Answer::Refused(status) = answer else { return Vec::new() };
        let said = [
            Code::InvalidArgument,
            Code::NotFound,
            Code::AlreadyExists,
            Code::PermissionDenied,
            Code::FailedPrecondition,
            Code::Aborted,
        ];
        assert!(said.contains(&status.code()), "{}: {status:?}", case.shown());
        let refusal = Refusal::of(&status).filter(|refusal| refusal.code == Code::InvalidArgument);
        let violations = refusal.map(|refusal| refusal.violations).unwrap_or_default();
        violations.into_iter().map(|(field, reason, _)| (field, reason)).collect()
    }
}

/// Opens a stream, and reads its first message.
async fn watch(party: &Party, method: &str, request: Bytes) -> Answer {
    let first = match method {
        "WatchMyPage" => {
            let request = WatchMyPageRequest::decode(request).expect("a request of its type");
            first(party.my_page().watch_my_page(request).await).await
        }
        "WatchAvailability" => {
            let request = WatchAvailabilityRequest::decode(request).expect("a request of its type");
            first(party.hospital().watch_availability(request).await).await
        }
        other => panic!("teach this test the stream {other}"),
    };
    first.map_or_else(Answer::Refused, |()| Answer::Messages(Vec::new()))
}

/// The outcome of the first message of a stream.
async fn first<M>(opened: Result<Response<Streaming<M>>, Status>) -> Result<(), Status> {
    opened?.into_inner().message().await.map(drop)
}

/// What is wrong with an answer; `None` if the server judged as the rules say.
fn disagreement(case: &Case, broken: &Broken, refused: &[(String, String)], words: &mut Words) -> Option<String> {
    let named = |path: &String| refused.iter().any(|(field, _)| field == path);
    if let Some(path) = broken.paths().find(|path| !named(path)) {
        return Some(format!("{}: a rule of {path} is broken, and the server refuses {refused:?}", case.shown()));
    }
    let judged = refused.iter().filter(|(_, reason)| JUDGED.contains(&reason.as_str()));
    let more = judged.filter(|(field, _)| !broken.names(field)).find(|(field, _)| !words.say(case, field));
    more.map(|(field, reason)| format!("{}: the rules of {field} are kept, and the server says {reason}", case.shown()))
}

/// The cases of one field: its values, and the field without a value.
fn cases(method: &MethodDescriptor, base: &DynamicMessage, target: &Target, values: Vec<Value>) -> Vec<Case> {
    let values = [None].into_iter().chain(values.into_iter().map(Some));
    let made = values.map(|value| {
        let mut request = base.clone();
        target.set(&mut request, value.clone());
        Case { method: method.clone(), request, path: target.path(), value }
    });
    made.collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_annotations_say_is_what_the_server_enforces() {
    let mut random = seed("rules");
    let pool = DescriptorPool::decode(contract::DESCRIPTORS).expect("the contract's descriptors");
    let (server, scene) = Server::start().await;
    let (mut words, mut wrong, mut judged) = (Words::default(), Vec::new(), 0);
    for service in pool.services().filter(|service| service.full_name().starts_with("checkup.")) {
        for method in service.methods() {
            let base = base(&method.input(), &scene);
            let mut unbroken: BTreeSet<String> = cel_paths(&method.input()).into_iter().collect();
            for target in targets(&method.input()) {
                let (mut kept, mut broke) = (0, 0);
                for case in cases(&method, &base, &target, values::of(&target, &base, &mut random)) {
                    let broken = Broken::by(&case.request);
                    let refused = server.refusals(&case).await;
                    wrong.extend(disagreement(&case, &broken, &refused, &mut words));
                    if broken.names(&case.path) {
                        broke += 1
                    } else {
                        kept += 1
                    }
                    unbroken.retain(|path| !broken.names(path));
                }
                // A rule that no value keeps, or none breaks, would not be compared with anything.
                if target.has_rules() && (kept == 0 || broke == 0) {
                    let name = method.full_name();
                    wrong
                        .push(format!("{name}: {kept} values keep the rules of {}, {broke} break them", target.path()));
                }
                judged += kept + broke;
            }
            wrong.extend(
                unbroken.iter().map(|path| format!("{}: no value breaks the rule of {path}", method.full_name())),
            );
        }
    }
    println!("{judged} requests, {} disagreements", wrong.len());
    assert!(wrong.is_empty(), "{}", wrong.iter().take(40).map(|one| format!("\n{one}")).collect::<String>());
    assert_eq!(words.unused(), [""; 0], "what the words alone say, and no value shows");
}
