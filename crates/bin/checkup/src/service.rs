//! The one list of services.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// A service this binary can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Owns hospitals, slots and claims.
    Hospital,
    /// Owns bookings.
    Screening,
    /// Keeps the ledger of reservations.
    Reservation,
    /// Keeps each customer's view of their bookings.
    MyPage,
    /// Shows demand and proposes more places.
    Marketing,
}

impl Service {
    /// Every service; producers come before services that only consume.
    pub const ALL: [Self; 5] = [Self::Hospital, Self::Screening, Self::Reservation, Self::MyPage, Self::Marketing];

    /// The service's name on the command line, in the configuration and in file names.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hospital => hospital::NAME,
            Self::Screening => screening::NAME,
            Self::Reservation => reservation::NAME,
            Self::MyPage => mypage::NAME,
            Self::Marketing => marketing::NAME,
        }
    }

    /// Whether it tells others what happened. One that only reads has nothing in its outbox, and nobody looks there.
    #[must_use]
    pub const fn publishes(self) -> bool {
        match self {
            Self::Hospital | Self::Screening | Self::Reservation => true,
            Self::MyPage | Self::Marketing => false,
        }
    }

    /// Every service except these.
    #[must_use]
    pub fn all_but(excluded: &[Self]) -> BTreeSet<Self> {
        Self::ALL.into_iter().filter(|service| !excluded.contains(service)).collect()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Service {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|service| service.name() == text);
        found.ok_or_else(|| format!("a service is one of {}", Self::ALL.map(Self::name).join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_service_is_read_back_by_its_name() {
        for service in Service::ALL {
            assert_eq!(service.name().parse(), Ok(service));
        }
        assert!("hospitals".parse::<Service>().is_err());
        assert_eq!(Service::all_but(&[Service::MyPage, Service::MyPage]).len(), 4);
    }
}
