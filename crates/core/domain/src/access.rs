//! Who calls, and what a caller may see or do.
//!
//! Permission is decided before existence is looked up, so a stranger learns nothing from the answer.

use std::collections::BTreeSet;
use std::fmt;

use fault::{Fault, Reason};

use crate::filter::{Comparison, Operator, Value};
use crate::ids::{CustomerId, HospitalId, SlotId};

/// The hospitals an admin administers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Hospitals {
    /// Every hospital: `*` in the token.
    All,
    /// Only the hospitals with these ids.
    Only(BTreeSet<HospitalId>),
}

impl Hospitals {
    /// Whether the caller administers this hospital.
    #[must_use]
    pub fn contain(&self, hospital: &HospitalId) -> bool {
        match self {
            Self::All => true,
            Self::Only(listed) => listed.contains(hospital),
        }
    }
}

/// Who made a call, as a verified token says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A call without a token: public reads only.
    Anonymous,
    /// A person who books for themselves.
    Customer(CustomerId),
    /// A person who administers hospitals.
    Admin {
        /// The token's subject, which names the admin in events.
        subject: String,
        /// The hospitals this admin administers.
        hospitals: Hospitals,
    },
    /// A person who reads everything and writes nothing.
    Auditor(String),
    /// One of the system's own services, by name.
    Service(String),
}

impl fmt::Display for Caller {
    /// Writes `customer:kim`, `admin:lee`, `auditor:kang`, `service:screening` or `anonymous`: the actor of events and
    /// the scope of request ids.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anonymous => write!(f, "anonymous"),
            Self::Customer(customer) => write!(f, "customer:{}", customer.segment()),
            Self::Admin { subject, .. } => write!(f, "admin:{subject}"),
            Self::Auditor(subject) => write!(f, "auditor:{subject}"),
            Self::Service(name) => write!(f, "service:{name}"),
        }
    }
}

/// The rows a finder may return to a caller. Finders take one; there is no unscoped public finder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Every row: for auditors, for admins of all hospitals, and for the services' own consumers.
    Everything,
    /// Only the rows of this customer.
    Customer(CustomerId),
    /// Only the rows of these hospitals.
    Hospitals(BTreeSet<HospitalId>),
}

/// The refusal of a caller that is not one of the roles `needed`, such as `customer or admin`.
#[must_use]
pub fn role_required(needed: &str) -> Fault {
    Fault::new(Reason::RoleRequired, format!("this method needs the role {needed}")).with("requiredRole", needed)
}

pub(crate) fn not_owner(what: &str) -> Fault {
    Fault::new(Reason::NotOwner, format!("this {what} does not belong to the caller")).with("resourceKind", what)
}

impl Caller {
    /// Refuses calls without a token.
    ///
    /// # Errors
    /// CREDENTIALS_MISSING.
    pub fn require_token(&self) -> Result<(), Fault> {
        match self {
            Self::Anonymous => Err(Fault::new(
                Reason::CredentialsMissing,
                "a bearer token is required: send the metadata authorization: Bearer TOKEN",
            )),
            _ => Ok(()),
        }
    }

    /// The first check of admin methods, before the request is looked at.
    ///
    /// # Errors
    /// CREDENTIALS_MISSING, or ROLE_REQUIRED.
    pub fn require_admin(&self) -> Result<(), Fault> {
        self.require_token()?;
        match self {
            Self::Admin { .. } => Ok(()),
            _ => Err(role_required("admin")),
        }
    }

    /// Checks that the caller may write to this hospital.
    ///
    /// # Errors
    /// CREDENTIALS_MISSING, ROLE_REQUIRED, or NOT_OWNER for an admin of other hospitals.
    pub fn require_admin_of(&self, hospital: &HospitalId) -> Result<(), Fault> {
        self.require_admin()?;
        match self {
            Self::Admin { hospitals, .. } if hospitals.contain(hospital) => Ok(()),
            _ => Err(not_owner("hospital")),
        }
    }

    /// Checks that the caller is the service with this name.
    ///
    /// # Errors
    /// CREDENTIALS_MISSING, or ROLE_REQUIRED.
    pub fn require_service(&self, name: &str) -> Result<(), Fault> {
        self.require_token()?;
        match self {
            Self::Service(caller) if caller == name => Ok(()),
            _ => Err(role_required(&format!("service:{name}"))),
        }
    }

    /// The first check of methods that write a customer's screenings: customers and admins.
    ///
    /// # Errors
    /// CREDENTIALS_MISSING, or ROLE_REQUIRED.
    pub fn require_booker(&self) -> Result<(), Fault> {
        self.require_token()?;
        match self {
            Self::Customer(_) | Self::Admin { .. } => Ok(()),
            _ => Err(role_required("customer or admin")),
        }
    }

    /// The first check of methods that read customers' rows: customers, admins and auditors.
    ///
    /// # Errors
    /// CREDENTIALS_MISSING, or ROLE_REQUIRED.
    pub fn require_reader(&self) -> Result<(), Fault> {
        self.require_token()?;
        match self {
            Self::Customer(_) | Self::Admin { .. } | Self::Auditor(_) => Ok(()),
            _ => Err(role_required("customer, admin or auditor")),
        }
    }

    /// Checks that the caller may act for `customer` at `hospital`: the customer, or an admin of that hospital.
    ///
    /// # Errors
    /// NOT_OWNER for any other caller.
    pub fn require_act_for(&self, customer: &CustomerId, hospital: &HospitalId) -> Result<(), Fault> {
        match self {
            Self::Customer(own) if own == customer => Ok(()),
            Self::Admin { hospitals, .. } if hospitals.contain(hospital) => Ok(()),
            _ => Err(not_owner("screening")),
        }
    }

    /// The customers' rows that this caller may read; call [`Caller::require_reader`] first.
    ///
    /// # Errors
    /// ROLE_REQUIRED for callers that may read none.
    pub fn scope(&self) -> Result<Scope, Fault> {
        match self {
            Self::Customer(own) => Ok(Scope::Customer(own.clone())),
            Self::Admin { hospitals: Hospitals::All, .. } | Self::Auditor(_) => Ok(Scope::Everything),
            Self::Admin { hospitals: Hospitals::Only(listed), .. } => Ok(Scope::Hospitals(listed.clone())),
            Self::Anonymous | Self::Service(_) => Err(role_required("customer, admin or auditor")),
        }
    }
}

impl Scope {
    /// Whether the scope includes rows of this customer at this hospital.
    #[must_use]
    pub fn admits(&self, customer: &CustomerId, hospital: &HospitalId) -> bool {
        match self {
            Self::Everything => true,
            Self::Customer(own) => own == customer,
            Self::Hospitals(listed) => listed.contains(hospital),
        }
    }

    /// Refuses a filter that asks for another customer's or another hospital's rows. An empty list would suggest that
    /// there are none.
    ///
    /// # Errors
    /// NOT_OWNER if a comparison with `=` names a customer, hospital or slot outside the scope.
    pub fn require_filter(&self, comparisons: &[Comparison]) -> Result<(), Fault> {
        let foreign = |comparison: &&Comparison| {
            let (Operator::Equal, Value::Text(named)) = (comparison.operator, &comparison.value) else { return false };
            match (self, comparison.field) {
                (Self::Customer(own), "customer") => *named != own.to_string(),
                (Self::Hospitals(listed), "hospital") => HospitalId::parse(named).is_ok_and(|id| !listed.contains(&id)),
                (Self::Hospitals(listed), "slot") => {
                    SlotId::parse(named).is_ok_and(|id| !listed.contains(&id.hospital))
                }
                _ => false,
            }
        };
        comparisons.iter().find(foreign).map_or(Ok(()), |comparison| Err(not_owner(comparison.field)))
    }

    /// The refusal for a row that is outside of this scope or does not exist. A caller who sees everything gets
    /// `missing`; any other caller gets the same NOT_OWNER in both cases.
    #[must_use]
    pub fn absent(&self, missing: Fault, what: &str) -> Fault {
        match self {
            Self::Everything => missing,
            Self::Customer(_) | Self::Hospitals(_) => not_owner(what),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hospital(id: &str) -> HospitalId {
        HospitalId::from_segment(id).unwrap()
    }

    #[test]
    fn an_admin_of_one_hospital_is_nobody_at_another() {
        let admin = Caller::Admin { subject: "lee".into(), hospitals: Hospitals::Only([hospital("seoul")].into()) };
        assert!(admin.require_admin_of(&hospital("seoul")).is_ok());
        assert_eq!(admin.require_admin_of(&hospital("busan")).unwrap_err().reason(), Reason::NotOwner);
    }

    #[test]
    fn roles_do_not_stand_in_for_each_other() {
        let auditor = Caller::Auditor("kang".into());
        assert_eq!(auditor.require_admin().unwrap_err().reason(), Reason::RoleRequired);
        assert_eq!(auditor.require_booker().unwrap_err().reason(), Reason::RoleRequired);
        assert_eq!(Caller::Anonymous.require_booker().unwrap_err().reason(), Reason::CredentialsMissing);
        assert_eq!(
            Caller::Service("marketing".into()).require_service("screening").unwrap_err().reason(),
            Reason::RoleRequired
        );
    }

    #[test]
    fn strangers_cannot_tell_foreign_from_missing() {
        let missing = || Fault::new(Reason::ScreeningNotFound, "no such screening");
        let own = Scope::Customer(CustomerId::from_segment("kim").unwrap());
        assert_eq!(own.absent(missing(), "screening").reason(), Reason::NotOwner);
        assert_eq!(Scope::Everything.absent(missing(), "screening").reason(), Reason::ScreeningNotFound);
    }

    #[test]
    fn a_filter_may_name_only_what_is_inside() {
        let equal = |field, name: &str| {
            let value = Value::Text(name.into());
            vec![Comparison { field, operator: Operator::Equal, value }]
        };
        let own = Scope::Customer(CustomerId::from_segment("kim").unwrap());
        let listed = Scope::Hospitals([hospital("seoul")].into());
        assert!(own.require_filter(&equal("customer", "customers/kim")).is_ok());
        assert!(own.require_filter(&equal("hospital", "hospitals/busan")).is_ok());
        assert!(listed.require_filter(&equal("customer", "customers/lee")).is_ok());
        assert!(listed.require_filter(&equal("slot", "hospitals/seoul/slots/2027-01-04")).is_ok());
        for (scope, field, name) in [
            (&own, "customer", "customers/lee"),
            (&listed, "hospital", "hospitals/busan"),
            (&listed, "slot", "hospitals/busan/slots/2027-01-04"),
        ] {
            assert_eq!(scope.require_filter(&equal(field, name)).unwrap_err().reason(), Reason::NotOwner);
            assert!(Scope::Everything.require_filter(&equal(field, name)).is_ok());
        }
    }
}
