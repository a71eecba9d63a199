//! The team's store: one file, which is replaced in one step. It stands for a database with transactions.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::fold::State;

/// A message that could not be applied, for a person.
#[derive(Debug, Serialize, Deserialize)]
struct Aside {
    subject: String,
    message: String,
    error: String,
}

#[derive(Debug, Default, Serialize, Deserialize)]
struct Kept {
    state: State,
    aside: BTreeMap<u64, Aside>,
}

/// What was committed, and what the messages at hand have changed.
pub struct Store {
    file: PathBuf,
    pub state: State,
    aside: BTreeMap<u64, Aside>,
}

impl Store {
    /// Reads the file, if there is one.
    pub fn open(file: PathBuf) -> Outcome<Self> {
        let Kept { state, aside } = match File::open(&file) {
            Ok(open) => serde_json::from_reader(std::io::BufReader::new(open))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Kept::default(),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { file, state, aside })
    }

    /// Remembers a message that was tried in vain, from the next commit on.
    pub fn put_aside(&mut self, sequence: u64, subject: &str, message: &[u8], error: &str) {
        let (subject, message, error) = (subject.to_owned(), STANDARD.encode(message), error.to_owned());
        self.aside.insert(sequence, Aside { subject, message, error });
    }

    /// Writes everything, and returns once it would survive a power failure.
    pub fn commit(&mut self) -> Outcome<()> {
        let next = self.file.with_extension("next");
        let mut file = File::create(&next)?;
        let kept = Kept { state: std::mem::take(&mut self.state), aside: std::mem::take(&mut self.aside) };
        let written = serde_json::to_vec(&kept);
        (self.state, self.aside) = (kept.state, kept.aside);
        file.write_all(&written?)?;
        file.sync_all()?;
        std::fs::rename(next, &self.file)?;
        let folder = self.file.parent().filter(|folder| !folder.as_os_str().is_empty());
        Ok(File::open(folder.unwrap_or_else(|| ".".as_ref()))?.sync_all()?)
    }
}
