//! The files of a view in a data directory: which one is in use, and what is said about building it anew.
//!
//! An open SQLite file is never renamed, because its write-ahead log keeps the old name. So each generation of the view has a
//! file of its own, `mypage.db`, `mypage-2.db` and so on, and `mypage.current`, which is replaced in one step, names the one in
//! use; without it that is `mypage.db`. A crash at any moment leaves the one or the other in use, and never half of both.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use runtime::entropy::uuid_v4;
use serde::{Deserialize, Serialize};

/// Names the file in use.
const POINTER: &str = "mypage.current";
/// Asks for a rebuild; there while one is wanted or under way. Its content is the id that the report answers to.
const REQUEST: &str = "mypage.rebuild";
/// What became of the last request.
const REPORT: &str = "mypage.rebuild-report";
/// What SQLite keeps beside a file.
const BESIDE: [&str; 3] = ["", "-wal", "-shm"];

/// The files of the view in one data directory.
#[derive(Debug, Clone)]
pub struct ViewFiles(PathBuf);

/// What the process says about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// Which request.
    pub request: String,
    /// How far it is.
    pub state: State,
    /// Events applied so far.
    pub applied: u64,
    /// Events that are still to be read.
    pub waiting: u64,
}

/// How far a rebuild is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The new view is being fed; the old one answers.
    Building,
    /// The new view answers.
    Done,
    /// It was given up for this reason; the old view answers.
    Failed(String),
}

/// The file of a generation of the view. The first one has the name every service's file has.
fn name(generation: u32) -> String {
    match generation {
        1 => "mypage.db".to_owned(),
        later => format!("mypage-{later}.db"),
    }
}

/// The generation whose file is called so.
fn generation(file: &str) -> Option<u32> {
    let found = match file.strip_prefix("mypage-") {
        Some(rest) => rest.strip_suffix(".db")?.parse().ok()?,
        None => 1,
    };
    (name(found) == file).then_some(found)
}

impl ViewFiles {
    /// Those in this directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// Where a generation is kept.
    #[must_use]
    pub fn path(&self, generation: u32) -> PathBuf {
        self.0.join(name(generation))
    }

    /// The generation in use.
    ///
    /// # Errors
    /// Where that cannot be read, or names none.
    pub fn current(&self) -> io::Result<u32> {
        match fs::read_to_string(self.0.join(POINTER)) {
            Ok(file) => generation(file.trim()).ok_or_else(|| {
                io::Error::new(ErrorKind::InvalidData, format!("{POINTER} names no view: {:?}", file.trim()))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(1),
            Err(error) => Err(error),
        }
    }

    /// A generation that is not there yet.
    ///
    /// # Errors
    /// Where the directory cannot be read.
    pub fn next(&self) -> io::Result<u32> {
        Ok(self.generations()?.into_iter().chain([self.current()?]).max().unwrap_or(1) + 1)
    }

    /// From now on this generation is in use, also after the power fails.
    ///
    /// # Errors
    /// Where that cannot be written; the old one is in use then.
    pub fn put_in_use(&self, generation: u32) -> io::Result<()> {
        self.write(POINTER, name(generation).as_bytes())?;
        File::open(&self.0)?.sync_all()
    }

    /// Removes the files of a generation.
    ///
    /// # Errors
    /// Where one of them is there and cannot be removed.
    pub fn remove(&self, generation: u32) -> io::Result<()> {
        BESIDE.iter().try_for_each(|suffix| self.remove_file(&format!("{}{suffix}", name(generation))))
    }

    /// Removes what a process that ended in the middle left behind: views that are not in use, and the request, for whoever
    /// asked has to know that it came to nothing. Nothing may use the directory.
    ///
    /// # Errors
    /// Where something cannot be read or removed.
    pub fn settle(&self) -> io::Result<()> {
        let current = self.current()?;
        for left in self.generations()?.into_iter().filter(|found| *found != current) {
            self.remove(left)?;
        }
        for file in self.names()? {
            let is_part = file.starts_with(POINTER) && file != POINTER;
            if is_part || file.starts_with(REQUEST) {
                self.remove_file(&file)?;
            }
        }
        Ok(())
    }

    /// Asks for a rebuild: its id, and whether one that was asked for earlier goes by it.
    ///
    /// # Errors
    /// Where the directory cannot be written.
    pub fn ask(&self) -> io::Result<(String, bool)> {
        let id = uuid_v4().to_string();
        let part = self.0.join(format!("{REQUEST}.{id}"));
        fs::write(&part, &id)?;
        // linked, so that it appears with its content, and only where there is none
        let linked = fs::hard_link(&part, self.0.join(REQUEST));
        fs::remove_file(&part)?;
        match linked {
            Ok(()) => Ok((id, false)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match self.asked()? {
                Some(earlier) => Ok((earlier, true)),
                // it was answered in this very moment
                None => self.ask(),
            },
            Err(error) => Err(error),
        }
    }

    /// The request there is.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn asked(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.0.join(REQUEST)) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Takes the request back.
    ///
    /// # Errors
    /// Where it is there and cannot be removed.
    pub fn withdraw(&self) -> io::Result<()> {
        self.remove_file(REQUEST)
    }

    /// Says how far a request is.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn write_report(&self, report: &Report) -> io::Result<()> {
        self.write(REPORT, &serde_json::to_vec(report)?)
    }

    /// What was said about a request.
    #[must_use]
    pub fn report_of(&self, request: &str) -> Option<Report> {
        let report: Report = serde_json::from_slice(&fs::read(self.0.join(REPORT)).ok()?).ok()?;
        (report.request == request).then_some(report)
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.0)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
        names.collect()
    }

    fn generations(&self) -> io::Result<Vec<u32>> {
        let of = |file: &String| {
            let bare = BESIDE[1..].iter().find_map(|suffix| file.strip_suffix(suffix)).unwrap_or(file);
            generation(bare)
        };
        Ok(self.names()?.iter().filter_map(of).collect())
    }

    fn remove_file(&self, file: &str) -> io::Result<()> {
        match fs::remove_file(self.0.join(file)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Replaces a file in one step.
    fn write(&self, file: &str, content: &[u8]) -> io::Result<()> {
        let part = self.0.join(format!("{file}.part"));
        let mut written = File::create(&part)?;
        written.write_all(content)?;
        written.sync_all()?;
        fs::rename(part, self.0.join(file))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn directory() -> (ViewFiles, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (ViewFiles::of(dir.path()), dir)
    }

    fn touch(dir: &tempfile::TempDir, names: &[&str]) {
        names.iter().for_each(|name| fs::write(dir.path().join(name), "").unwrap());
    }

    fn left(dir: &tempfile::TempDir) -> Vec<String> {
        let names = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn the_first_view_needs_no_pointer_and_a_later_one_has_a_name_that_was_never_used() {
        let (files, dir) = directory();
        assert_eq!((files.current().unwrap(), files.next().unwrap()), (1, 2));
        touch(&dir, &["mypage.db", "mypage-7.db-wal", "mypage-x.db", "hospital.db"]);
        assert_eq!(files.next().unwrap(), 8);
        files.put_in_use(8).unwrap();
        assert_eq!((files.current().unwrap(), files.path(8)), (8, dir.path().join("mypage-8.db")));
        assert_eq!(files.next().unwrap(), 9);
    }

    #[test]
    fn what_is_left_of_a_crash_goes_and_the_view_in_use_stays() {
        let (files, dir) = directory();
        let all = ["mypage.db", "mypage.db-wal", "mypage-2.db", "mypage-2.db-shm", "mypage-3.db", "screening.db"];
        touch(&dir, &all);
        touch(&dir, &["mypage.current.part", "mypage.rebuild", "mypage.rebuild-report", "mypage-02.db"]);
        files.put_in_use(2).unwrap();
        files.settle().unwrap();
        let expected = ["mypage-02.db", "mypage-2.db", "mypage-2.db-shm", "mypage.current", "screening.db"];
        assert_eq!(left(&dir), expected);
    }

    #[test]
    fn a_pointer_that_names_no_view_removes_nothing() {
        let (files, dir) = directory();
        touch(&dir, &["mypage.db", "mypage-2.db"]);
        fs::write(dir.path().join(POINTER), "../screening.db").unwrap();
        assert_eq!(files.settle().unwrap_err().kind(), ErrorKind::InvalidData);
        assert_eq!(left(&dir), ["mypage-2.db", "mypage.current", "mypage.db"]);
    }

    #[test]
    fn a_second_request_goes_by_the_first_until_that_is_answered() {
        let (files, dir) = directory();
        let (first, joined) = files.ask().unwrap();
        assert!(!joined);
        assert_eq!(files.ask().unwrap(), (first.clone(), true));
        let report = Report { request: first.clone(), state: State::Failed("no".into()), applied: 1, waiting: 2 };
        files.write_report(&report).unwrap();
        assert_eq!(files.report_of(&first), Some(report));
        files.withdraw().unwrap();
        let (second, joined) = files.ask().unwrap();
        assert!(!joined && second != first);
        assert_eq!(files.report_of(&second), None);
        assert_eq!(left(&dir), [REQUEST, REPORT]);
    }
}
