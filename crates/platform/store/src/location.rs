//! The location of a service's database.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use sea_orm::sqlx::postgres::PgConnectOptions;

/// The location of a database.
#[derive(Clone, PartialEq, Eq)]
pub enum Location {
    /// One file, made if it is missing. Its `-wal` and `-shm` files lie beside it.
    Sqlite(PathBuf),
    /// A database of a PostgreSQL server, as `postgres://USER:PASSWORD@HOST:PORT/DATABASE`. Its collation must be C,
    /// see [`crate::Database::open`].
    Postgres(String),
}

/// The text does not name a database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocationError;

impl fmt::Display for LocationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a database is postgres://USER@HOST:PORT/NAME or sqlite:PATH")
    }
}

impl std::error::Error for LocationError {}

impl FromStr for Location {
    type Err = LocationError;

    fn from_str(text: &str) -> Result<Self, LocationError> {
        if let Some(path) = text.strip_prefix("sqlite:").filter(|path| !path.is_empty()) {
            return Ok(Self::Sqlite(path.into()));
        }
        let is_url = text.starts_with("postgres://") || text.starts_with("postgresql://");
        let options = is_url.then(|| text.parse::<PgConnectOptions>().ok()).flatten();
        match options.and_then(|options| options.get_database().map(str::to_owned)) {
            Some(name) if !name.is_empty() => Ok(Self::Postgres(text.to_owned())),
            _ => Err(LocationError),
        }
    }
}

/// Fit for logs: it contains no password.
impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => path.display().fmt(f),
            Self::Postgres(url) => match url.parse::<PgConnectOptions>() {
                Ok(options) => {
                    let (host, port) = (options.get_host(), options.get_port());
                    write!(f, "{} on {host}:{port}", options.get_database().unwrap_or_default())
                }
                Err(_) => f.write_str("a PostgreSQL database"),
            },
        }
    }
}

impl fmt::Debug for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Location({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_read_and_shown_without_its_password() {
        let postgres: Location = "postgres://kim:secret@db.example:5433/hospital".parse().unwrap();
        assert_eq!(postgres.to_string(), "hospital on db.example:5433");
        assert!(!format!("{postgres:?}").contains("secret"));
        assert_eq!("sqlite:/var/lib/x.db".parse(), Ok(Location::Sqlite("/var/lib/x.db".into())));
        for wrong in ["", "sqlite:", "mysql://a/b", "postgres://", "postgres://h/", "hospital"] {
            assert_eq!(wrong.parse::<Location>(), Err(LocationError), "{wrong}");
        }
    }
}
