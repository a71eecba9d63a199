//! The files of the view in a data directory: which one is in use, and the request and the report of a rebuild.
//!
//! An open SQLite file is never renamed, because its write-ahead log would keep the old name. So each generation of the
//! view has its own file: `mypage.db`, `mypage-2.db` and so on. The file `mypage.current` names the one in use and is
//! replaced atomically. Without it, `mypage.db` is in use. After a crash at any moment exactly one generation is in
//! use.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use runtime::entropy::uuid_v4;
use serde::{Deserialize, Serialize};

/// The file that names the view in use.
const POINTER: &str = "mypage.current";
/// The file that requests a rebuild and contains the request's id. It exists until the rebuild ends.
const REQUEST: &str = "mypage.rebuild";
/// The file with the report about the last request.
const REPORT: &str = "mypage.rebuild-report";
/// The suffixes of the files that SQLite keeps for one database.
const BESIDE: [&str; 3] = ["", "-wal", "-shm"];

/// The files of the view in one data directory.
#[derive(Debug, Clone)]
pub struct ViewFiles(PathBuf);

/// The process's report about a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The id of the request.
    pub request: String,
    /// The state of the rebuild.
    pub state: State,
    /// How many events the new view has applied.
    pub applied: u64,
    /// How many events are still to be read.
    pub waiting: u64,
}

/// The state of a rebuild.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// The new view is being fed. The old one answers calls.
    Building,
    /// The new view answers calls.
    Done,
    /// The rebuild failed for this reason. The old view answers calls.
    Failed(String),
}

/// The file name of a generation. The first generation is named like the file of any service.
fn name(generation: u32) -> String {
    match generation {
        1 => "mypage.db".to_owned(),
        later => format!("mypage-{later}.db"),
    }
}

/// The generation that has this file name.
fn generation(file: &str) -> Option<u32> {
    let found = match file.strip_prefix("mypage-") {
        Some(rest) => rest.strip_suffix(".db")?.parse().ok()?,
        None => 1,
    };
    (name(found) == file).then_some(found)
}

impl ViewFiles {
    /// The files of the view in this directory.
    #[must_use]
    pub fn of(directory: &Path) -> Self {
        Self(directory.to_owned())
    }

    /// The path of a generation's file.
    #[must_use]
    pub fn path(&self, generation: u32) -> PathBuf {
        self.0.join(name(generation))
    }

    /// The generation in use.
    ///
    /// # Errors
    /// Fails if the pointer cannot be read or names no generation.
    pub fn current(&self) -> io::Result<u32> {
        match fs::read_to_string(self.0.join(POINTER)) {
            Ok(file) => generation(file.trim()).ok_or_else(|| {
                io::Error::new(ErrorKind::InvalidData, format!("{POINTER} names no view: {:?}", file.trim()))
            }),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(1),
            Err(error) => Err(error),
        }
    }

    /// The number of the next generation, whose file does not exist yet.
    ///
    /// # Errors
    /// Fails if the directory cannot be read.
    pub fn next(&self) -> io::Result<u32> {
        Ok(self.generations()?.into_iter().chain([self.current()?]).max().unwrap_or(1) + 1)
    }

    /// Makes this generation the one in use, and syncs the change.
    ///
    /// # Errors
    /// Fails if the pointer cannot be written. It may have been replaced without being synced.
    pub fn put_in_use(&self, generation: u32) -> io::Result<()> {
        self.write(POINTER, name(generation).as_bytes())?;
        File::open(&self.0)?.sync_all()
    }

    /// Removes the files of a generation, if they exist.
    ///
    /// # Errors
    /// Fails if a file exists and cannot be removed.
    pub fn remove(&self, generation: u32) -> io::Result<()> {
        BESIDE.iter().try_for_each(|suffix| self.remove_file(&format!("{}{suffix}", name(generation))))
    }

    /// Removes what an interrupted rebuild left behind: views that are not in use, and the request, so that the command
    /// that waits for it sees that it failed. Nothing may use the directory meanwhile.
    ///
    /// # Errors
    /// Fails if something cannot be read or removed.
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

    /// Requests a rebuild. Returns the id of the request, and whether it is an earlier one that is still open.
    ///
    /// # Errors
    /// Fails if the directory cannot be written.
    pub fn ask(&self) -> io::Result<(String, bool)> {
        let id = uuid_v4().to_string();
        let part = self.0.join(format!("{REQUEST}.{id}"));
        fs::write(&part, &id)?;
        // a link appears atomically with its content, and only if there is no request yet
        let linked = fs::hard_link(&part, self.0.join(REQUEST));
        fs::remove_file(&part)?;
        match linked {
            Ok(()) => Ok((id, false)),
            Err(error) if error.kind() == ErrorKind::AlreadyExists => match self.asked()? {
                Some(earlier) => Ok((earlier, true)),
                // the earlier request was answered just now
                None => self.ask(),
            },
            Err(error) => Err(error),
        }
    }

    /// The id of the open request, if there is one.
    ///
    /// # Errors
    /// Fails if it cannot be read.
    pub fn asked(&self) -> io::Result<Option<String>> {
        match fs::read_to_string(self.0.join(REQUEST)) {
            Ok(id) => Ok(Some(id)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Removes the request.
    ///
    /// # Errors
    /// Fails if it exists and cannot be removed.
    pub fn withdraw(&self) -> io::Result<()> {
        self.remove_file(REQUEST)
    }

    /// Writes the report about a request.
    ///
    /// # Errors
    /// Fails if it cannot be written.
    pub fn write_report(&self, report: &Report) -> io::Result<()> {
        self.write(REPORT, &serde_json::to_vec(report)?)
    }

    /// The report about this request, if there is one.
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

    /// Replaces a file atomically.
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
