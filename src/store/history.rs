//! From a snapshot and a log to the stores that they tell of. No I/O.

use super::Revision;
use super::record::{Header, Kind, Record, Records, Step};
use super::state::{Limits, State};
use super::wire::Malformed;
use crate::auth::KeyId;
use std::collections::HashMap;
use std::fmt;
use std::time::Instant;

/// Stores by the key id of their secret.
pub type Stores = HashMap<KeyId, State>;

/// What was found.
#[derive(Debug)]
pub struct History {
    /// The stores that hold something.
    pub stores: Stores,
    /// No store ever had a later revision.
    pub revision: Revision,
    /// Names the stores' memory.
    pub incarnation: u64,
    /// Changes that the log tells of.
    pub changes: u64,
    /// Bytes at the log's end that tell of nothing.
    pub cut: usize,
    /// Whether changes may be missing that were answered, and why that is feared.
    pub loss: Option<Loss>,
}

/// Why answered changes may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The machine has ended before what was written was on its disk.
    Unsynced,
    /// What was written has changed since.
    Broken(Malformed),
}

/// Which file is to blame, and for what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// The snapshot.
    Snapshot(Malformed),
    /// The log.
    Log(Malformed),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Loss::Unsynced => f.write_str("the machine was restarted, and not every change was synced"),
            Loss::Broken(why) => write!(f, "the log has {} in it", why.0),
        }
    }
}

/// Reads a snapshot, and the log that follows it, if there is one. `now` is when leases begin to run again.
pub fn read(
    generation: u64,
    snapshot: &[u8],
    log: Option<&[u8]>,
    boot: &[u8],
    now: Instant,
) -> Result<History, Unusable> {
    let (header, records) =
        header(Kind::Snapshot, generation, snapshot).map_err(Unusable::Snapshot)?.ok_or(CUT_OFF)?;
    let mut found = History {
        stores: HashMap::new(),
        revision: 0,
        incarnation: header.incarnation,
        changes: 0,
        cut: 0,
        loss: None,
    };
    found.snapshot(records, now)?;
    // A log whose header is cut off was being made: nothing was in it.
    let log = log.map(|log| self::header(Kind::Log, generation, log)).transpose().map_err(Unusable::Log)?;
    if let Some(Some((header, records))) = log {
        if header.incarnation != found.incarnation {
            return Err(Unusable::Log(Malformed("it belongs to another store")));
        }
        found.log(records, now)?;
        if !header.synced && header.boot != boot {
            found.loss = Some(found.loss.unwrap_or(Loss::Unsynced));
        }
    }
    found.revision = found.stores.values().map(State::revision).fold(found.revision, u64::max);
    Ok(found)
}

const CUT_OFF: Unusable = Unusable::Snapshot(Malformed("it is cut off"));

fn header(kind: Kind, generation: u64, file: &[u8]) -> Result<Option<(Header, &[u8])>, Malformed> {
    match Header::decode(file)? {
        Some((header, _)) if header.kind != kind || header.generation != generation => {
            Err(Malformed("its header does not fit its name"))
        }
        other => Ok(other),
    }
}

impl History {
    fn snapshot(&mut self, bytes: &[u8], now: Instant) -> Result<(), Unusable> {
        let mut records = Records::new(bytes);
        let mut count = 0;
        loop {
            match records.step() {
                Step::Record(_, Record::Complete { records: n }) if n == count && records.left() == 0 => {
                    return Ok(());
                }
                Step::Record(store, record) => self.apply(store, record, now).map_err(Unusable::Snapshot)?,
                Step::End | Step::Torn => return Err(CUT_OFF),
                Step::Broken(e) => return Err(Unusable::Snapshot(e)),
            }
            count += 1;
        }
    }

    fn log(&mut self, bytes: &[u8], now: Instant) -> Result<(), Unusable> {
        let mut records = Records::new(bytes);
        loop {
            let left = records.left();
            let broken = match records.step() {
                Step::Record(store, record) => {
                    self.apply(store, record, now).map_err(Unusable::Log)?;
                    self.changes += 1;
                    continue;
                }
                Step::End | Step::Torn => None,
                Step::Broken(e) => Some(Loss::Broken(e)),
            };
            self.cut = left;
            self.loss = broken;
            return Ok(());
        }
    }

    fn apply(&mut self, store: KeyId, record: Record, now: Instant) -> Result<(), Malformed> {
        if let Record::Began { revision } = record {
            if let Some(before) = self.stores.insert(store, State::restored(revision)) {
                self.revision = self.revision.max(before.revision());
            }
            return Ok(());
        }
        self.stores.get_mut(&store).ok_or(Malformed("a record of no store"))?.restore(record, now)
    }

    /// The stores as they go on. Those that hold nothing are left out.
    pub fn resume(&mut self, limits: Limits) -> Stores {
        let mut stores = std::mem::take(&mut self.stores);
        stores.retain(|_, state| !state.is_idle());
        for state in stores.values_mut() {
            state.resume(limits, self.loss.is_some());
            self.revision = self.revision.max(state.revision());
        }
        stores
    }
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
