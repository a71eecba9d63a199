//! Valid and invalid tokens for any party, signed with the key of a data directory.
//!
//! The key is read when the first token is made, because the process makes the key when it starts.

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde::Serialize;

/// The claims of a token.
#[derive(Debug, Clone, Serialize)]
pub struct Claims {
    /// The subject, for example the id of the customer.
    pub sub: String,
    /// The role: customer, admin, auditor or service.
    pub role: String,
    /// The hospitals of an admin: `*`, or ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub hospitals: Vec<String>,
    /// The issuer.
    pub iss: String,
    /// The audience.
    pub aud: String,
    /// The expiry, in seconds since 1970.
    pub exp: i64,
}

impl Claims {
    /// Valid claims that expire in ten years. A test of invalid ones changes a field.
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

/// The current time in seconds since 1970.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// Signs tokens for the process on a data directory, valid and invalid ones.
#[derive(Debug, Clone)]
pub struct Tokens {
    data: Arc<PathBuf>,
    /// The key, once it has been read. A test may replace the directory while customers make tokens.
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

    /// The token of a customer.
    #[must_use]
    pub fn customer(&self, id: &str) -> String {
        self.sign(&Claims::new("customer", id))
    }

    /// The token of an admin. `hospitals` is `*`, or ids separated by commas.
    #[must_use]
    pub fn admin(&self, subject: &str, hospitals: &str) -> String {
        let hospitals = hospitals.split(',').filter(|id| !id.is_empty()).map(str::to_owned).collect();
        self.sign(&Claims { hospitals, ..Claims::new("admin", subject) })
    }

    /// The token of an auditor.
    #[must_use]
    pub fn auditor(&self) -> String {
        self.sign(&Claims::new("auditor", "kang"))
    }

    /// The token that one of the system's services presents.
    #[must_use]
    pub fn service(&self, name: &str) -> String {
        self.sign(&Claims::new("service", name))
    }

    /// Signs claims with the key of the data directory.
    ///
    /// # Panics
    /// If there is no key.
    #[must_use]
    pub fn sign(&self, claims: &Claims) -> String {
        let key = EncodingKey::from_ed_pem(self.pem().as_bytes()).expect("an Ed25519 key");
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).expect("a token")
    }

    /// Signs claims with a key that nobody trusts.
    ///
    /// # Panics
    /// Never: the key is a constant.
    #[must_use]
    pub fn sign_with_another_key(&self, claims: &Claims) -> String {
        const ANOTHER: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n-----END PRIVATE KEY-----\n";
        let key = EncodingKey::from_ed_pem(ANOTHER.as_bytes()).expect("an Ed25519 key");
        jsonwebtoken::encode(&Header::new(Algorithm::EdDSA), claims, &key).expect("a token")
    }

    /// Signs claims with HS256 and the key file's bytes as the secret: the algorithm confusion attack.
    ///
    /// # Panics
    /// If there is no key.
    #[must_use]
    pub fn sign_with_hs256(&self, claims: &Claims) -> String {
        let key = EncodingKey::from_secret(self.pem().as_bytes());
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), claims, &key).expect("a token")
    }

    /// The claims with `alg: none` and no signature.
    ///
    /// # Panics
    /// If the claims cannot be encoded.
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
