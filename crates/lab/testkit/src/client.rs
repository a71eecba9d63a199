//! Typed clients. A party is a caller: a connection and a token.

use std::net::SocketAddr;
use std::time::Duration;

use contract::capacity::v1::capacity_service_client::CapacityServiceClient;
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

/// The deadline of a call for which the test sets none: much longer than any call takes, but it ends every hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What parties read, so that every refusal of a test has its sentence for people.
pub const PARTIES_READ: &str = "ko-KR,ko;q=0.9,en;q=0.5";

/// Adds the token and the languages to a request, and a deadline unless the test set one.
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
        if !request.metadata().contains_key("accept-language") {
            request.metadata_mut().insert("accept-language", MetadataValue::from_static(PARTIES_READ));
        }
        if !request.metadata().contains_key("grpc-timeout") {
            request.set_timeout(self.deadline);
        }
        Ok(request)
    }
}

/// The transport of the generated clients: a connection with credentials.
pub type Authorised = InterceptedService<Channel, Credentials>;

/// Opens a connection.
///
/// # Panics
/// If nobody accepts the connection within five seconds.
pub async fn connect(addr: SocketAddr) -> Channel {
    let endpoint = Endpoint::from_shared(format!("http://{addr}")).expect("an address makes an endpoint");
    match endpoint.connect_timeout(Duration::from_secs(5)).connect().await {
        Ok(channel) => channel,
        Err(error) => panic!("cannot connect to {addr}: {error:?}"),
    }
}

/// A caller: a connection with a token or without one.
#[derive(Debug, Clone)]
pub struct Party {
    channel: Channel,
    credentials: Credentials,
}

impl Party {
    /// Makes a party from a connection and a token, or none.
    ///
    /// # Panics
    /// If the token cannot be sent in a header.
    #[must_use]
    pub fn new(channel: Channel, token: Option<&str>) -> Self {
        let bearer = token.map(|token| format!("Bearer {token}").parse().expect("a token fits a header"));
        Self { channel, credentials: Credentials { bearer, deadline: CALL_TIMEOUT } }
    }

    /// Sets the deadline of the party's calls. A deadline that a request sets itself wins.
    #[must_use]
    pub fn with_deadline(mut self, deadline: Duration) -> Self {
        self.credentials.deadline = deadline;
        self
    }

    /// The party's connection.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// The connection with the token, for clients that the test makes itself.
    #[must_use]
    pub fn authorised(&self) -> Authorised {
        InterceptedService::new(self.channel.clone(), self.credentials.clone())
    }

    /// A client of HospitalService.
    #[must_use]
    pub fn hospital(&self) -> HospitalServiceClient<Authorised> {
        HospitalServiceClient::new(self.authorised())
    }

    /// A client of CapacityService.
    #[must_use]
    pub fn capacity(&self) -> CapacityServiceClient<Authorised> {
        CapacityServiceClient::new(self.authorised())
    }

    /// A client of ScreeningService.
    #[must_use]
    pub fn screening(&self) -> ScreeningServiceClient<Authorised> {
        ScreeningServiceClient::new(self.authorised())
    }

    /// A client of ReservationService.
    #[must_use]
    pub fn reservation(&self) -> ReservationServiceClient<Authorised> {
        ReservationServiceClient::new(self.authorised())
    }

    /// A client of MyPageService.
    #[must_use]
    pub fn my_page(&self) -> MyPageServiceClient<Authorised> {
        MyPageServiceClient::new(self.authorised())
    }

    /// A client of MarketingService.
    #[must_use]
    pub fn marketing(&self) -> MarketingServiceClient<Authorised> {
        MarketingServiceClient::new(self.authorised())
    }
}

/// The address of a process and the tokens it accepts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Served {
    addr: SocketAddr,
    tokens: Tokens,
}

impl Served {
    /// A process at this address with the tokens of its data directory.
    #[must_use]
    pub fn new(addr: SocketAddr, tokens: Tokens) -> Self {
        Self { addr, tokens }
    }

    /// The address of its gRPC server.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The tokens that it accepts.
    #[must_use]
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    /// A party with this token, or none, on a connection of its own.
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

    /// Makes `count` customers, `prefix-0` and so on, spread over `connections` connections.
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
