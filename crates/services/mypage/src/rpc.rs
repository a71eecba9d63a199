//! The gRPC service. Each method checks the role, decodes, checks the ownership, calls the use case and encodes.

use std::pin::Pin;
use std::time::Duration;

use contract::mypage::v1::my_page_service_server::MyPageService;
use contract::mypage::v1::{
    GetMyPageRequest, ListMyPageItemsRequest, ListMyPageItemsResponse, MyPage, WatchMyPageRequest, WatchMyPageResponse,
};
use domain::access::Caller;
use domain::mypage::{require_page_of, require_reader};
use fault::Fault;
use futures::{Stream, StreamExt};
use runtime::call;
use runtime::deadline::Deadline;
use runtime::status::status;
use store::read;
use tonic::{Request, Response, Status};

use crate::generation::Views;
use crate::watch::watch;
use crate::{decode, encode};

type Messages = Pin<Box<dyn Stream<Item = Result<WatchMyPageResponse, Status>> + Send>>;

/// MyPageService, implemented by the use cases.
#[derive(Debug)]
pub(crate) struct Rpc {
    views: Views,
    heartbeat: Duration,
}

impl Rpc {
    pub(crate) fn new(views: Views, heartbeat: Duration) -> Self {
        Self { views, heartbeat }
    }

    async fn get(&self, request: Request<GetMyPageRequest>) -> Result<MyPage, Fault> {
        let (caller, deadline) = (reader(&request)?, Deadline::from_request(&request));
        let query = decode::get(request.into_inner())?;
        require_page_of(&caller, &query.customer)?;
        let generation = self.views.not_before(query.not_before, deadline.instant()).await?;
        let found = generation.pages.page(&query.customer, query.show_waitlisted).await.map_err(read::failed)?;
        Ok(encode::page(&query.customer, found))
    }

    async fn list(&self, request: Request<ListMyPageItemsRequest>) -> Result<ListMyPageItemsResponse, Fault> {
        let (caller, deadline) = (reader(&request)?, Deadline::from_request(&request));
        let query = decode::list(request.into_inner())?;
        require_page_of(&caller, &query.customer)?;
        let generation = self.views.not_before(query.not_before, deadline.instant()).await?;
        let found = generation.pages.list(&query).await?;
        let (items, next_page_token) = query.page.fill(found, encode::item);
        Ok(ListMyPageItemsResponse { items, next_page_token })
    }

    async fn watch(&self, request: Request<WatchMyPageRequest>) -> Result<Messages, Fault> {
        let caller = reader(&request)?;
        let query = decode::watch(request.into_inner())?;
        require_page_of(&caller, &query.customer)?;
        let customer = query.customer.clone();
        let watch_message = watch(self.views.current(), self.heartbeat, query).await?;
        Ok(Box::pin(watch_message.map(move |watch_message| {
            watch_message.map(|watch_message| encode::watch_message(&customer, watch_message)).map_err(status)
        })))
    }
}

/// The caller of a request. The role is checked before the request is decoded.
fn reader<T>(request: &Request<T>) -> Result<Caller, Fault> {
    let caller = call::caller(request);
    require_reader(&caller)?;
    Ok(caller)
}

#[tonic::async_trait]
impl MyPageService for Rpc {
    type WatchMyPageStream = Messages;

    async fn get_my_page(&self, request: Request<GetMyPageRequest>) -> Result<Response<MyPage>, Status> {
        self.get(request).await.map(Response::new).map_err(status)
    }

    async fn list_my_page_items(
        &self,
        request: Request<ListMyPageItemsRequest>,
    ) -> Result<Response<ListMyPageItemsResponse>, Status> {
        self.list(request).await.map(Response::new).map_err(status)
    }

    async fn watch_my_page(&self, request: Request<WatchMyPageRequest>) -> Result<Response<Messages>, Status> {
        self.watch(request).await.map(Response::new).map_err(status)
    }
}
