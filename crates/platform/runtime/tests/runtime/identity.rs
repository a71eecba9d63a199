//! Only tokens of this issuer, for this audience, within their time, identify a caller.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use domain::access::Caller;
use fault::Reason;
use jiff::{SignedDuration, Timestamp};
use jsonwebtoken::jwk::{Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use runtime::entropy;
use runtime::identity::{Claims, Hospitals, MAX_TOKEN_BYTES, Role, Signer, Verifier};
use runtime::status::reason_of;
use serde_json::{Value, json};
use tonic::Code;

use crate::support::{Running, instructed, instructed_by, options};

/// A P-256 key in PKCS#8, new in every run.
fn p256() -> EncodingKey {
    let curve =
        b"\x30\x41\x02\x01\x00\x30\x13\x06\x07\x2a\x86\x48\xce\x3d\x02\x01\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
    let mut der = curve.to_vec();
    der.extend(b"\x04\x27\x30\x25\x02\x01\x01\x04\x20");
    // A first byte below 0x80 keeps the scalar below the order of the curve.
    der.extend([&[0x11], &entropy::bytes::<31>()[..]].concat());
    EncodingKey::from_ec_der(&der)
}

struct Issuer {
    signer: Signer,
    verifier: Verifier,
    dir: tempfile::TempDir,
}

impl Issuer {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let signer = Signer::load_or_create(dir.path()).unwrap();
        let verifier = Verifier::from_jwks(&signer.jwks()).unwrap();
        Self { signer, verifier, dir }
    }

    /// Valid claims with these changes; a null removes a claim.
    fn claims(changes: &Value) -> Value {
        let now = Timestamp::now().as_second();
        let mut claims =
            json!({"sub": "kim", "role": "customer", "iss": "checkup", "aud": "checkup", "exp": now + 3600});
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        claims.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        claims
    }

    fn token(&self, changes: &Value) -> String {
        self.token_under(&Header::new(Algorithm::EdDSA), changes)
    }

    fn token_under(&self, header: &Header, changes: &Value) -> String {
        let key = EncodingKey::from_ed_pem(&std::fs::read(self.dir.path().join(Signer::FILE)).unwrap()).unwrap();
        jsonwebtoken::encode(header, &Self::claims(changes), &key).unwrap()
    }
}

fn refusal(verifier: &Verifier, token: &str) -> String {
    let fault = verifier.verify(token).expect_err(token);
    assert_eq!(fault.reason(), Reason::CredentialsInvalid);
    fault.message().to_owned()
}

#[test]
fn good_tokens_make_callers() {
    let issuer = Issuer::new();
    let caller = |changes| issuer.verifier.verify(&issuer.token(&changes)).unwrap().to_string();
    assert_eq!(caller(json!({})), "customer:kim");
    assert_eq!(caller(json!({"role": "admin", "hospitals": ["seoul"]})), "admin:kim");
    assert_eq!(caller(json!({"role": "auditor", "aud": ["other", "checkup"]})), "auditor:kim");
    assert_eq!(caller(json!({"role": "service", "sub": "screening", "extra": 1})), "service:screening");
}

#[test]
fn a_remembered_token_is_not_printed() {
    let issuer = Issuer::new();
    let token = issuer.token(&json!({}));
    assert!(issuer.verifier.verify(&token).is_ok());
    let printed = format!("{:?}", issuer.verifier);
    assert!(token.split('.').all(|part| !printed.contains(part)), "{printed}");
}

#[test]
fn claims_that_are_not_for_us_are_refused() {
    let issuer = Issuer::new();
    let now = Timestamp::now().as_second();
    let cases = [
        (json!({"exp": now - 60}), "expired"),
        (json!({"nbf": now + 60}), "not valid yet"),
        (json!({"aud": "elsewhere"}), "audience"),
        (json!({"aud": []}), "audience"),
        (json!({"iss": "somebody"}), "issued by"),
        (json!({"aud": null}), "lacks"),
        (json!({"exp": null}), "lacks"),
        (json!({"iss": null}), "lacks"),
        (json!({"role": "root"}), "lacks"),
        (json!({"exp": "tomorrow"}), "lacks"),
        (json!({"sub": "a/b"}), "sub"),
        (json!({"role": "admin", "hospitals": ["SEOUL"]}), "hospitals"),
    ];
    for (changes, why) in cases {
        let message = refusal(&issuer.verifier, &issuer.token(&changes));
        assert!(message.contains(why), "{changes}: {message}");
    }
}

#[test]
fn dates_with_fractions_are_dates() {
    let issuer = Issuer::new();
    let now = Timestamp::now().as_second() as f64;
    let dated = json!({"exp": now + 60.25, "nbf": now - 0.5, "iat": now + 0.125});
    assert!(issuer.verifier.verify(&issuer.token(&dated)).is_ok());
    assert!(refusal(&issuer.verifier, &issuer.token(&json!({"exp": now - 60.5}))).contains("expired"));
    assert!(refusal(&issuer.verifier, &issuer.token(&json!({"nbf": now + 60.5}))).contains("not valid yet"));
}

#[test]
fn a_token_that_asks_for_what_we_do_not_know_is_refused() {
    let issuer = Issuer::new();
    for crit in [vec!["exp"], vec!["b64"], vec!["urn:example:unknown"], vec![]] {
        let crit = Some(crit.into_iter().map(str::to_owned).collect());
        let header = Header { crit, ..Header::new(Algorithm::EdDSA) };
        assert!(refusal(&issuer.verifier, &issuer.token_under(&header, &json!({}))).contains("crit"));
    }
}

#[test]
fn the_longest_token_is_made_and_accepted_and_a_longer_one_neither() {
    let issuer = Issuer::new();
    let admin = |count: usize| {
        let hospitals = (0..count).map(|i| format!("a-hospital-whose-id-is-rather-long-{i:03}")).collect();
        Claims::new(Role::Admin, "lee", Some(Hospitals::Many(hospitals)), Duration::from_secs(60))
    };
    let most = (1..).take_while(|count| issuer.signer.sign(&admin(*count)).is_ok()).last().unwrap();
    let longest = issuer.signer.sign(&admin(most)).unwrap();
    assert!(longest.len() <= MAX_TOKEN_BYTES && longest.len() > MAX_TOKEN_BYTES - 100, "{}", longest.len());
    assert!(issuer.verifier.verify(&longest).is_ok());
    let refused = issuer.signer.sign(&admin(most + 1)).unwrap_err().to_string();
    assert!(refused.contains("4096") && refused.contains("fewer hospitals"), "{refused}");
    let foreign = issuer.token(&json!({"role": "admin", "hospitals": vec!["a-hospital"; 400]}));
    let message = refusal(&issuer.verifier, &foreign);
    assert!(message.contains(&format!("{} bytes", foreign.len())) && message.contains("4096"), "{message}");
}

#[test]
fn a_key_for_encryption_signs_nothing() {
    let issuer = Issuer::new();
    let mut jwks: Value = serde_json::from_str(&issuer.signer.jwks()).unwrap();
    for (purpose, serves) in [("sig", true), ("enc", false)] {
        jwks["keys"][0]["use"] = json!(purpose);
        let verifier = Verifier::from_jwks(&jwks.to_string());
        assert_eq!(
            verifier.is_ok_and(|verifier| verifier.verify(&issuer.token(&json!({}))).is_ok()),
            serves,
            "{purpose}"
        );
    }
}

#[test]
fn signatures_that_are_not_our_issuers_are_refused() {
    let issuer = Issuer::new();
    let good = issuer.token(&json!({}));
    let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
    let claims = encode(&Issuer::claims(&json!({})));

    for algorithm in ["none", "None", "NONE", ""] {
        let header = encode(&json!({"alg": algorithm, "typ": "JWT"}));
        for signature in ["", "AAAA"] {
            refusal(&issuer.verifier, &format!("{header}.{claims}.{signature}"));
        }
    }
    // An HMAC whose secret is the public key, in each form that a confused verifier might use.
    let jwks: Value = serde_json::from_str(&issuer.signer.jwks()).unwrap();
    let public = jwks["keys"][0]["x"].as_str().unwrap();
    for secret in
        [public.as_bytes().to_vec(), URL_SAFE_NO_PAD.decode(public).unwrap(), issuer.signer.jwks().into_bytes()]
    {
        let key = EncodingKey::from_secret(&secret);
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &Issuer::claims(&json!({})), &key).unwrap();
        assert!(refusal(&issuer.verifier, &token).contains("algorithm"));
    }
    // Another key, with and without the id of the real one.
    let stranger = Issuer::new();
    assert!(refusal(&issuer.verifier, &stranger.token(&json!({}))).contains("signature"));
    let hour = Duration::from_secs(3600);
    let signed = stranger.signer.sign(&Claims::new(Role::Customer, "kim", None, hour)).unwrap();
    assert!(refusal(&issuer.verifier, &signed).contains("signature"));
    // A valid signature under other claims.
    let (header, signature) = (good.split('.').next().unwrap(), good.rsplit('.').next().unwrap());
    let forged = encode(&Issuer::claims(&json!({"role": "admin", "hospitals": "*"})));
    assert!(refusal(&issuer.verifier, &format!("{header}.{forged}.{signature}")).contains("signature"));
    for garbage in ["", ".", "..", "a.b.c", "not a token", &"x".repeat(100_000), &good[..good.len() - 2]] {
        refusal(&issuer.verifier, garbage);
    }
    assert!(issuer.verifier.verify(&good).is_ok());
}

#[test]
fn a_remembered_token_still_expires() {
    let issuer = Issuer::new();
    let token = issuer.token(&json!({}));
    let now = Timestamp::now();
    for _ in 0..2 {
        assert!(issuer.verifier.verify_at(&token, now).is_ok());
    }
    let later = now + SignedDuration::from_hours(2);
    assert!(issuer.verifier.verify_at(&token, later).unwrap_err().message().contains("expired"));
    assert!(issuer.verifier.verify_at(&token, now).is_ok());
}

#[test]
fn es256_keys_serve_as_well_and_odd_keys_are_left_out() {
    let key = p256();
    let jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
    let document = serde_json::to_string(&JwkSet { keys: vec![jwk] }).unwrap();
    let verifier = Verifier::from_jwks(&document).unwrap();
    let token = jsonwebtoken::encode(&Header::new(Algorithm::ES256), &Issuer::claims(&json!({})), &key).unwrap();
    assert_eq!(verifier.verify(&token).unwrap().to_string(), "customer:kim");

    for key in [
        json!({"kty": "OKP", "crv": "Ed25519", "x": "AAAA"}),
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!({"kty": "EC", "crv": "P-384", "x": "AAAA", "y": "AAAA"}),
    ] {
        assert!(Verifier::from_jwks(&json!({"keys": [key]}).to_string()).is_err());
    }
    assert!(Verifier::from_jwks("not json").is_err());
}

#[tokio::test]
async fn the_door_tells_handlers_who_calls_and_refuses_bad_tokens_everywhere() {
    let server = Running::start(options()).await;
    let mut client = server.marketing();
    let anonymous = client.list_demand_signals(instructed("caller")).await.unwrap().into_inner();
    assert_eq!(anonymous.next_page_token, Caller::Anonymous.to_string());
    let token = server.token(Role::Admin, "lee");
    for scheme in ["Bearer", "bearer"] {
        let request = instructed_by("caller", &format!("{scheme} {token}"));
        let answer = client.list_demand_signals(request).await.unwrap().into_inner();
        assert_eq!(answer.next_page_token, "admin:lee");
    }
    let expired = Claims { exp: 1, ..Claims::new(Role::Customer, "kim", None, Duration::ZERO) };
    let expired = format!("Bearer {}", server.signer.sign(&expired).unwrap());
    for authorization in [expired.as_str(), "Bearer x", "Bearer", "Basic a2ltOnB3", ""] {
        let status = client.list_demand_signals(instructed_by("caller", authorization)).await.unwrap_err();
        assert_eq!(status.code(), Code::Unauthenticated, "{authorization}");
        assert_eq!(reason_of(&status), Some(Reason::CredentialsInvalid), "{authorization}");
    }
}
