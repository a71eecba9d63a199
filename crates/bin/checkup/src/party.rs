//! A client of a running process: a connection, a token, and the calls made with them.
//!
//! The commands that drive a process are clients like any other and use only its contract.

use std::path::{Path, PathBuf};
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use contract::capacity::v1::capacity_service_client::CapacityServiceClient;
use contract::hospital::v1::hospital_service_client::HospitalServiceClient;
use contract::marketing::v1::marketing_service_client::MarketingServiceClient;
use contract::mypage::v1::my_page_service_client::MyPageServiceClient;
use contract::reservation::v1::reservation_service_client::ReservationServiceClient;
use contract::screening::v1::screening_service_client::ScreeningServiceClient;
use fault::Reason;
use runtime::client::{ClientOptions, Outgoing, connect};
use runtime::deadline::Deadline;
use runtime::identity::{Claims, Hospitals, Role, Signer, TokenSource};
use runtime::status::refusal_of;
use runtime::trace::TraceContext;
use tonic::transport::{Channel, Uri};
use tonic::{Code, Request, Status};

use crate::cli::TargetArgs;
use crate::exit::{Failure, chain};
use crate::identity;

/// The deadline of a tool's call. Every call needs far less; it ends calls that hang.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the tokens that a tool makes for itself are valid.
const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);

/// A client with a token on a connection.
#[derive(Debug, Clone)]
pub struct Party {
    channel: Channel,
    tokens: TokenSource,
    subject: String,
}

impl Party {
    /// The subject of the token.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// The resource name of the subject as a customer, `customers/{subject}`.
    #[must_use]
    pub fn customer(&self) -> String {
        format!("customers/{}", self.subject)
    }

    /// A request with this client's token, a new trace and a deadline.
    #[must_use]
    pub fn request<T>(&self, message: T) -> Request<T> {
        let (trace, deadline) = (TraceContext::generate(), Deadline::within(CALL_TIMEOUT));
        Outgoing::default().request(message, &self.tokens, &trace, deadline)
    }

    /// The same client on another connection.
    #[must_use]
    pub fn on(&self, channel: Channel) -> Self {
        Self { channel, ..self.clone() }
    }

    /// A client of HospitalService.
    #[must_use]
    pub fn hospital(&self) -> HospitalServiceClient<Channel> {
        HospitalServiceClient::new(self.channel.clone())
    }

    /// A client of CapacityService.
    #[must_use]
    pub fn capacity(&self) -> CapacityServiceClient<Channel> {
        CapacityServiceClient::new(self.channel.clone())
    }

    /// A client of ScreeningService.
    #[must_use]
    pub fn screening(&self) -> ScreeningServiceClient<Channel> {
        ScreeningServiceClient::new(self.channel.clone())
    }

    /// A client of ReservationService.
    #[must_use]
    pub fn reservation(&self) -> ReservationServiceClient<Channel> {
        ReservationServiceClient::new(self.channel.clone())
    }

    /// A client of MyPageService.
    #[must_use]
    pub fn my_page(&self) -> MyPageServiceClient<Channel> {
        MyPageServiceClient::new(self.channel.clone())
    }

    /// A client of MarketingService.
    #[must_use]
    pub fn marketing(&self) -> MarketingServiceClient<Channel> {
        MarketingServiceClient::new(self.channel.clone())
    }
}

/// An address to open connections to.
#[derive(Debug, Clone)]
pub struct Target {
    uri: Uri,
}

impl Target {
    /// Checks that the address accepts a connection now.
    ///
    /// # Errors
    /// Fails if the address is malformed or nobody listens there.
    pub async fn reach(addr: &str) -> Result<Self, Failure> {
        let bare = addr.strip_prefix("http://").unwrap_or(addr).trim_end_matches('/');
        let uri: Uri = format!("http://{bare}")
            .parse()
            .ok()
            .filter(|uri: &Uri| uri.port().is_some() && uri.host().is_some_and(|host| !host.is_empty()))
            .ok_or_else(|| Failure::usage(format!("{addr} is not HOST:PORT, for example 127.0.0.1:8080")))?;
        let options = ClientOptions::default();
        let opened = tokio::time::timeout(options.connect_timeout, tokio::net::TcpStream::connect(bare)).await;
        let why = match opened {
            Ok(Ok(_)) => return Ok(Self { uri }),
            Ok(Err(error)) => chain(&error),
            Err(_) => format!("no answer within {:?}", options.connect_timeout),
        };
        let help = "start a process with `checkup up`, or name another with --addr";
        Err(Failure::failed(format!("cannot reach checkup on {bare} ({why}); {help}")))
    }

    /// Opens a new connection.
    #[must_use]
    pub fn channel(&self) -> Channel {
        connect(self.uri.clone(), ClientOptions::default())
    }
}

/// The tokens that a tool may use: made with the key of a data directory, or given on the command line.
#[derive(Debug, Clone)]
pub struct Wallet {
    tokens: Tokens,
    /// The data directory that the key is from. The process that accepts the tokens uses it.
    directory: Option<PathBuf>,
}

#[derive(Debug, Clone)]
enum Tokens {
    Made(Signer),
    Given(Vec<(Claims, String)>),
}

impl Wallet {
    /// The tokens of these arguments.
    ///
    /// # Errors
    /// Fails if there is no usable key and no usable token.
    pub fn open(args: &TargetArgs) -> Result<Self, Failure> {
        if args.tokens.is_empty() { Self::of_directory(&args.data_dir) } else { Self::given(&args.tokens) }
    }

    /// Makes tokens with the key of a data directory.
    ///
    /// # Errors
    /// Fails if there is no key, or it cannot be used.
    pub fn of_directory(dir: &Path) -> Result<Self, Failure> {
        if !dir.join(Signer::FILE).exists() {
            let dir = dir.display();
            let help = "name the data directory of the running process with --data-dir, or give tokens with --token";
            return Err(Failure::failed(format!("there is no signing key in {dir}; {help}")));
        }
        let signer = identity::signer(dir)?;
        Ok(Self { tokens: Tokens::Made(signer), directory: Some(dir.to_owned()) })
    }

    /// The data directory of the process that accepts the tokens. `None` if the tokens were given.
    #[must_use]
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    fn given(tokens: &[String]) -> Result<Self, Failure> {
        let read = tokens.iter().map(|token| {
            let claims = claims_of(token).ok_or_else(|| Failure::usage("--token: this is not a token of checkup"))?;
            Ok((claims, token.clone()))
        });
        Ok(Self { tokens: Tokens::Given(read.collect::<Result<_, Failure>>()?), directory: None })
    }

    /// An admin of every hospital, or the admin whose token was given. `None` if there is no such token.
    #[must_use]
    pub fn admin(&self, target: &Target) -> Option<Party> {
        self.party(target, Role::Admin, 0, |_| true, "checkup-admin")
    }

    /// An auditor. `None` if there is no such token.
    #[must_use]
    pub fn auditor(&self, target: &Target) -> Option<Party> {
        self.party(target, Role::Auditor, 0, |_| true, "checkup-auditor")
    }

    /// The service of this name. `None` if there is no such token.
    #[must_use]
    pub fn service(&self, target: &Target, name: &str) -> Option<Party> {
        self.party(target, Role::Service, 0, |subject| subject == name, name)
    }

    /// A customer: with the subject `fresh` if tokens can be made, otherwise with the `nth` given customer token.
    #[must_use]
    pub fn customer(&self, target: &Target, nth: usize, fresh: &str) -> Option<Party> {
        self.party(target, Role::Customer, nth, |_| true, fresh)
    }

    fn party(
        &self,
        target: &Target,
        role: Role,
        nth: usize,
        fits: impl Fn(&str) -> bool,
        fresh: &str,
    ) -> Option<Party> {
        let (subject, token) = match &self.tokens {
            Tokens::Made(signer) => {
                let hospitals = (role == Role::Admin).then(|| Hospitals::One("*".to_owned()));
                let token = signer.sign(&Claims::new(role, fresh, hospitals, TOKEN_TTL)).ok()?;
                (fresh.to_owned(), token)
            }
            Tokens::Given(given) => {
                let mut fitting = given.iter().filter(|(claims, _)| claims.role == role && fits(&claims.sub));
                fitting.nth(nth).map(|(claims, token)| (claims.sub.clone(), token.clone()))?
            }
        };
        Some(Party { channel: target.channel(), tokens: TokenSource::fixed(&token), subject })
    }
}

/// The claims of a token, unchecked. The process that gets the token checks them.
fn claims_of(token: &str) -> Option<Claims> {
    let payload = token.split('.').nth(1)?;
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).ok()?).ok()
}

/// A status in one line: its reason and values if a service of this product made it. Names of resources are left out,
/// because the caller knows them.
#[must_use]
pub fn describe(status: &Status) -> String {
    match refusal_of(status) {
        Some(refusal) => {
            if refusal.reason == Reason::NotReady {
                return format!("{}: {}", refusal.reason.name(), status.message());
            }
            let named = refusal.metadata.iter().filter(|(_, value)| !value.contains('/'));
            let values: Vec<String> = named.map(|(key, value)| format!("{key} {value}")).collect();
            let values = if values.is_empty() { String::new() } else { format!(" ({})", values.join(", ")) };
            format!("{}{values}", refusal.reason.name())
        }
        None if status.code() == Code::Unimplemented => "not served there".to_owned(),
        None => format!("{:?}: {}", status.code(), status.message()),
    }
}
