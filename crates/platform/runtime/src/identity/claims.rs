//! The claims of a token, and the caller that they describe.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use domain::access::{self, Caller};
use domain::ids::{CustomerId, HospitalId};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};

use crate::clock::Clock;

/// The issuer and the audience of every token.
pub const ISSUER: &str = "checkup";

/// The role of a token's owner.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Books for themselves; the subject is the customer's id.
    Customer,
    /// Administers the hospitals that the token lists.
    Admin,
    /// Reads everything and writes nothing.
    Auditor,
    /// One of the system's own services; the subject is its name.
    Service,
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "customer" => Ok(Self::Customer),
            "admin" => Ok(Self::Admin),
            "auditor" => Ok(Self::Auditor),
            "service" => Ok(Self::Service),
            _ => Err("a role is one of customer, admin, auditor, service".to_owned()),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Customer => "customer",
            Self::Admin => "admin",
            Self::Auditor => "auditor",
            Self::Service => "service",
        })
    }
}

/// The hospitals of an admin as a token writes them: `"*"`, one id, or a list of either.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Hospitals {
    /// `"*"` or one id.
    One(String),
    /// A list of ids, or of `"*"`.
    Many(Vec<String>),
}

impl FromStr for Hospitals {
    type Err = String;

    /// Reads `*` or ids separated by commas, as command lines write them.
    fn from_str(text: &str) -> Result<Self, String> {
        let hospitals = Self::Many(text.split(',').map(|id| id.trim().to_owned()).collect());
        hospitals.access().map(|_| hospitals)
    }
}

impl Hospitals {
    fn access(&self) -> Result<access::Hospitals, String> {
        let listed = match self {
            Self::One(id) => std::slice::from_ref(id),
            Self::Many(ids) => ids.as_slice(),
        };
        if listed.iter().any(|id| id == "*") {
            return Ok(access::Hospitals::All);
        }
        let ids: Result<_, _> = listed.iter().map(|id| HospitalId::from_segment(id)).collect();
        ids.map(access::Hospitals::Only)
            .map_err(|malformed| format!("the claim hospitals is malformed: an id {}", malformed.0))
    }
}

/// The audience of a token: issuers write one name or a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One audience, as a string.
    One(String),
    /// A list of audiences.
    Many(Vec<String>),
}

impl Audience {
    /// Whether the token is meant for this system.
    pub(super) fn is_ours(&self) -> bool {
        match self {
            Self::One(name) => name == ISSUER,
            Self::Many(names) => names.iter().any(|name| name == ISSUER),
        }
    }
}

/// The claims of a token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// The subject: the id of the token's owner.
    pub sub: String,
    /// The role of the token's owner.
    pub role: Role,
    /// The hospitals that an admin administers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hospitals: Option<Hospitals>,
    /// The issuer, which is [`ISSUER`] for tokens of this system.
    pub iss: String,
    /// The audience that the token is meant for.
    pub aud: Audience,
    /// The time from which the token is invalid, in seconds since 1970.
    #[serde(deserialize_with = "numeric_date")]
    pub exp: i64,
    /// The time before which the token is invalid, in seconds since 1970.
    #[serde(default, deserialize_with = "optional_numeric_date", skip_serializing_if = "Option::is_none")]
    pub nbf: Option<i64>,
    /// The time at which the token was issued, in seconds since 1970.
    #[serde(default, deserialize_with = "optional_numeric_date", skip_serializing_if = "Option::is_none")]
    pub iat: Option<i64>,
}

/// Reads a NumericDate of RFC 7519: any JSON number of seconds, with or without a fraction. It is rounded down,
/// because clocks are less exact than that. A number beyond the range becomes the greatest or the smallest one.
fn numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = serde_json::Number::deserialize(deserializer)?;
    let floored = || number.as_f64().map(|seconds| seconds.floor() as i64);
    number.as_i64().or_else(floored).ok_or_else(|| D::Error::custom("not a number of seconds"))
}

fn optional_numeric_date<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    #[derive(Deserialize)]
    struct Date(#[serde(deserialize_with = "numeric_date")] i64);
    Ok(Option::<Date>::deserialize(deserializer)?.map(|date| date.0))
}

impl Claims {
    /// Claims that are valid from now, with this system as issuer and audience.
    #[must_use]
    pub fn new(role: Role, subject: impl Into<String>, hospitals: Option<Hospitals>, ttl: Duration) -> Self {
        let now = Clock::system().now().as_second();
        Self {
            sub: subject.into(),
            role,
            hospitals,
            iss: ISSUER.to_owned(),
            aud: Audience::One(ISSUER.to_owned()),
            exp: now.saturating_add(i64::try_from(ttl.as_secs()).unwrap_or(i64::MAX)),
            nbf: None,
            iat: Some(now),
        }
    }

    /// The caller that the claims describe. An admin without hospitals administers none.
    ///
    /// # Errors
    /// The fault in the claims, in words for the token's owner.
    pub fn caller(&self) -> Result<Caller, String> {
        // The subject becomes the actor of events and the scope of request ids, so it follows the rules for customer
        // ids in every role.
        let customer =
            CustomerId::from_segment(&self.sub).map_err(|malformed| format!("the claim sub {}", malformed.0))?;
        let subject = self.sub.clone();
        Ok(match self.role {
            Role::Customer => Caller::Customer(customer),
            Role::Auditor => Caller::Auditor(subject),
            Role::Service => Caller::Service(subject),
            Role::Admin => {
                let none = Hospitals::Many(Vec::new());
                Caller::Admin { subject, hospitals: self.hospitals.as_ref().unwrap_or(&none).access()? }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        serde_json::from_str(&format!(r#"{{"iss":"checkup","aud":["x","checkup"],"exp":1,{json}}}"#)).unwrap()
    }

    #[test]
    fn hospitals_are_a_star_an_id_or_a_list() {
        let all = claims(r#""sub":"lee","role":"admin","hospitals":"*""#).caller().unwrap();
        assert_eq!(all, Caller::Admin { subject: "lee".into(), hospitals: access::Hospitals::All });
        let seoul = HospitalId::from_segment("seoul").unwrap();
        for one in [r#""seoul""#, r#"["seoul"]"#] {
            let caller = claims(&format!(r#""sub":"lee","role":"admin","hospitals":{one}"#)).caller().unwrap();
            let only = access::Hospitals::Only([seoul.clone()].into());
            assert_eq!(caller, Caller::Admin { subject: "lee".into(), hospitals: only });
        }
        let none = claims(r#""sub":"lee","role":"admin""#).caller().unwrap();
        assert!(none.require_admin_of(&seoul).is_err());
        assert!(claims(r#""sub":"lee","role":"admin","hospitals":"Seoul""#).caller().is_err());
        assert_eq!("*".parse(), Ok(Hospitals::Many(vec!["*".into()])));
        assert!("seoul,,busan".parse::<Hospitals>().is_err());
    }

    #[test]
    fn dates_may_have_fractions_and_are_numbers() {
        let dated = |dates: &str| {
            serde_json::from_str::<Claims>(&format!(
                r#"{{"iss":"checkup","aud":"checkup","sub":"kim","role":"customer",{dates}}}"#
            ))
        };
        let read = dated(r#""exp":1800000000.75,"nbf":1.5e9,"iat":-0.5"#).unwrap();
        assert_eq!((read.exp, read.nbf, read.iat), (1_800_000_000, Some(1_500_000_000), Some(-1)));
        let read = dated(r#""exp":1e300,"nbf":null"#).unwrap();
        assert_eq!((read.exp, read.nbf, read.iat), (i64::MAX, None, None));
        assert_eq!(dated(r#""exp":18446744073709551615"#).unwrap().exp, i64::MAX);
        for wrong in
            [r#""exp":null"#, r#""exp":"1800000000""#, r#""exp":[1]"#, r#""exp":1,"nbf":"1""#, r#""exp":1,"iat":{}"#]
        {
            assert!(dated(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_subject_is_a_segment() {
        assert!(claims(r#""sub":"a/b","role":"customer""#).caller().is_err());
        assert!(claims(r#""sub":"","role":"service""#).caller().is_err());
        assert_eq!(claims(r#""sub":"kim","role":"customer""#).caller().unwrap().to_string(), "customer:kim");
    }
}
