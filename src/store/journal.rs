//! The files of a store that outlives its process: a snapshot, and a log of what has changed it since.
//!
//! In its folder are `snapshot.<n>` and `log.<n>`, which belong together, and `lock`, which the one process holds
//! that uses them. When the log has grown beyond bounds, and whenever the store starts, both are written anew with
//! the next number: first the log, which nobody looks at without its snapshot; then the snapshot under another name,
//! synced and renamed, from which moment on it counts; then the old ones are deleted. So there is at each moment one
//! whole snapshot, with its log.
//!
//! Changes are collected by [`Journal::append`] and are in the file, or on the disk, when [`Journal::commit`] returns:
//! before any answer is sent. Bytes in the file survive the death of the process; the death of the machine only those
//! that were synced.

use super::history::{self, History, Loss, Stores, Unusable};
use super::record::{self, BOOT, Header, Kind, Record};
use super::state::Limits;
use crate::auth::{self, KeyId};
use crate::error::{Code, Error, Extent, Result};
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// When what is written is brought to the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Before any change is answered: all that was answered survives the death of the machine.
    #[default]
    Always,
    /// A little later, many changes at a time.
    Batch,
    /// When the kernel sees fit.
    Never,
}

/// How much later.
const BATCH: Duration = Duration::from_millis(50);
/// Bytes of a log that are not worth a snapshot.
const SMALL: u64 = 4 * 1024 * 1024;

/// The files, open.
#[derive(Debug)]
pub struct Journal {
    dir: PathBuf,
    fsync: Fsync,
    generation: u64,
    incarnation: u64,
    log: File,
    /// Records that are not in the log yet.
    pending: Vec<u8>,
    /// Bytes in the log beyond which a snapshot is due.
    limit: u64,
    logged: u64,
    /// Since when the log holds what is not synced.
    unsynced: Option<Instant>,
    boot: [u8; BOOT],
    /// Held as long as this lives.
    _lock: File,
}

/// What a folder held.
#[derive(Debug)]
pub struct Found {
    /// The stores, which are to be recorded from now on.
    pub stores: Stores,
    /// No store ever had a later revision.
    pub revision: u64,
}

fn failed(what: &str, path: &Path, e: &io::Error) -> Error {
    Error::system(&format!("data-dir: {what} '{}'", path.display()), e)
}

impl Journal {
    /// Opens the folder, which is made if it is not there, and brings back what it holds. Only one process may have it.
    pub fn open(dir: &Path, fsync: Fsync, limits: Limits, now: Instant) -> Result<(Journal, Found)> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
        made.map_err(|e| failed("making", dir, &e))?;
        let lock = lock(dir)?;
        let boot = boot();
        let mut history = match read(dir, &boot, now)? {
            Some(history) => history,
            None => {
                let mut id = [0; 8];
                auth::fill_random(&mut id)?;
                let incarnation = u64::from_le_bytes(id);
                let (stores, loss) = (Stores::new(), None);
                History { stores, revision: 0, incarnation, changes: 0, cut: 0, loss }
            }
        };
        if history.cut > 0 {
            let (bytes, changes) = (history.cut, history.changes);
            tracing::warn!(bytes, changes, "data-dir: the log's end is cut off after the last whole change");
        }
        if let Some(loss) = history.loss {
            tracing::error!("data-dir: {loss}: changes may be lost that the store had answered");
        }
        let stores = history.resume(limits);
        let generation = generations(dir)?.into_iter().max().unwrap_or(0);
        let header = Header {
            kind: Kind::Log,
            synced: fsync == Fsync::Always,
            generation: generation + 1,
            incarnation: history.incarnation,
            boot,
        };
        let (log, limit) = write(dir, &header, &stores).map_err(|e| failed("writing to", dir, &e))?;
        let journal = Journal {
            dir: dir.to_owned(),
            fsync,
            generation: generation + 1,
            incarnation: history.incarnation,
            log,
            pending: Vec::new(),
            limit,
            logged: 0,
            unsynced: None,
            boot,
            _lock: lock,
        };
        journal.tidy();
        Ok((journal, Found { stores, revision: history.revision }))
    }

    /// Names the memory: as long as it is the same, so is what the stores knew.
    pub fn incarnation(&self) -> u64 {
        self.incarnation
    }

    /// Takes a change of a store. It is nowhere yet.
    pub fn append(&mut self, store: KeyId, record: &Record) {
        record::encode(store, record, &mut self.pending);
    }

    /// Writes what was taken. After an error the log may be anything: no change must be answered any more.
    pub fn commit(&mut self, now: Instant) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let written = self.log.write_all(&self.pending).and_then(|()| match self.fsync {
            Fsync::Always => self.log.sync_data(),
            Fsync::Batch | Fsync::Never => Ok(()),
        });
        written.map_err(|e| failed("writing to the log in", &self.dir, &e))?;
        self.logged += self.pending.len() as u64;
        self.pending.clear();
        self.pending.shrink_to(1024 * 1024);
        if self.fsync == Fsync::Batch {
            self.unsynced.get_or_insert(now);
        }
        Ok(())
    }

    /// When [`Journal::tick`] has something to do next.
    pub fn next_deadline(&self) -> Option<Instant> {
        self.unsynced.map(|since| since + BATCH)
    }

    /// Brings to the disk what has waited long enough.
    pub fn tick(&mut self, now: Instant) -> Result<()> {
        if self.next_deadline().is_some_and(|at| at <= now) {
            self.log.sync_data().map_err(|e| failed("syncing the log in", &self.dir, &e))?;
            self.unsynced = None;
        }
        Ok(())
    }

    /// Whether the log has grown so long that a snapshot is due.
    pub fn is_long(&self) -> bool {
        self.logged > self.limit
    }

    /// Begins a new log, with a snapshot of the stores, all changes of which have been committed. When that fails the
    /// log goes on.
    pub fn compact(&mut self, stores: &Stores) {
        debug_assert!(self.pending.is_empty());
        let header = Header {
            kind: Kind::Log,
            synced: self.fsync == Fsync::Always,
            generation: self.generation + 1,
            incarnation: self.incarnation,
            boot: self.boot,
        };
        match write(&self.dir, &header, stores) {
            Ok((log, limit)) => {
                (self.log, self.limit, self.logged, self.unsynced) = (log, limit, 0, None);
                self.generation += 1;
                self.tidy();
            }
            Err(e) => {
                tracing::warn!(error = %e, "data-dir: no snapshot could be written; the log goes on");
                self.limit += self.limit.max(self.logged);
            }
        }
    }

    /// Deletes what is of no use any more.
    fn tidy(&self) {
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let is_old = match parse(&name.to_string_lossy()) {
                Some(Name::Snapshot(n) | Name::Log(n)) => n != self.generation,
                Some(Name::Draft) => true,
                None => false,
            };
            if is_old && let Err(e) = fs::remove_file(entry.path()) {
                tracing::debug!("data-dir: deleting {name:?}: {e}");
            }
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        // Who comes next on this machine finds it all in any case.
        if self.unsynced.is_some()
            && let Err(e) = self.log.sync_data()
        {
            tracing::warn!(error = %e, "data-dir: syncing the log at the end");
        }
    }
}

/// How long a store that has ended may seem to hold its folder: a process that it was just starting has its descriptors
/// until that is another program.
const HELD_OVER: Duration = Duration::from_secs(3);
const LOOK_AGAIN: Duration = Duration::from_millis(5);

fn lock(dir: &Path) -> Result<File> {
    let path = dir.join("lock");
    let file = open(&path, false).map_err(|e| failed("opening", &path, &e))?;
    let until = Instant::now() + HELD_OVER;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOOK_AGAIN),
            Err(TryLockError::WouldBlock) => {
                let text = format!("data-dir: '{}' is in use by another store", dir.display());
                return Err(Error::new(Code::InvalidUsage, Extent::Operation, text));
            }
            Err(TryLockError::Error(e)) => return Err(failed("locking", &path, &e)),
        }
    }
}

/// For writing, by nobody but this user.
fn open(path: &Path, anew: bool) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(anew).mode(0o600).open(path)
}

/// The boot of the machine: bytes in a file outlive the process, but not it.
fn boot() -> [u8; BOOT] {
    let mut boot = [0; BOOT];
    if let Ok(text) = fs::read("/proc/sys/kernel/random/boot_id") {
        boot.iter_mut().zip(text).for_each(|(to, from)| *to = from);
    }
    boot
}

enum Name {
    Snapshot(u64),
    Log(u64),
    /// A snapshot that was not finished.
    Draft,
}

fn parse(name: &str) -> Option<Name> {
    let number = |digits: &str| digits.parse().ok();
    match name.split_once('.')? {
        ("snapshot", "new") => Some(Name::Draft),
        ("snapshot", digits) => number(digits).map(Name::Snapshot),
        ("log", digits) => number(digits).map(Name::Log),
        _ => None,
    }
}

fn names(dir: &Path) -> Result<Vec<Name>> {
    let fail = |e: io::Error| failed("reading", dir, &e);
    let mut names = Vec::new();
    for entry in fs::read_dir(dir).map_err(fail)? {
        names.extend(parse(&entry.map_err(fail)?.file_name().to_string_lossy()));
    }
    Ok(names)
}

fn generations(dir: &Path) -> Result<Vec<u64>> {
    let numbers = names(dir)?.into_iter().filter_map(|name| match name {
        Name::Snapshot(n) | Name::Log(n) => Some(n),
        Name::Draft => None,
    });
    Ok(numbers.collect())
}

/// What the folder holds; `None`: nothing yet.
fn read(dir: &Path, boot: &[u8], now: Instant) -> Result<Option<History>> {
    let snapshots = names(dir)?.into_iter().filter_map(|name| match name {
        Name::Snapshot(n) => Some(n),
        Name::Log(_) | Name::Draft => None,
    });
    let Some(newest) = snapshots.max() else {
        // The first log is there before the first snapshot.
        return match generations(dir)?.into_iter().max() {
            None | Some(1) => Ok(None),
            Some(n) => Err(unusable(&dir.join(format!("snapshot.{n}")), "it is missing")),
        };
    };
    let (snapshot, log) = (dir.join(format!("snapshot.{newest}")), dir.join(format!("log.{newest}")));
    let bytes = fs::read(&snapshot).map_err(|e| failed("reading", &snapshot, &e))?;
    let changes = match fs::read(&log) {
        Ok(changes) => Some(changes),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(failed("reading", &log, &e)),
    };
    match history::read(newest, &bytes, changes.as_deref(), boot, now) {
        // The log was there before its snapshot was.
        Ok(mut history) if changes.is_none() => {
            history.loss = Some(Loss::Broken(super::wire::Malformed("no bytes")));
            Ok(Some(history))
        }
        Ok(history) => Ok(Some(history)),
        Err(Unusable::Snapshot(why)) => Err(unusable(&snapshot, why.0)),
        Err(Unusable::Log(why)) => Err(unusable(&log, why.0)),
    }
}

fn unusable(path: &Path, why: &str) -> Error {
    let text = format!("data-dir: '{}' cannot be used: {why}", path.display());
    Error::new(Code::System, Extent::Operation, text)
}

/// Writes a log without any change, and the snapshot that it follows. Answers the log, and how long it may grow.
fn write(dir: &Path, header: &Header, stores: &Stores) -> io::Result<(File, u64)> {
    let generation = header.generation;
    let mut log = open(&dir.join(format!("log.{generation}")), true)?;
    log.write_all(&header.encode())?;
    log.sync_all()?;
    let mut bytes = Header { kind: Kind::Snapshot, ..header.clone() }.encode().to_vec();
    let mut records = 0;
    for (&key, state) in stores {
        for record in state.image() {
            record::encode(key, &record, &mut bytes);
            records += 1;
        }
    }
    record::encode(KeyId([0; 16]), &Record::Complete { records }, &mut bytes);
    let draft = dir.join("snapshot.new");
    let mut snapshot = open(&draft, true)?;
    snapshot.write_all(&bytes)?;
    snapshot.sync_all()?;
    // The name of the log must be on the disk before that of the snapshot can be.
    let names = File::open(dir)?;
    names.sync_all()?;
    fs::rename(&draft, dir.join(format!("snapshot.{generation}")))?;
    if let Err(e) = names.sync_all() {
        // It counts by now, whatever the disk says.
        tracing::warn!(error = %e, "data-dir: syncing the folder");
    }
    Ok((log, SMALL.max(2 * bytes.len() as u64)))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
