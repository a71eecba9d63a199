//! The one table of services: what each is called, what it has, and how it is built. Everything else looks it up here.

mod slice;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use futures::future::BoxFuture;
use store::{Database, Location};

pub(crate) use slice::{Built, Deps, Slice};

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

type Work<'a, T> = BoxFuture<'a, Result<T, store::Error>>;

/// What the process has to know of a service.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// The name on the command line, in the configuration and in file names.
    pub name: &'static str,
    /// The name of the task that publishes its events. `None` if it only reads: its outbox is empty, and nobody looks
    /// there.
    pub relay: Option<&'static str>,
    /// The durable names of its consumers.
    pub consumers: &'static [&'static str],
    /// Opens its database. See [`Database::open`].
    pub open: fn(&Location) -> Work<'_, Database>,
    /// Runs the migrations that its database still needs, and returns their names. See [`Database::migrate`].
    pub migrate: fn(&Location) -> Work<'_, Vec<String>>,
    pub(crate) options: fn(toml::Table) -> Result<Arc<dyn Slice>, toml::de::Error>,
}

/// The row of a slice. Every slice has these names.
macro_rules! row {
    ($slice:ident, relay: $relay:expr) => {
        Row {
            name: $slice::NAME,
            relay: $relay,
            consumers: $slice::recovery::CONSUMERS,
            open: |location| Box::pin(Database::open::<$slice::Migrator>(location)),
            migrate: |location| Box::pin(Database::migrate::<$slice::Migrator>(location)),
            options: |section| Ok(Arc::new(toml::Value::Table(section).try_into::<$slice::Options>()?)),
        }
    };
}

impl Service {
    /// Every service; producers come before services that only consume.
    pub const ALL: [Self; 5] = [Self::Hospital, Self::Screening, Self::Reservation, Self::MyPage, Self::Marketing];

    /// What the process has to know of it.
    #[must_use]
    pub const fn row(self) -> Row {
        match self {
            Self::Hospital => row!(hospital, relay: Some("hospital-relay")),
            Self::Screening => row!(screening, relay: Some("screening-relay")),
            Self::Reservation => row!(reservation, relay: Some("reservation-relay")),
            Self::MyPage => row!(mypage, relay: None),
            Self::Marketing => row!(marketing, relay: None),
        }
    }

    /// The name of its row.
    #[must_use]
    pub const fn name(self) -> &'static str {
        self.row().name
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
    use runtime::config::{Config, Layers};
    use runtime::server::ServerOptions;

    use super::*;
    use crate::config::{DEFAULT, Settings};

    #[test]
    fn every_service_is_read_back_by_its_name() {
        for service in Service::ALL {
            assert_eq!(service.name().parse(), Ok(service));
        }
        assert!("hospitals".parse::<Service>().is_err());
        assert_eq!(Service::all_but(&[Service::MyPage, Service::MyPage]).len(), 4);
    }

    /// The default document and the defaults in the code must agree: operators read the document, tests use the code.
    #[test]
    fn the_default_document_says_what_the_code_does() {
        let config = Config::load(DEFAULT, &Layers::default()).unwrap();
        let settings = Settings::of(&config).unwrap();
        let Settings { server, consume, publish, slices, .. } = &settings;
        assert!(settings.clock_offset.is_zero());
        assert!(settings.hospitals.values().all(Vec::is_empty) && settings.hospitals.len() == 2);
        assert!(settings.databases.is_empty() && settings.events.is_none());
        assert_eq!(*consume, relay::ConsumeOptions::default());
        assert_eq!(*publish, relay::PublishOptions::default());
        let of = |service: Service| format!("{:#?}", slices[&service]);
        let sections = [
            ("server", format!("{server:#?}"), format!("{:#?}", ServerOptions::default())),
            ("hospital", of(Service::Hospital), format!("{:#?}", hospital::Options::default())),
            ("screening", of(Service::Screening), format!("{:#?}", screening::Options::default())),
            ("reservation", of(Service::Reservation), format!("{:#?}", reservation::Options::default())),
            ("mypage", of(Service::MyPage), format!("{:#?}", mypage::Options::default())),
            ("marketing", of(Service::Marketing), format!("{:#?}", marketing::Options::default())),
        ];
        for (section, document, code) in sections {
            assert_eq!(document, code, "section {section}");
            // an option that the document leaves out silently takes its default, and nobody learns that it can be set
            let keys = config.section::<toml::Table>(section).unwrap();
            for option in
                code.lines().filter_map(|line| line.strip_prefix("    ")?.split_once(':')).map(|(name, _)| name)
            {
                assert!(
                    option.starts_with(' ') || keys.contains_key(option),
                    "{section}.{option} is not in the document"
                );
            }
        }
    }
}
