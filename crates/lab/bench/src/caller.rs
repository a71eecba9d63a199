//! The callers: connections, and the metadata of every call. They are the same for the services and for the baseline.

use std::net::SocketAddr;
use std::time::Duration;

use contract::capacity::v1::capacity_service_client::CapacityServiceClient;
use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use contract::marketing::v1::marketing_service_client::MarketingServiceClient;
use contract::mypage::v1::my_page_service_client::MyPageServiceClient;
use contract::reservation::v1::reservation_service_client::ReservationServiceClient;
use contract::screening::v1::screening_service_client::ScreeningServiceClient;
use runtime::client::{ClientOptions, connect};
use runtime::identity::{Claims, Hospitals, Role, Signer};
use tonic::Request;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Uri};

use crate::Error;

/// The deadline of a call: much longer than any call takes.
const DEADLINE: Duration = Duration::from_secs(30);
/// The lifetime of a token: longer than any measurement.
const TTL: Duration = Duration::from_secs(6 * 60 * 60);

/// A signed token as a header value.
#[derive(Debug, Clone)]
pub(crate) struct Token(AsciiMetadataValue);

impl Token {
    fn made(signer: &Signer, role: Role, subject: &str) -> Result<Self, Error> {
        let hospitals = (role == Role::Admin).then(|| Hospitals::One("*".to_owned()));
        let signed = signer.sign(&Claims::new(role, subject, hospitals, TTL));
        let signed = signed.map_err(|error| Error::failed(format!("cannot make a token: {error}")))?;
        let bearer = format!("Bearer {signed}").parse();
        bearer.map(Self).map_err(|_| Error::failed("a token is no header value"))
    }

    /// An admin of every hospital.
    pub(crate) fn admin(signer: &Signer) -> Result<Self, Error> {
        Self::made(signer, Role::Admin, "bench-admin")
    }

    /// An auditor, who may read everything.
    pub(crate) fn auditor(signer: &Signer) -> Result<Self, Error> {
        Self::made(signer, Role::Auditor, "bench-auditor")
    }

    /// The service Screening, which reserves places.
    pub(crate) fn screening(signer: &Signer) -> Result<Self, Error> {
        Self::made(signer, Role::Service, "screening")
    }

    /// The service Marketing, which requests more places.
    pub(crate) fn marketing(signer: &Signer) -> Result<Self, Error> {
        Self::made(signer, Role::Service, "marketing")
    }

    /// A customer.
    pub(crate) fn customer(signer: &Signer, id: &str) -> Result<Self, Error> {
        Self::made(signer, Role::Customer, id)
    }
}

/// Connections to the replicas of a service, shared by callers.
#[derive(Debug, Clone)]
pub(crate) struct Lines(Vec<Channel>);

impl Lines {
    pub(crate) fn to(addr: SocketAddr, connections: usize) -> Result<Self, Error> {
        Self::to_each(&[addr], connections)
    }

    /// So many connections to each address. Callers with numbers in a row have one address after the other.
    pub(crate) fn to_each(addresses: &[SocketAddr], connections: usize) -> Result<Self, Error> {
        let uri = |addr: &SocketAddr| {
            format!("http://{addr}").parse::<Uri>().map_err(|_| Error::failed(format!("{addr} is no address")))
        };
        let uris = addresses.iter().map(uri).collect::<Result<Vec<Uri>, Error>>()?;
        let all = std::iter::repeat_n(uris, connections.max(1)).flatten();
        Ok(Self(all.map(|uri| connect(uri, ClientOptions::default())).collect()))
    }

    /// The connection of the caller with this number.
    pub(crate) fn channel(&self, caller: usize) -> Channel {
        self.0[caller % self.0.len()].clone()
    }
}

/// A caller: connections and a token.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    lines: Lines,
    token: Token,
}

impl Caller {
    pub(crate) fn new(lines: Lines, token: Token) -> Self {
        Self { lines, token }
    }

    /// A request with this caller's token.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        self.request_as(&self.token, message)
    }

    /// A request with another token over the same connections.
    pub(crate) fn request_as<T>(&self, token: &Token, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("authorization", token.0.clone());
        request.set_timeout(DEADLINE);
        request
    }

    pub(crate) fn channel(&self, caller: usize) -> Channel {
        self.lines.channel(caller)
    }

    pub(crate) fn capacity(&self, caller: usize) -> CapacityServiceClient<Channel> {
        CapacityServiceClient::new(self.channel(caller))
    }

    pub(crate) fn hospital(&self) -> HospitalServiceClient<Channel> {
        HospitalServiceClient::new(self.channel(0))
    }

    pub(crate) fn screening(&self, caller: usize) -> ScreeningServiceClient<Channel> {
        ScreeningServiceClient::new(self.channel(caller))
    }

    pub(crate) fn reservation(&self) -> ReservationServiceClient<Channel> {
        ReservationServiceClient::new(self.channel(0))
    }

    pub(crate) fn my_page(&self, caller: usize) -> MyPageServiceClient<Channel> {
        MyPageServiceClient::new(self.channel(caller))
    }

    pub(crate) fn marketing(&self) -> MarketingServiceClient<Channel> {
        MarketingServiceClient::new(self.channel(0))
    }
}
