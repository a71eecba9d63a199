//! Reflection: the library's service, asked one question at a time.
//!
//! The library ends the whole stream at the first question that it cannot answer, although the protocol has a message
//! for that, and clients ask many questions on one stream. So each question is passed to the library on a stream of its
//! own.

use std::pin::Pin;

use futures::{Stream, StreamExt};
use tonic::service::Routes;
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_reflection::server::Builder;

use super::Error;
use super::methods::DESCRIPTOR_SETS;
use crate::limited;

/// Adds both versions of reflection to the routes.
///
/// # Errors
/// [`Error`] if the descriptors cannot be served, which is a defect of the build.
pub fn with_reflection(routes: Routes) -> Result<Routes, Error> {
    let configure = || {
        DESCRIPTOR_SETS
            .iter()
            .fold(Builder::configure(), |builder, set| builder.register_encoded_file_descriptor_set(set))
    };
    let (current, earlier) = (configure().build_v1()?, configure().build_v1alpha()?);
    Ok(routes.add_service(limited!(v1::served(current))).add_service(limited!(v1alpha::served(earlier))))
}

type Answers<A> = Pin<Box<dyn Stream<Item = Result<A, Status>> + Send>>;

/// The error code and message of a question that has no answer.
fn said(status: &Status) -> (i32, String) {
    let code = if status.code() == Code::Ok { Code::Internal } else { status.code() };
    (code.into(), status.message().to_owned())
}

/// Both versions have the same messages in different packages.
macro_rules! version {
    ($version:ident) => {
        mod $version {
            use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
            use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
            use tonic_reflection::pb::$version::server_reflection_server::{ServerReflection, ServerReflectionServer};
            use tonic_reflection::pb::$version::{ErrorResponse, ServerReflectionRequest, ServerReflectionResponse};

            use super::*;

            #[derive(Debug)]
            pub(super) struct OneByOne<L>(L);

            /// Wraps the library's service in the one that asks one question at a time.
            pub(super) fn served<R: ServerReflection>(
                library: ServerReflectionServer<R>,
            ) -> ServerReflectionServer<impl ServerReflection> {
                ServerReflectionServer::new(OneByOne(library))
            }

            #[tonic::async_trait]
            impl<R: ServerReflection> ServerReflection for OneByOne<ServerReflectionServer<R>> {
                type ServerReflectionInfoStream = Answers<ServerReflectionResponse>;

                async fn server_reflection_info(
                    &self,
                    request: Request<Streaming<ServerReflectionRequest>>,
                ) -> Result<Response<Self::ServerReflectionInfoStream>, Status> {
                    let library = self.0.clone();
                    let answers = request.into_inner().then(move |question| answer(library.clone(), question));
                    Ok(Response::new(Box::pin(answers)))
                }
            }

            async fn answer<R: ServerReflection>(
                library: ServerReflectionServer<R>,
                question: Result<ServerReflectionRequest, Status>,
            ) -> Result<ServerReflectionResponse, Status> {
                let question = question?;
                let host = question.host.clone();
                let error = |status: Status| {
                    let (error_code, error_message) = said(&status);
                    let error = ErrorResponse { error_code, error_message };
                    ServerReflectionResponse {
                        valid_host: host,
                        original_request: Some(question.clone()),
                        message_response: Some(MessageResponse::ErrorResponse(error)),
                    }
                };
                Ok(ask(library, question.clone()).await.unwrap_or_else(error))
            }

            async fn ask<R: ServerReflection>(
                library: ServerReflectionServer<R>,
                question: ServerReflectionRequest,
            ) -> Result<ServerReflectionResponse, Status> {
                let mut client = ServerReflectionClient::new(library);
                let mut answers = client.server_reflection_info(futures::stream::iter([question])).await?.into_inner();
                answers.message().await?.ok_or_else(|| Status::internal("reflection has no answer"))
            }
        }
    };
}

version!(v1);
version!(v1alpha);
