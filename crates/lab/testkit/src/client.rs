//! Typed clients: a party is somebody with a token on a connection.

use std::net::SocketAddr;
use std::time::Duration;

use contract::hospital::v1::capacity_service_client::CapacityServiceClient;
use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use contract::marketing::v1::marketing_service_client::MarketingServiceClient;
use contract::mypage::v1::my_page_service_client::MyPageServiceClient;
use contract::reservation::v1::reservation_service_client::ReservationServiceClient;
use contract::screening::v1::screening_service_client::ScreeningServiceClient;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::token::Tokens;

/// What a call may take when the test does not say: far more than any call needs, and an end to every hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// Adds the token, and a deadline where the test gave none.
#[derive(Debug, Clone)]
pub struct Credentials {
    bearer: Option<MetadataValue<Ascii>>,
    deadline: Duration,
}

impl Interceptor for Credentials {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(bearer) = &self.bearer {
            request.metadata_mut().insert("authorization", bearer.clone());
        }
        if !request.metadata().contains_key("grpc-timeout") {
            request.set_timeout(self.deadline);
        }
        Ok(request)
    }
}

/// What the generated clients run over.
pub type Authorised = InterceptedService<Channel, Credentials>;

/// Opens a connection.
///
/// # Panics
/// Where nobody listens.
pub async fn connect(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address makes an endpoint");
    match endpoint.connect_timeout(Duration::from_secs(5)).connect().await {
        Ok(channel) => channel,
        Err(error) => panic!("cannot connect to {addr}: {error:?}"),
    }
}

/// Somebody who calls.
#[derive(Debug, Clone)]
pub struct Party {
    channel: Channel,
    credentials: Credentials,
}

impl Party {
    /// A party on this connection, with this token or none.
    ///
    /// # Panics
    /// Where the token cannot be sent in a header.
    #[must_use]
    pub fn new(channel: Channel, token: Option<&str>) -> Self {
        let bearer = token.map(|token| format!("Bearer {token}").parse().expect("a token fits a header"));
        Self { channel, credentials: Credentials { bearer, deadline: CALL_TIMEOUT } }
    }

    /// The same party in more or less of a hurry: the deadline of its calls, where a call names none.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.credentials.deadline = deadline;
        self
    }

    /// Its connection.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Its connection with its token, for clients that are made by hand.
    #[must_use]
    pub fn authorised(&self) -> Authorised {
        InterceptedService::new(self.channel.clone(), self.credentials.clone())
    }

    /// Calls HospitalService.
    #[must_use]
    pub fn hospital(&self) -> HospitalServiceClient<Authorised> {
        HospitalServiceClient::new(self.authorised())
    }

    /// Calls CapacityService.
    #[must_use]
    pub fn capacity(&self) -> CapacityServiceClient<Authorised> {
        CapacityServiceClient::new(self.authorised())
    }

    /// Calls ScreeningService.
    #[must_use]
    pub fn screening(&self) -> ScreeningServiceClient<Authorised> {
        ScreeningServiceClient::new(self.authorised())
    }

    /// Calls ReservationService.
    #[must_use]
    pub fn reservation(&self) -> ReservationServiceClient<Authorised> {
        ReservationServiceClient::new(self.authorised())
    }

    /// Calls MyPageService.
    #[must_use]
    pub fn my_page(&self) -> MyPageServiceClient<Authorised> {
        MyPageServiceClient::new(self.authorised())
    }

    /// Calls MarketingService.
    #[must_use]
    pub fn marketing(&self) -> MarketingServiceClient<Authorised> {
        MarketingServiceClient::new(self.authorised())
    }
}

/// Where a process serves, and the tokens that open it. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Served {
    addr: SocketAddr,
    tokens: Tokens,
}

impl Served {
    /// A process that serves here with tokens made from its data directory.
    #[must_use]
    pub fn new(addr: SocketAddr, tokens: Tokens) -> Self {
        Self { addr, tokens }
    }

    /// Where.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The tokens.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A party with this token, on a connection of its own.
    pub async fn party(&self, token: Option<String>) -> Party {
        Party::new(connect(self.addr).await, token.as_deref())
    }

    /// An admin of every hospital, on a connection of its own.
    pub async fn admin(&self) -> Party {
        self.party(Some(self.tokens.admin("root", "*"))).await
    }

    /// A customer, on a connection of its own.
    pub async fn customer(&self, id: &str) -> Party {
        self.party(Some(self.tokens.customer(id))).await
    }

    /// An auditor, on a connection of its own.
    pub async fn auditor(&self) -> Party {
        self.party(Some(self.tokens.auditor())).await
    }

    /// One of the system's own services, on a connection of its own.
    pub async fn service(&self, name: &str) -> Party {
        self.party(Some(self.tokens.service(name))).await
    }

    /// Several connections, for loads that one connection would serialise.
    pub async fn connections(&self, count: usize) -> Vec<Channel> {
        futures::future::join_all((0..count).map(|_| connect(self.addr))).await
    }

    /// `count` customers, `prefix-0` and so on, spread over `connections` connections.
    pub async fn customers(&self, prefix: &str, count: usize, connections: usize) -> Vec<Party> {
        let channels = self.connections(connections).await;
        (0..count)
            .map(|i| {
                let token = self.tokens.customer(&format!("{prefix}-{i}"));
                Party::new(channels[i % channels.len()].clone(), Some(&token))
            })
            .collect()
    }
}
