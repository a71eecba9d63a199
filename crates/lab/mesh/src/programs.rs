//! Finding installed servers.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Error;

/// The directories of PATH.
fn search_path() -> Vec<PathBuf> {
    std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default()
}

/// The first two numbers in the output of `program --version`.
fn version(program: &Path) -> Option<(u32, u32)> {
    let output = Command::new(program).arg("--version").output().ok()?;
    numbers(&String::from_utf8_lossy(&output.stdout))
}

fn numbers(text: &str) -> Option<(u32, u32)> {
    let start = text.find(|c: char| c.is_ascii_digit())?;
    let mut parts = text[start..].split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((parts.next()?.ok()?, parts.next().and_then(Result::ok).unwrap_or(0)))
}

/// The directory of the programs of one PostgreSQL installation.
#[derive(Debug, Clone)]
pub(crate) struct PostgresPrograms(PathBuf);

const OLDEST_POSTGRES: u32 = 15;
const DEBIAN: &str = "/usr/lib/postgresql";

impl PostgresPrograms {
    /// Finds a complete installation in PATH, or else the newest of those that Debian keeps out of PATH.
    pub(crate) fn find() -> Result<Self, Error> {
        let whole = |directory: &PathBuf| {
            let all = ["postgres", "initdb", "pg_isready", "psql"].iter().all(|name| directory.join(name).is_file());
            all && version(&directory.join("postgres")).is_some_and(|(major, _)| major >= OLDEST_POSTGRES)
        };
        search_path().into_iter().chain(debian()).find(whole).map(Self).ok_or(Error::Missing {
            program: "PostgreSQL 15 or newer",
            advice: "install the Debian package postgresql, or put postgres, initdb, pg_isready and psql in PATH, \
                     or name a server in CHECKUP_TEST_POSTGRES_URL",
        })
    }

    pub(crate) fn program(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// Finds `psql` alone, for a server that runs elsewhere.
pub(crate) fn psql() -> Result<PathBuf, Error> {
    let places = search_path().into_iter().chain(debian()).map(|directory| directory.join("psql"));
    let advice = "install the Debian package postgresql-client, or put psql in PATH";
    places.into_iter().find(|path| path.is_file()).ok_or(Error::Missing { program: "psql", advice })
}

fn debian() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(DEBIAN).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> = entries
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path().join("bin"))))
        .collect();
    versions.sort_by_key(|(version, _)| std::cmp::Reverse(*version));
    versions.into_iter().map(|(_, directory)| directory).collect()
}

const OLDEST_NATS: (u32, u32) = (2, 12);

/// Finds nats-server in PATH, or where `make tools` installs it.
pub(crate) fn nats_server() -> Result<PathBuf, Error> {
    let here = std::env::current_dir().unwrap_or_default();
    let roots = here.ancestors().chain(Path::new(env!("CARGO_MANIFEST_DIR")).ancestors());
    let tools = roots.map(|root| root.join(".tools/venv/bin"));
    let mut places = search_path().into_iter().chain(tools).map(|directory| directory.join("nats-server"));
    let new_enough = |path: &PathBuf| path.is_file() && version(path).is_some_and(|version| version >= OLDEST_NATS);
    places.find(new_enough).ok_or(Error::Missing {
        program: "nats-server 2.12 or newer",
        advice: "run `make tools`, or put one in PATH, or name a server in CHECKUP_TEST_NATS_URL",
    })
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_are_read_as_the_programs_print_them() {
        assert_eq!(numbers("nats-server: v2.15.1\n"), Some((2, 15)));
        assert_eq!(numbers("postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)\n"), Some((15, 13)));
        assert_eq!(numbers("postgres (PostgreSQL) 18beta1\n"), Some((18, 0)));
        assert_eq!(numbers("what?"), None);
    }
}
