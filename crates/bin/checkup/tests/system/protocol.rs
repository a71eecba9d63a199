//! The layers below the methods: HTTP, the headers of a call, reflection and health. A process with all services and
//! the gateway of a mesh behave alike.

use std::time::Duration;

use contract::hospital::v1 as hospital;
use fault::Reason;
use futures::StreamExt;
use hospital::{CreateHospitalRequest, GetHospitalRequest, Hospital};
use testkit::{Checkup, Exchange, Topology, Wire, refused, wait_limit, within};
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::{embedded, launch};

const LIST: &str = "/checkup.hospital.v1.HospitalService/ListHospitals";
const CREATE: &str = "/checkup.hospital.v1.HospitalService/CreateHospital";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const NOTHING: &str = "/checkup.nothing.v1.NothingService/Nothing";

/// A message with its gRPC frame.
fn framed(message: &impl prost::Message) -> Vec<u8> {
    let bytes = message.encode_to_vec();
    [&[0][..], &u32::try_from(bytes.len()).expect("small").to_be_bytes(), &bytes].concat()
}

async fn wire(checkup: &Checkup) -> Wire {
    Wire::connect(checkup.addr()).await.expect("a connection")
}

/// Starts a mesh, if this machine has the servers for one.
async fn mesh() -> Option<Checkup> {
    let postgres = ::mesh::for_tests::postgres().await;
    ::mesh::for_tests::or_skip("PostgreSQL", postgres)?;
    ::mesh::for_tests::or_skip("nats-server", ::mesh::Nats::absent())?;
    Some(launch().topology(Topology::Mesh).start().await)
}

/// A method other than POST gets 405, another content type gets 415, and no call is executed.
async fn what_is_no_call_is_refused_by_http_and_not_carried_out(checkup: &Checkup) {
    let wire = wire(checkup).await;
    let bearer = format!("Bearer {}", checkup.tokens().admin("lee", "*"));
    let make = |id: &str| {
        let hospital = Hospital {
            display_name: "Made by mistake".to_owned(),
            time_zone: "Asia/Seoul".to_owned(),
            ..Hospital::default()
        };
        let request = CreateHospitalRequest {
            hospital_id: id.to_owned(),
            hospital: Some(hospital),
            ..CreateHospitalRequest::default()
        };
        framed(&request)
    };
    let was_not_made = async |id: &str| {
        let request = GetHospitalRequest { name: format!("hospitals/{id}") };
        let found = checkup.stranger().await.hospital().get_hospital(request).await;
        refused(found, Reason::HospitalNotFound);
    };
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "BREW"] {
        let headers = [("content-type", "application/grpc"), ("te", "trailers"), ("authorization", bearer.as_str())];
        for path in [CREATE, LIST, HEALTH, REFLECTION, NOTHING, "/", "/favicon.ico"] {
            let answer = wire.http(method, path, &headers, &make("by-method")).await.expect("an answer");
            assert_eq!(answer.status, 405, "{method} {path}: {answer:?}");
            assert_eq!(answer.headers["allow"], "POST", "{method} {path}");
            assert_eq!(answer.body.is_empty(), method == "HEAD", "{method} {path}: {answer:?}");
            assert!(answer.grpc().is_none(), "{method} {path}: {answer:?}");
        }
        was_not_made("by-method").await;
    }
    let types =
        ["", "application/json", "text/html", "application/grpc-web", "application/grpc+json", "application/grpcs"];
    for kind in types.map(Some).into_iter().chain([None]) {
        let mut headers = vec![("te", "trailers"), ("authorization", bearer.as_str())];
        headers.extend(kind.map(|kind| ("content-type", kind)));
        for path in [CREATE, LIST, HEALTH, REFLECTION, NOTHING, "/"] {
            let answer = wire.http("POST", path, &headers, &make("by-type")).await.expect("an answer");
            assert_eq!(answer.status, 415, "{kind:?} {path}: {answer:?}");
            assert!(answer.grpc().is_none() && !answer.body.is_empty(), "{kind:?} {path}: {answer:?}");
        }
        was_not_made("by-type").await;
    }
    for kind in ["application/grpc", "application/grpc+proto", "application/grpc;charset=utf-8"] {
        let answer = wire.http("POST", LIST, &[("content-type", kind), ("te", "trailers")], &framed(&())).await;
        let answer = answer.expect("an answer");
        assert_eq!((answer.status, answer.grpc().map(|status| status.code())), (200, Some(Code::Ok)), "{kind}");
    }
}

fn status(answer: &Exchange) -> Status {
    answer.grpc().unwrap_or_else(|| panic!("no status of gRPC: {answer:?}"))
}

/// A `grpc-timeout` has to be valid and must not be repeated.
async fn a_timeout_that_is_none_is_refused(checkup: &Checkup) {
    let wire = wire(checkup).await;
    let nonsense = ["", "S", "10", "-1S", "+1S", "123456789S", "1e3m", "1 S", "1s", "1.5S", "١S", "S1", "10m, 10m"];
    let wrong = nonsense.iter().map(|text| vec![("grpc-timeout", *text)]);
    let twice = [vec![("grpc-timeout", "10S"), ("grpc-timeout", "10S")]];
    for headers in wrong.chain(twice) {
        for path in [LIST, HEALTH, REFLECTION] {
            let answer = wire.call_whole(path, &headers, &[]).await.expect("an answer");
            let refusal = refused(Err::<(), _>(status(&answer)), Reason::FieldInvalid);
            assert_eq!(refusal.fields(), ["grpc-timeout"], "{headers:?} {path}");
        }
    }
    for fine in ["99999999H", "60M", "10S", "10000m", "10000000u", "99999999n"] {
        let answer = wire.call_whole(LIST, &[("grpc-timeout", fine)], &[]).await.expect("an answer");
        assert_eq!(status(&answer).code(), Code::Ok, "{fine}");
    }
}

/// With two tokens a call is refused, because nobody can tell whose call it is. Two traces are ignored.
async fn two_tokens_are_none(checkup: &Checkup) {
    let wire = wire(checkup).await;
    let bearer = |token: String| format!("Bearer {token}");
    let (kim, lee) = (bearer(checkup.tokens().customer("kim")), bearer(checkup.tokens().customer("lee")));
    let list = "/checkup.screening.v1.ScreeningService/ListScreenings";
    for two in [[&kim, &lee], [&kim, &kim], [&kim, &"Bearer nonsense".to_owned()]] {
        for path in [list, LIST] {
            let headers = two.map(|value| ("authorization", value.as_str()));
            let answer = wire.call_whole(path, &headers, &[]).await.expect("an answer");
            let refusal = refused(Err::<(), _>(status(&answer)), Reason::CredentialsInvalid);
            assert!(refusal.message.contains("more than once"), "{refusal:?}");
        }
    }
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let headers = [("authorization", kim.as_str()), ("traceparent", trace), ("traceparent", trace)];
    let answer = wire.call_whole(list, &headers, &[]).await.expect("an answer");
    assert_eq!(status(&answer).code(), Code::Ok);
}

/// Asks for known and unknown names on one stream, one after another.
macro_rules! reflection {
    ($name:ident, $version:ident) => {
        async fn $name(checkup: &Checkup) {
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::{ExtensionRequest, ServerReflectionRequest};

            let unknown = "checkup.nothing.v1.NothingService".to_owned();
            let extension = ExtensionRequest { containing_type: unknown.clone(), extension_number: 7 };
            let known = MessageRequest::FileContainingSymbol("checkup.hospital.v1.HospitalService".to_owned());
            let absent = [
                (Some(MessageRequest::FileContainingSymbol(unknown.clone())), Code::NotFound),
                (Some(MessageRequest::FileContainingSymbol(String::new())), Code::NotFound),
                (Some(MessageRequest::FileByFilename("nothing.proto".to_owned())), Code::NotFound),
                (Some(MessageRequest::FileContainingExtension(extension)), Code::NotFound),
                (None, Code::InvalidArgument),
            ];
            let (questions, asked) = tokio::sync::mpsc::channel(1);
            let mut client = ServerReflectionClient::new(checkup.stranger().await.channel().clone());
            let asked = tokio_stream::wrappers::ReceiverStream::new(asked);
            let mut answers = within(wait_limit(), "a stream", client.server_reflection_info(asked))
                .await
                .expect("a stream before the first question")
                .into_inner();
            let mut ask = async |message_request: Option<MessageRequest>| {
                let question = ServerReflectionRequest { host: "host".to_owned(), message_request };
                questions.send(question.clone()).await.expect("the stream is open");
                let answer = within(wait_limit(), "an answer", answers.message()).await.expect("no end").expect("one");
                assert_eq!((answer.original_request.as_ref(), answer.valid_host.as_str()), (Some(&question), "host"));
                answer.message_response.expect("an answer")
            };
            for (question, code) in absent {
                match ask(question.clone()).await {
                    MessageResponse::ErrorResponse(error) => {
                        assert_eq!(Code::from_i32(error.error_code), code, "{question:?} {error:?}");
                        assert!(!error.error_message.is_empty());
                    }
                    other => panic!("{question:?} {other:?}"),
                }
                let found = ask(Some(known.clone())).await;
                assert!(matches!(found, MessageResponse::FileDescriptorResponse(_)), "after {question:?}: {found:?}");
            }
            let numbers = ask(Some(MessageRequest::AllExtensionNumbersOfType(unknown))).await;
            assert!(matches!(
                numbers,
                MessageResponse::AllExtensionNumbersResponse(_) | MessageResponse::ErrorResponse(_)
            ));
            let MessageResponse::ListServicesResponse(list) =
                ask(Some(MessageRequest::ListServices(String::new()))).await
            else {
                panic!("no list")
            };
            assert!(list.service.iter().any(|service| service.name == "checkup.mypage.v1.MyPageService"), "{list:?}");
        }
    };
}

reflection!(reflection_goes_on_after_what_it_does_not_know, v1);
reflection!(its_earlier_version_goes_on_too, v1alpha);

/// Every service by its name, and the empty name for all of them.
fn services() -> Vec<String> {
    let mut names: Vec<String> = crate::methods::methods();
    names.iter_mut().for_each(|path| path.truncate(path.find('/').unwrap_or_default()));
    names.dedup();
    names.push(String::new());
    names
}

async fn health(checkup: &Checkup) -> HealthClient<tonic::transport::Channel> {
    HealthClient::new(checkup.stranger().await.channel().clone())
}

/// Check and Watch know every service.
async fn every_service_has_its_health(checkup: &Checkup) {
    let mut client = health(checkup).await;
    for service in services() {
        let ask = HealthCheckRequest { service: service.clone() };
        let checked = client.check(ask.clone()).await.unwrap_or_else(|status| panic!("{service:?}: {status:?}"));
        assert_eq!(checked.into_inner().status(), ServingStatus::Serving, "{service:?}");
        let mut watched = client.watch(ask).await.expect("a watch").into_inner();
        let first = within(wait_limit(), "its health", watched.message()).await.expect("no end").expect("one");
        assert_eq!(first.status(), ServingStatus::Serving, "{service:?}");
        // nothing changes, so Watch sends nothing more
        let more = tokio::time::timeout(Duration::from_millis(350), watched.next()).await;
        assert!(more.is_err(), "{service:?}: {more:?}");
    }
    let nobody = HealthCheckRequest { service: "checkup.nothing.v1.NothingService".to_owned() };
    assert_eq!(client.check(nobody).await.expect_err("nobody").code(), Code::NotFound);
}

async fn all_of_it(checkup: &Checkup) {
    what_is_no_call_is_refused_by_http_and_not_carried_out(checkup).await;
    a_timeout_that_is_none_is_refused(checkup).await;
    two_tokens_are_none(checkup).await;
    reflection_goes_on_after_what_it_does_not_know(checkup).await;
    its_earlier_version_goes_on_too(checkup).await;
    every_service_has_its_health(checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_keeps_to_the_protocols() {
    all_of_it(&embedded().start().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_front_of_a_mesh_keeps_to_the_protocols() {
    let Some(checkup) = mesh().await else { return };
    all_of_it(&checkup).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_was_left_out_has_no_health() {
    let checkup = embedded().without("mypage").start().await;
    let mut client = health(&checkup).await;
    let mut check = async |service: &str| client.check(HealthCheckRequest { service: service.to_owned() }).await;
    assert_eq!(check("checkup.mypage.v1.MyPageService").await.expect_err("absent").code(), Code::NotFound);
    assert!(check("checkup.capacity.v1.CapacityService").await.is_ok());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_port_takes_reads_only() {
    let checkup = embedded().start().await;
    let ask = async |method: &str, path: &str| {
        let text = format!("{method} {path} HTTP/1.1\r\nhost: admin\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        let mut stream = tokio::net::TcpStream::connect(checkup.admin_addr()).await.expect("a connection");
        tokio::io::AsyncWriteExt::write_all(&mut stream, text.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        let read = tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut answer);
        within(wait_limit(), "an answer", read).await.expect("read");
        answer.to_ascii_lowercase()
    };
    for path in ["/live", "/ready", "/metrics"] {
        for method in ["POST", "PUT", "PATCH", "DELETE", "OPTIONS"] {
            let answer = ask(method, path).await;
            assert!(answer.starts_with("http/1.1 405 "), "{method} {path}: {answer}");
            assert!(answer.contains("allow: get,head"), "{method} {path}: {answer}");
        }
        let head = ask("HEAD", path).await;
        assert!(head.starts_with("http/1.1 200 ") && head.ends_with("\r\n\r\n"), "{path}: {head}");
        assert!(ask("GET", path).await.starts_with("http/1.1 200 "), "{path}");
    }
}
