//! The errors of a configuration, and where each value came from.

use std::fmt;
use std::path::PathBuf;

/// The origin of a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The default document, which is part of the binary.
    Default,
    /// The configuration file with this path.
    File(PathBuf),
    /// The environment variable with this name.
    Env(String),
    /// A flag, as it was given on the command line.
    Flag(String),
    /// More than one of these origins.
    Several,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => write!(f, "default configuration"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => write!(f, "environment variable {name}"),
            Self::Flag(flag) => write!(f, "flag --set {flag}"),
            Self::Several => write!(f, "configuration"),
        }
    }
}

/// One error in the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// The origin of the wrong value.
    pub origin: Origin,
    /// The dotted path of the key; empty if the error is about the whole document.
    pub key: String,
    /// The problem, as the end of a sentence that begins with the key.
    pub problem: String,
}

impl ConfigError {
    pub(super) fn new(origin: Origin, key: &str, problem: String) -> Self {
        Self { origin, key: key.to_owned(), problem }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.origin)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        write!(f, "{}", self.problem)
    }
}

impl std::error::Error for ConfigError {}
