//! What a store that outlives its process writes down: the codec of its snapshots and logs. No I/O.
//!
//! Both are files of one form: a header of fixed size, then records, each a little-endian `u32` length, a `u32`
//! CRC-32 of the body, and the body: the key id of the store that it is about, a tag, the fields, in the encoding
//! of [`super::wire`].
//!
//! A log grows at its end only. Whatever cuts off a write leaves a whole log of what was before it, and a piece of
//! a record: [`Step::Torn`]. Bytes that are all there and are wrong, on the other hand, were written once and have
//! changed since: [`Step::Broken`].

use super::state::ClientId;
use super::wire::{self, Answer, Decoded, MAX_REQUEST, Malformed, Reader, Request, put_bytes, put_u64};
use super::{LeaseId, Revision, Swap};
use crate::auth::KeyId;
use std::time::Duration;

const MAGIC: [u8; 8] = *b"mwstore\0";
/// Version of the format.
pub const VERSION: u32 = 1;
/// Bytes of a boot's name.
pub const BOOT: usize = 36;
/// Bytes of a header.
pub const HEADER: usize = 8 + 4 + 1 + 1 + 8 + 8 + BOOT + 4;
/// Bytes in front of a record's body.
const FRAME: usize = 8;
/// Longest body: a request, or the memory of a session, with its fields.
const MAX_BODY: usize = MAX_REQUEST + 1024;
const _: () = assert!(super::state::OUTCOMES * 17 + 64 < MAX_BODY);

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A store's content.
    Snapshot = 1,
    /// What has changed it since.
    Log = 2,
}

/// What a file begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// What it is.
    pub kind: Kind,
    /// Whether each change was on the disk before it was answered.
    pub synced: bool,
    /// A log belongs to the snapshot of the same generation.
    pub generation: u64,
    /// Names the store's memory.
    pub incarnation: u64,
    /// The boot of the machine in which it was written.
    pub boot: [u8; BOOT],
}

impl Header {
    /// The bytes.
    pub fn encode(&self) -> [u8; HEADER] {
        let mut out = Vec::with_capacity(HEADER);
        out.extend(MAGIC);
        out.extend(VERSION.to_le_bytes());
        out.push(self.kind as u8);
        out.push(u8::from(self.synced));
        put_u64(&mut out, self.generation);
        put_u64(&mut out, self.incarnation);
        out.extend(self.boot);
        out.extend(crc32fast::hash(&out).to_le_bytes());
        let mut header = [0; HEADER];
        header.copy_from_slice(&out);
        header
    }

    /// Reads a file's header, and what follows it; `None` where the file ends before the header does.
    pub fn decode(file: &[u8]) -> Decoded<Option<(Header, &[u8])>> {
        let shared = file.len().min(MAGIC.len());
        if file[..shared] != MAGIC[..shared] {
            return Err(Malformed("it is no file of a store"));
        }
        let mut r = Reader(file.get(MAGIC.len()..).unwrap_or_default());
        // Read before the length is looked at: another version may have another header.
        match r.u32() {
            Err(_) => return Ok(None),
            Ok(VERSION) => {}
            Ok(_) => return Err(Malformed("it is of another version of the format")),
        }
        let Some((head, rest)) = file.split_first_chunk::<HEADER>() else { return Ok(None) };
        let kind = match r.u8()? {
            1 => Kind::Snapshot,
            2 => Kind::Log,
            _ => return Err(Malformed("its header says that it is neither a snapshot nor a log")),
        };
        let (synced, generation, incarnation, boot) = (r.bool()?, r.u64()?, r.u64()?, r.array()?);
        if r.u32()? != crc32fast::hash(&head[..HEADER - 4]) {
            return Err(Malformed("the checksum of its header is wrong"));
        }
        Ok(Some((Header { kind, synced, generation, incarnation, boot }, rest)))
    }
}

/// What a request has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was carried out.
    Done,
    /// The new value is in place.
    Swapped,
    /// So many keys were deleted.
    Deleted(u64),
    /// A lease was given.
    Lease(LeaseId),
}

impl Outcome {
    /// What the answer to a request that may change something says of it; `None`: that it has changed nothing.
    pub fn of(answer: &Answer) -> Option<Outcome> {
        match answer {
            Answer::Done => Some(Outcome::Done),
            Answer::Swap(Swap { swapped: true, .. }) => Some(Outcome::Swapped),
            Answer::Count(n @ 1..) => Some(Outcome::Deleted(*n)),
            Answer::Lease(lease) => Some(Outcome::Lease(*lease)),
            _ => None,
        }
    }

    /// The answer that the request got.
    pub fn answer(self, request: Request) -> Answer {
        match (self, request) {
            (Outcome::Swapped, Request::CompareAndSet { new, .. }) => {
                Answer::Swap(Swap { swapped: true, current: new })
            }
            // Only of a client that gives another request the same number.
            (Outcome::Swapped, _) => Answer::Swap(Swap { swapped: true, current: None }),
            (Outcome::Done, _) => Answer::Done,
            (Outcome::Deleted(n), _) => Answer::Count(n),
            (Outcome::Lease(lease), _) => Answer::Lease(lease),
        }
    }
}

/// One thing written down about one store. The first three and the last are the log's, all but those the snapshot's.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Record {
    /// A request had an effect, after which the store had this revision.
    Asked { client: ClientId, id: u64, settled: u64, revision: Revision, request: Request },
    /// A client's connection was lost, and what its requests have done is forgotten, or not.
    Left { client: ClientId, forget: bool },
    /// A lease's time was over.
    Ended { lease: LeaseId },
    /// A store came into being, with nothing in it. Also what a snapshot says of it first.
    Began { revision: Revision },
    /// Where its counters are.
    Counters { revision: Revision, forgotten: Revision, last_lease: u64 },
    /// A client.
    Session { client: ClientId, settled: u64, outcomes: Vec<(u64, Outcome)> },
    /// A client's lease.
    Lease { lease: LeaseId, client: ClientId, ttl: Duration },
    /// A key.
    Entry { key: Vec<u8>, value: Vec<u8>, modified: Revision, lease: Option<LeaseId> },
    /// A key that is no more.
    Deleted { key: Vec<u8>, revision: Revision },
    /// The snapshot is complete, with so many records before this one.
    Complete { records: u64 },
}

/// Appends a record to `out`.
pub fn encode(store: KeyId, record: &Record, out: &mut Vec<u8>) {
    let at = out.len();
    out.extend([0; FRAME]);
    out.extend(store.0);
    match record {
        Record::Asked { client, id, settled, revision, request } => {
            out.push(1);
            put_u64(out, *client);
            put_u64(out, *settled);
            put_u64(out, *revision);
            wire::encode_request(*id, request, out);
        }
        Record::Left { client, forget } => {
            out.push(2);
            put_u64(out, *client);
            out.push(u8::from(*forget));
        }
        Record::Ended { lease } => {
            out.push(3);
            put_u64(out, lease.0);
        }
        Record::Began { revision } => {
            out.push(4);
            put_u64(out, *revision);
        }
        Record::Counters { revision, forgotten, last_lease } => {
            out.push(5);
            put_u64(out, *revision);
            put_u64(out, *forgotten);
            put_u64(out, *last_lease);
        }
        Record::Session { client, settled, outcomes } => {
            out.push(6);
            put_u64(out, *client);
            put_u64(out, *settled);
            put_u64(out, outcomes.len() as u64);
            for (request, outcome) in outcomes {
                put_u64(out, *request);
                let (tag, number) = match outcome {
                    Outcome::Done => (1, 0),
                    Outcome::Swapped => (2, 0),
                    Outcome::Deleted(n) => (3, *n),
                    Outcome::Lease(lease) => (4, lease.0),
                };
                out.push(tag);
                put_u64(out, number);
            }
        }
        Record::Lease { lease, client, ttl } => {
            out.push(7);
            put_u64(out, lease.0);
            put_u64(out, *client);
            put_u64(out, u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        }
        Record::Entry { key, value, modified, lease } => {
            out.push(8);
            put_u64(out, *modified);
            wire::put_lease(out, *lease);
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Record::Deleted { key, revision } => {
            out.push(9);
            put_u64(out, *revision);
            put_bytes(out, key);
        }
        Record::Complete { records } => {
            out.push(10);
            put_u64(out, *records);
        }
    }
    let body = at + FRAME;
    let len = (out.len() - body) as u32;
    let sum = crc32fast::hash(&out[body..]);
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
    out[at + 4..body].copy_from_slice(&sum.to_le_bytes());
}

fn decode(body: &[u8]) -> Decoded<(KeyId, Record)> {
    let mut r = Reader(body);
    let store = KeyId(r.array()?);
    let record = match r.u8()? {
        1 => {
            let (client, settled, revision) = (r.u64()?, r.u64()?, r.u64()?);
            let len = r.u32()? as usize;
            if len != r.0.len() {
                return Err(Malformed("a request of another length"));
            }
            let (id, request) = wire::decode_request(std::mem::take(&mut r.0))?;
            Record::Asked { client, id, settled, revision, request }
        }
        2 => Record::Left { client: r.u64()?, forget: r.bool()? },
        3 => Record::Ended { lease: LeaseId(r.u64()?) },
        4 => Record::Began { revision: r.u64()? },
        5 => Record::Counters { revision: r.u64()?, forgotten: r.u64()?, last_lease: r.u64()? },
        6 => {
            let (client, settled, count) = (r.u64()?, r.u64()?, r.u64()?);
            let mut outcomes = Vec::new();
            for _ in 0..count {
                let (request, tag, number) = (r.u64()?, r.u8()?, r.u64()?);
                let outcome = match tag {
                    1 => Outcome::Done,
                    2 => Outcome::Swapped,
                    3 => Outcome::Deleted(number),
                    4 => Outcome::Lease(LeaseId(number)),
                    _ => return Err(Malformed("an unknown outcome")),
                };
                outcomes.push((request, outcome));
            }
            Record::Session { client, settled, outcomes }
        }
        7 => {
            Record::Lease { lease: LeaseId(r.u64()?), client: r.u64()?, ttl: Duration::from_nanos(r.u64()?) }
        }
        8 => Record::Entry { modified: r.u64()?, lease: r.lease()?, key: r.key()?, value: r.value()? },
        9 => Record::Deleted { revision: r.u64()?, key: r.key()? },
        10 => Record::Complete { records: r.u64()? },
        _ => return Err(Malformed("an unknown record")),
    };
    r.end()?;
    Ok((store, record))
}

/// What comes next in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// A record.
    Record(KeyId, Record),
    /// The file ends here.
    End,
    /// The file ends within a record.
    Torn,
    /// Bytes that are no record.
    Broken(Malformed),
}

/// Takes records off the bytes that follow a header.
#[derive(Debug)]
pub struct Records<'a>(&'a [u8]);

impl<'a> Records<'a> {
    /// Of these bytes.
    pub fn new(bytes: &'a [u8]) -> Records<'a> {
        Records(bytes)
    }

    /// Bytes that are left.
    pub fn left(&self) -> usize {
        self.0.len()
    }

    /// The next record. After anything else there is none.
    pub fn step(&mut self) -> Step {
        if self.0.is_empty() {
            return Step::End;
        }
        let mut r = Reader(self.0);
        let (Ok(len), Ok(sum)) = (r.u32(), r.u32()) else { return Step::Torn };
        // What a machine that lost its power leaves where it had made room only.
        if len == 0 && self.0.iter().all(|byte| *byte == 0) {
            return Step::Torn;
        }
        if len as usize > MAX_BODY {
            return Step::Broken(Malformed("a record that is too long"));
        }
        let Some((body, rest)) = r.0.split_at_checked(len as usize) else { return Step::Torn };
        if crc32fast::hash(body) != sum {
            return Step::Broken(Malformed("a record whose checksum is wrong"));
        }
        match decode(body) {
            Ok((store, record)) => {
                self.0 = rest;
                Step::Record(store, record)
            }
            Err(e) => Step::Broken(e),
        }
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
