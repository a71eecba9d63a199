//! Tokens for any party, good ones and bad ones, made with the key of a data directory as another issuer would make them.
//!
//! The key is read when the first token is made: the process makes it when it starts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// What a token says.
#[derive(Debug, Clone, Serialize)]
pub struct Claims {
    /// Whose it is.
    pub sub: String,
    /// customer, admin, auditor or service.
    pub role: String,
    /// The hospitals of an admin: `*`, or ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hospitals: Vec<String>,
    /// Who issued it.
    pub iss: String,
    /// For whom.
    pub aud: String,
    /// When it ends, in seconds since 1970.
    pub exp: i64,
}

impl Claims {
    /// What a good token says; tests of bad ones change a field.
    #[must_use]
    pub fn new(role: &str, subject: &str) -> Self {
        Self {
            sub: subject.to_owned(),
            role: role.to_owned(),
            hospitals: Vec::new(),
            iss: "checkup".to_owned(),
            aud: "checkup".to_owned(),
            exp: now() + 10 * 366 * 24 * 60 * 60,
        }
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Makes tokens that the process on a data directory accepts, or must not.
#[derive(Debug, Clone)]
pub struct Tokens {
    data: Arc<PathBuf>,
    /// The key, once it was read: a test may put another directory in the place of this one while customers make tokens.
    key: Arc<OnceLock<String>>,
}

impl Tokens {
    /// The name of the key file, directly in the data directory or one level below.
    const FILE: &str = "signing-key.pem";

    /// Tokens of this data directory.
    #[must_use]
    pub fn of(data: &Path) -> Self {
        Self { data: Arc::new(data.to_owned()), key: Arc::default() }
    }

    /// A customer's.
    #[must_use]
    pub fn customer(&self, id: &str) -> String {
        self.sign(&Claims::new("customer", id))
    }

    /// An admin's; `hospitals` is `*`, or ids with commas between.
    #[must_use]
    pub fn admin(&self, subject: &str, hospitals: &str) -> String {
        let hospitals = hospitals.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
        self.sign(&Claims { hospitals, ..Claims::new("admin", subject) })
    }

    /// An auditor's.
    #[must_use]
    pub fn auditor(&self) -> String {
        self.sign(&Claims::new("auditor", "kang"))
    }

    /// The token one of the system's services presents.
    #[must_use]
    pub fn service(&self, name: &str) -> String {
        self.sign(&Claims::new("service", name))
    }

    /// Signs anything with the right key.
    ///
    /// # Panics
    /// Where there is no key.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        let key = EncodingKey::from_ed_pem(self.pem().as_bytes()).expect("an Ed25519 key");
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).expect("a token")
    }

    /// The same claims under a key that nobody trusts.
    ///
    /// # Panics
    /// Never: the key is a constant.
    #[must_use]
    pub fn sign_with_another_key(&self, claims: &Claims) -> String {
        const ANOTHER: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        let key = EncodingKey::from_ed_pem(ANOTHER.as_bytes()).expect("an Ed25519 key");
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).expect("a token")
    }

    /// The same claims signed with HS256, the key file's own bytes being the secret: the classic confusion.
    ///
    /// # Panics
    /// Where there is no key.
    #[must_use]
    pub fn sign_with_hs256(&self, claims: &Claims) -> String {
        let key = EncodingKey::from_secret(self.pem().as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
    }

    /// The same claims with `alg: none` and no signature.
    ///
    /// # Panics
    /// Where the claims cannot be written.
    #[must_use]
    pub fn unsigned(&self, claims: &Claims) -> String {
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let body = URL_SAFE_NO_PAD.encode(serde_json::to_vec(claims).expect("claims are JSON"));
        format!("{header}.{body}.")
    }

    fn pem(&self) -> &str {
        self.key.get_or_init(|| self.read())
    }

    fn read(&self) -> String {
        let below = std::fs::read_dir(self.data.as_path()).into_iter().flatten().flatten().map(|entry| entry.path());
        let places = std::iter::once(self.data.as_path().to_owned()).chain(below);
        let found = places.map(|dir| dir.join(Self::FILE)).find_map(|path| std::fs::read_to_string(path).ok());
        found.unwrap_or_else(|| panic!("no {} in {}", Self::FILE, self.data.display()))
    }
}
