//! What every call passes: readiness, health, reflection, panics, traces.

use contract::mypage::v1::WatchMyPageRequest;
use fault::Reason;
use futures::StreamExt;
use runtime::client::is_unreachable;
use runtime::lifecycle::Readiness;
use runtime::status::{reason_of, refusal_of};
use runtime::trace::TraceContext;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;

use crate::support::{Probe, Running, instructed, options, soon};

#[tokio::test]
async fn nothing_is_served_before_it_is_ready_and_everything_after() {
    let readiness = Readiness::new();
    let latch = readiness.latch("store");
    let server = Running::start_with(options(), Probe::default(), readiness).await;
    let status = server.marketing().list_demand_signals(instructed("")).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(refusal_of(&status).unwrap().reason, Reason::NotReady);
    assert!(is_unreachable(&status));

    let mut health = HealthClient::new(server.channel());
    let mut watched = Vec::new();
    for service in ["", "checkup.marketing.v1.MarketingService"] {
        let request = HealthCheckRequest { service: service.to_owned() };
        let mut watch = health.watch(request).await.unwrap().into_inner();
        assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::NotServing, "{service}");
        watched.push(watch);
    }
    latch.release();
    for watch in &mut watched {
        assert_eq!(soon(watch.message()).await.unwrap().unwrap().status(), ServingStatus::Serving);
    }
    server.marketing().list_demand_signals(instructed("")).await.unwrap();
}

#[tokio::test]
async fn a_panic_is_an_internal_error_and_the_process_lives() {
    let server = Running::start(options()).await;
    let mut client = server.marketing();
    let status = soon(client.list_demand_signals(instructed("panic"))).await.unwrap_err();
    assert_eq!(status.code(), Code::Internal);
    assert_eq!(reason_of(&status), Some(Reason::Internal));
    assert!(!format!("{status:?}").contains("told to panic"), "{status:?}");

    let request = WatchMyPageRequest { name: "panic".into(), ..Default::default() };
    let mut stream = server.my_page().watch_my_page(request).await.unwrap().into_inner();
    let status = soon(async {
        loop {
            if let Err(status) = stream.message().await {
                break status;
            }
        }
    })
    .await;
    assert_eq!(reason_of(&status), Some(Reason::Internal));
    client.list_demand_signals(instructed("")).await.unwrap();
}

#[tokio::test]
async fn refusals_arrive_as_they_were_made() {
    let server = Running::start(options()).await;
    let status = server.marketing().list_demand_signals(instructed("refuse")).await.unwrap_err();
    let refusal = refusal_of(&status).unwrap();
    assert_eq!((refusal.reason, refusal.message.as_str()), (Reason::FilterInvalid, "told to refuse"));
    assert_eq!(refusal.metadata["filter"], "refuse");
}

#[tokio::test]
async fn a_call_continues_the_trace_it_came_with() {
    let server = Running::start(options()).await;
    let parent = TraceContext::generate();
    let mut request = instructed("trace");
    request.metadata_mut().insert("traceparent", parent.traceparent().parse().unwrap());
    let answer = server.marketing().list_demand_signals(request).await.unwrap().into_inner();
    let seen = TraceContext::parse(&answer.next_page_token).unwrap();
    assert_eq!(seen.trace_id(), parent.trace_id());
    assert_ne!(seen, parent);
}

#[tokio::test]
async fn unknown_methods_and_services_are_unimplemented() {
    let server = Running::start(options()).await;
    let mut client = tonic::client::Grpc::new(server.channel());
    for path in
        ["/checkup.marketing.v1.MarketingService/Nothing", "/checkup.screening.v1.ScreeningService/GetScreening"]
    {
        client.ready().await.unwrap();
        let codec = tonic_prost_codec();
        let status = client.unary(instructed(""), path.parse().unwrap(), codec).await.unwrap_err();
        assert_eq!(status.code(), Code::Unimplemented, "{path}");
        assert!(is_unreachable(&status));
    }
}

fn tonic_prost_codec() -> tonic_prost::ProstCodec<
    contract::marketing::v1::ListDemandSignalsRequest,
    contract::marketing::v1::ListDemandSignalsResponse,
> {
    tonic_prost::ProstCodec::default()
}

#[tokio::test]
async fn reflection_lists_the_services_and_decodes_error_details_for_anybody() {
    let server = Running::start(options()).await;
    let mut client = ServerReflectionClient::new(server.channel());
    let ask = |message| ServerReflectionRequest { host: String::new(), message_request: Some(message) };
    let requests = futures::stream::iter([
        ask(MessageRequest::ListServices(String::new())),
        ask(MessageRequest::FileContainingSymbol("google.rpc.ErrorInfo".to_owned())),
    ]);
    let mut request = tonic::Request::new(requests.chain(futures::stream::pending()));
    request.metadata_mut().insert("authorization", "Bearer expired".parse().unwrap());
    let mut answers = client.server_reflection_info(request).await.unwrap().into_inner();
    let listed = soon(answers.message()).await.unwrap().unwrap().message_response;
    let Some(MessageResponse::ListServicesResponse(list)) = listed else { panic!("{listed:?}") };
    let names: Vec<&str> = list.service.iter().map(|service| service.name.as_str()).collect();
    for name in
        ["checkup.marketing.v1.MarketingService", "grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection"]
    {
        assert!(names.contains(&name), "{names:?}");
    }
    let found = soon(answers.message()).await.unwrap().unwrap().message_response;
    assert!(matches!(found, Some(MessageResponse::FileDescriptorResponse(_))), "{found:?}");

    let mut alpha =
        tonic_reflection::pb::v1alpha::server_reflection_client::ServerReflectionClient::new(server.channel());
    alpha.server_reflection_info(futures::stream::empty()).await.unwrap();
}
