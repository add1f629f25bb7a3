//! The log of a store in a directory: what it consists of, as bytes. No I/O.
//!
//! A file begins with a magic and a marker of 16 random bytes. Records follow, each the marker, a length, a
//! checksum and a body; the first holds all that was known when the file was made.
//!
//! Whoever appends does so with a single `write`, which the kernel does not mix with others' but which may end
//! early: by SIGKILL, or because the disk is full. What is left then is no record, and the next one begins
//! after it. Every reader must find the same records, so one rule decides: a record counts if it is complete
//! and its checksum is right; else, if a marker follows later, what lies before that one is skipped, since it
//! will never change; else it may still be coming.

use super::super::LeaseId;
use super::super::wire::{self, Malformed, Request};
use super::state::ClientId;
use sha2::{Digest, Sha256};

/// Ends with the version of all that follows.
const MAGIC: [u8; 8] = *b"mwstore1";
/// Bytes of a marker.
pub const MARKER: usize = 16;
/// Bytes in front of the first record.
pub const HEADER: usize = MAGIC.len() + MARKER;
/// Bytes of a record in front of its body: marker, length, checksum.
const FRAME: usize = MARKER + 4 + 8;

/// Tells records of one file from whatever else may lie between them.
pub type Marker = [u8; MARKER];

/// What happens to a store, in the order of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// All that was known when the file was made. The first record, and no other.
    Image(Vec<u8>),
    /// A client asks for a change.
    Request {
        /// Who.
        client: ClientId,
        /// When: a sign of life.
        time: u64,
        /// Its own number for it.
        number: u64,
        /// What.
        request: Request,
    },
    /// A sign of life.
    Alive {
        /// Of whom.
        client: ClientId,
        /// When.
        time: u64,
    },
    /// A lease's time is over, unless its client has given a sign of life after `seen`.
    Expired {
        /// The lease.
        lease: LeaseId,
        /// The last sign of life that the writer knew of.
        seen: u64,
    },
    /// A client has ended.
    Gone {
        /// Who.
        client: ClientId,
    },
    /// The end of this file; what comes after does not count, and the next file begins with all that is known.
    Seal,
}

impl Record {
    /// The client and the number of a request.
    pub fn request(&self) -> Option<(ClientId, u64)> {
        match self {
            Record::Request { client, number, .. } => Some((*client, *number)),
            _ => None,
        }
    }
}

/// The first bytes of a file.
pub fn header(marker: &Marker) -> Vec<u8> {
    [&MAGIC[..], marker].concat()
}

/// A record's bytes.
pub fn encode(record: &Record, marker: &Marker) -> Vec<u8> {
    let mut out = marker.to_vec();
    out.extend([0; 12]);
    let u64 = |out: &mut Vec<u8>, n: u64| out.extend(n.to_le_bytes());
    match record {
        Record::Image(image) => {
            out.push(1);
            out.extend(image);
        }
        Record::Request { client, time, number, request } => {
            out.push(2);
            u64(&mut out, *client);
            u64(&mut out, *time);
            wire::encode_request(*number, request, &mut out);
        }
        Record::Alive { client, time } => {
            out.push(3);
            u64(&mut out, *client);
            u64(&mut out, *time);
        }
        Record::Expired { lease, seen } => {
            out.push(4);
            u64(&mut out, lease.0);
            u64(&mut out, *seen);
        }
        Record::Gone { client } => {
            out.push(5);
            u64(&mut out, *client);
        }
        Record::Seal => out.push(6),
    }
    let body = out.get(FRAME..).unwrap_or_default();
    let (len, check) = ((body.len() as u32).to_le_bytes(), checksum(body));
    let frame = out.iter_mut().skip(MARKER);
    frame.zip(len.iter().chain(&check)).for_each(|(to, from)| *to = *from);
    out
}

fn checksum(body: &[u8]) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::digest(body).into();
    let mut out = [0; 8];
    out.copy_from_slice(&digest[..8]);
    out
}

fn decode(body: &[u8]) -> Result<Record, Malformed> {
    const SHORT: Malformed = Malformed("a record that is too short");
    let (kind, rest) = body.split_first().ok_or(SHORT)?;
    let two = || {
        let (a, rest) = rest.split_first_chunk::<8>()?;
        let (b, rest) = rest.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*a), u64::from_le_bytes(*b), rest))
    };
    Ok(match kind {
        1 => Record::Image(rest.to_vec()),
        2 => {
            let (client, time, frame) = two().ok_or(SHORT)?;
            // The frame's length is the rest's: its checksum was right.
            let (number, request) = wire::decode_request(frame.get(4..).ok_or(SHORT)?)?;
            Record::Request { client, time, number, request }
        }
        3 => {
            let (client, time, _) = two().ok_or(SHORT)?;
            Record::Alive { client, time }
        }
        4 => {
            let (lease, seen, _) = two().ok_or(SHORT)?;
            Record::Expired { lease: LeaseId(lease), seen }
        }
        5 => {
            let (client, _) = rest.split_first_chunk::<8>().ok_or(SHORT)?;
            Record::Gone { client: u64::from_le_bytes(*client) }
        }
        6 => Record::Seal,
        _ => return Err(Malformed("a record of an unknown kind")),
    })
}

/// Finds the records in what has been read of a file so far.
#[derive(Debug, Default)]
pub struct Parser {
    marker: Option<Marker>,
    unread: Vec<u8>,
}

impl Parser {
    /// Adds the file's next bytes.
    pub fn extend(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
    }

    /// The file's marker, once its header has been read.
    pub fn marker(&self) -> Option<Marker> {
        self.marker
    }

    /// The next record, if it is there.
    pub fn next(&mut self) -> Result<Option<Record>, Malformed> {
        let marker = match self.marker {
            Some(marker) => marker,
            None => {
                let Some(header) = self.unread.first_chunk::<HEADER>() else { return Ok(None) };
                let (magic, marker) = header.split_at(MAGIC.len());
                let marker = marker.try_into().ok().filter(|_| magic == MAGIC);
                let marker: Marker = marker.ok_or(Malformed("something that is no log of this version"))?;
                self.marker = Some(marker);
                self.unread.drain(..HEADER);
                marker
            }
        };
        let mut at = 0;
        loop {
            let rest = self.unread.get(at..).unwrap_or_default();
            if let Some((body, len)) = complete(rest, &marker) {
                let record = decode(body)?;
                self.unread.drain(..at + len);
                return Ok(Some(record));
            }
            let Some(next) = find(rest.get(1..).unwrap_or_default(), &marker) else { return Ok(None) };
            at += 1 + next;
        }
    }
}

/// The body of the record that `bytes` begin with, and the length of the whole.
fn complete<'a>(bytes: &'a [u8], marker: &Marker) -> Option<(&'a [u8], usize)> {
    let (found, rest) = bytes.split_first_chunk::<MARKER>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let (check, rest) = rest.split_first_chunk::<8>()?;
    let body = rest.get(..u32::from_le_bytes(*len) as usize)?;
    (found == marker && *check == checksum(body)).then_some((body, FRAME + body.len()))
}

fn find(bytes: &[u8], marker: &Marker) -> Option<usize> {
    bytes.windows(MARKER).position(|window| window == marker)
}

#[cfg(test)]
mod tests {
    use super::*;

    const M: Marker = [0xa5; MARKER];

    fn all() -> Vec<Record> {
        let request = Request::CompareAndSet {
            key: b"k".to_vec(),
            expected: None,
            new: Some(b"v".to_vec()),
            lease: Some(LeaseId(7)),
        };
        vec![
            Record::Image(b"what was known".to_vec()),
            Record::Request { client: 1, time: 2, number: 3, request },
            Record::Alive { client: 4, time: 5 },
            Record::Expired { lease: LeaseId(6), seen: 7 },
            Record::Gone { client: 8 },
            Record::Seal,
        ]
    }

    fn records(parser: &mut Parser) -> Vec<Record> {
        std::iter::from_fn(|| parser.next().unwrap()).collect()
    }

    #[test]
    fn records_survive_in_pieces_of_every_size() {
        let bytes: Vec<u8> = header(&M).into_iter().chain(all().iter().flat_map(|r| encode(r, &M))).collect();
        for size in 1..bytes.len() {
            let (mut parser, mut found) = (Parser::default(), Vec::new());
            for piece in bytes.chunks(size) {
                parser.extend(piece);
                found.extend(records(&mut parser));
            }
            assert_eq!(found, all(), "{size}");
        }
    }

    #[test]
    fn what_was_torn_is_skipped_when_the_next_record_comes_and_not_before() {
        let (torn, whole) = (encode(&all()[1], &M), encode(&all()[2], &M));
        for cut in 0..torn.len() {
            let mut parser = Parser::default();
            parser.extend(&header(&M));
            parser.extend(&torn[..cut]);
            assert_eq!(parser.next().unwrap(), None);
            // Others see it before and after.
            let mut late = Parser::default();
            late.extend(&header(&M));
            late.extend(&torn[..cut]);
            for p in [&mut parser, &mut late] {
                p.extend(&whole);
                assert_eq!(records(p), [all()[2].clone()], "{cut}");
            }
        }
        // Zeroes, as a machine that lost its power may leave them.
        let mut parser = Parser::default();
        parser.extend(&header(&M));
        parser.extend(&[0; 4096]);
        parser.extend(&whole);
        assert_eq!(records(&mut parser), [all()[2].clone()]);
    }

    #[test]
    fn a_flipped_bit_never_becomes_a_record() {
        let record = encode(&all()[1], &M);
        for bit in 0..record.len() * 8 {
            let mut bad = record.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut parser = Parser::default();
            parser.extend(&header(&M));
            parser.extend(&bad);
            assert_eq!(parser.next().unwrap(), None, "bit {bit}");
        }
        let mut parser = Parser::default();
        parser.extend(&[7; HEADER]);
        assert!(parser.next().is_err());
    }
}
