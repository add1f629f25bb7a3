//! The directory of a store, and the file in it that is its log at the time.
//!
//! | file | holds |
//! |---|---|
//! | `log.N` | the log; when it has grown too long it is sealed, and `log.N+1` begins with all that is known |
//! | `clients` | nothing; each client holds the lock on a byte of its own |
//! | `bell` | nothing of interest; written to after a change, for those who wait |
//! | `new.*` | a log that is not finished |
//!
//! No lock is ever waited for. The number of the newest log only grows, since an older one is removed only when
//! a newer one is there. So whoever has opened a log and then sees no newer one has the newest.

use super::log::{self, MARKER, Marker, Parser, Record};
use crate::auth;
use crate::error::{Code, Error, Extent, Result};
use crate::sys::file::{self, Open};
use crate::sys::process;
use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

/// The directory.
#[derive(Debug)]
pub struct Place {
    path: PathBuf,
}

impl Place {
    /// Makes the directory, if it is not there, and sees that it is this user's and no other's.
    pub fn prepare(path: &Path) -> Result<Place> {
        let place = Place { path: path.to_path_buf() };
        match file::make_private_folder(path) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(place.failed("making the directory", &e));
            }
            _ => {}
        }
        let about = std::fs::metadata(path).map_err(|e| place.failed("looking at the directory", &e))?;
        let wrong = |why: String| Err(Error::argument(format!("store: '{}' {why}", path.display())));
        if !about.is_dir() {
            return wrong("is not a directory".into());
        }
        if about.uid() != process::euid() {
            return wrong(format!("belongs to user {}, not to user {}", about.uid(), process::euid()));
        }
        if about.mode() & 0o022 != 0 {
            let mode = about.mode() & 0o777;
            return wrong(format!("can be written to by others (mode {mode:o}); expected mode 700"));
        }
        Ok(place)
    }

    /// The path of a file in it.
    pub fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Opens a file that all share, and makes it if it is not there.
    pub fn shared(&self, name: &str) -> Result<File> {
        let file = file::open_private(&self.at(name), Open::Shared);
        let file = file.map_err(|e| self.failed(&format!("opening {name}"), &e))?;
        if file::is_remote(&file).map_err(|e| self.failed("looking at the file system", &e))? {
            let path = self.path.display();
            return Err(Error::argument(format!(
                "store: '{path}' lies on a network file system; file:// takes a directory of this machine"
            )));
        }
        Ok(file)
    }

    /// The number of the newest log.
    pub fn newest(&self) -> Result<Option<u64>> {
        Ok(self.numbers()?.into_iter().max())
    }

    fn numbers(&self) -> Result<Vec<u64>> {
        let numbers = self.names()?.into_iter().filter_map(|name| name.strip_prefix("log.")?.parse().ok());
        Ok(numbers.collect())
    }

    fn names(&self) -> Result<Vec<String>> {
        let entries = std::fs::read_dir(&self.path).map_err(|e| self.failed("reading the directory", &e))?;
        Ok(entries.flatten().filter_map(|e| e.file_name().into_string().ok()).collect())
    }

    /// Opens a log; `None` when it is not there any more.
    pub fn open(&self, number: u64) -> Result<Option<Log>> {
        let path = self.at(&format!("log.{number}"));
        match file::open_private(&path, Open::Append) {
            Ok(file) => Ok(Some(Log { path, number, file, read: 0, parser: Parser::default() })),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.failed(&format!("opening log.{number}"), &e)),
        }
    }

    /// Makes the log of this number, unless somebody was faster, and tidies up.
    pub fn publish(&self, number: u64, image: Vec<u8>) -> Result<()> {
        let mut random = [0; MARKER + 8];
        auth::fill_random(&mut random)?;
        let (marker, name) = random.split_at(MARKER);
        let marker: Marker = marker.try_into().unwrap_or_default();
        let name: String = name.iter().map(|b| format!("{b:02x}")).collect();
        let new = self.at(&format!("new.{name}"));
        let bytes = [log::header(&marker), log::encode(&Record::Image(image), &marker)].concat();
        let write = || {
            let mut file = file::open_private(&new, Open::New)?;
            file.write_all(&bytes)?;
            // A machine that loses its power must not leave a log without its beginning.
            file.sync_data()
        };
        let linked = write().and_then(|()| {
            // Unlike a renaming, this fails when the name is taken.
            std::fs::hard_link(&new, self.at(&format!("log.{number}")))
        });
        let _ = std::fs::remove_file(&new);
        match linked {
            Ok(()) => self.tidy(number),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {}
            // The directory is gone, or somebody has tidied up in the meantime.
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.path.exists() => {}
            Err(e) => return Err(self.failed(&format!("making log.{number}"), &e)),
        }
        Ok(())
    }

    /// Removes what is older than the log before this one, which somebody may be about to open, and what those
    /// have left who died while they made one; who lives makes it anew.
    fn tidy(&self, number: u64) {
        for name in self.names().unwrap_or_default() {
            let old = name.strip_prefix("log.").and_then(|n| n.parse::<u64>().ok());
            if old.is_some_and(|n| n.saturating_add(1) < number) || name.starts_with("new.") {
                let _ = std::fs::remove_file(self.at(&name));
            }
        }
    }

    /// An error of a system call.
    pub fn failed(&self, what: &str, e: &io::Error) -> Error {
        Error::system(&format!("store: {self}: {what}"), e)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the directory '{}'", self.path.display())
    }
}

/// An open log.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    number: u64,
    file: File,
    read: u64,
    parser: Parser,
}

impl Log {
    /// Which one it is.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Bytes of it that have been read.
    pub fn len(&self) -> u64 {
        self.read
    }

    /// Reads what has been appended. Answers whether the file is still in its directory.
    pub fn read_on(&mut self) -> Result<bool> {
        let about = self.file.metadata().map_err(|e| self.failed("fstat", &e))?;
        if about.len() < self.read {
            return Err(self.damaged("has become shorter"));
        }
        let mut left = about.len() - self.read;
        let mut chunk = vec![0; left.min(256 * 1024) as usize];
        while left > 0 {
            let n = match self.file.read_at(&mut chunk, self.read) {
                Ok(0) => break,
                Ok(n) => n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(e) => return Err(self.failed("reading", &e)),
            };
            self.parser.extend(chunk.get(..n).unwrap_or_default());
            self.read += n as u64;
            left = left.saturating_sub(n as u64);
        }
        Ok(about.nlink() > 0)
    }

    /// The next record of what has been read.
    pub fn next(&mut self) -> Result<Option<Record>> {
        self.parser.next().map_err(|why| self.damaged(&format!("holds {}", why.0)))
    }

    /// Appends a record, whole or not at all.
    pub fn append(&mut self, record: &Record) -> Result<()> {
        let marker = self.parser.marker().ok_or_else(|| self.damaged("has no beginning"))?;
        let bytes = log::encode(record, &marker);
        let n = loop {
            match self.file.write(&bytes) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|e| self.failed("appending", &e))?,
            }
        };
        if n < bytes.len() {
            // What did fit is no record. The rest must not follow: others may have appended since.
            let e = io::Error::from(io::ErrorKind::StorageFull);
            return Err(self.failed("appending", &e));
        }
        Ok(())
    }

    fn failed(&self, what: &str, e: &io::Error) -> Error {
        Error::system(&format!("store: {what} '{}'", self.path.display()), e)
    }

    /// Nothing that a store does leaves it like that.
    pub fn damaged(&self, how: &str) -> Error {
        let path = self.path.display();
        Error::new(Code::System, Extent::Operation, format!("store: '{path}' is damaged: it {how}"))
    }
}
