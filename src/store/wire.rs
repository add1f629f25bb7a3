//! The codec of the built-in store: requests and answers, each a frame of bounded size. No I/O.
//!
//! A frame is a little-endian `u32` length and that many bytes: the request's number (`u64`, the client's
//! choice, repeated in the answer), a tag, the fields. Numbers are little-endian; byte strings carry a `u32`
//! length.

use super::state::{ClientId, SESSION};
use super::{Entry, LeaseId, Revision, Snapshot, Swap};
use crate::sync::Arc;
use std::time::Duration;

/// Longest key or prefix.
pub const MAX_KEY: usize = 1024;
/// Longest value.
pub const MAX_VALUE: usize = 64 * 1024;
/// Longest frame that a client sends.
pub const MAX_REQUEST: usize = 160 * 1024;
/// Longest frame that a server sends, and so the largest snapshot.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Request {
    Get {
        key: Vec<u8>,
    },
    Set {
        key: Vec<u8>,
        value: Vec<u8>,
        lease: Option<LeaseId>,
    },
    CompareAndSet {
        key: Vec<u8>,
        expected: Option<Vec<u8>>,
        new: Option<Vec<u8>>,
        lease: Option<LeaseId>,
    },
    DeletePrefix {
        prefix: Vec<u8>,
    },
    List {
        prefix: Vec<u8>,
    },
    /// Answered when something under the prefix has changed after the revision.
    Watch {
        prefix: Vec<u8>,
        after: Revision,
    },
    Lease {
        ttl: Duration,
    },
    Revoke {
        lease: LeaseId,
    },
    /// A sign of life that wants an answer.
    Ping,
    /// A sign of life that gets no answer.
    Alive,
    /// Nobody waits for the answer of this watch any more. Gets no answer itself.
    Cancel {
        request: u64,
    },
    /// The answers to all requests with lower numbers that change something have arrived. Gets no answer itself.
    Settled {
        below: u64,
    },
    /// The client's session ends with this connection. Gets no answer itself.
    Leave,
}

impl Request {
    /// Whether it may change the store.
    pub fn changes(&self) -> bool {
        match self {
            Request::Set { .. }
            | Request::CompareAndSet { .. }
            | Request::DeletePrefix { .. }
            | Request::Lease { .. }
            | Request::Revoke { .. } => true,
            Request::Get { .. }
            | Request::List { .. }
            | Request::Watch { .. }
            | Request::Ping
            | Request::Alive
            | Request::Cancel { .. }
            | Request::Settled { .. }
            | Request::Leave => false,
        }
    }

    /// The lease it names.
    pub fn lease(&self) -> Option<LeaseId> {
        match self {
            Request::Set { lease, .. } | Request::CompareAndSet { lease, .. } => *lease,
            _ => None,
        }
    }
}

/// What the server answers.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Answer {
    Done,
    Value(Option<Vec<u8>>),
    Swap(Swap),
    Count(u64),
    /// Shared: one change may wake many watches of one prefix.
    Snapshot(Arc<Snapshot>),
    Lease(LeaseId),
    Refused(Refusal),
    /// To a client with a session, before all else; of no request.
    Welcome {
        /// Names the store's memory: another one knows nothing of what was.
        incarnation: u64,
        /// Whether the session is known.
        resumed: bool,
        /// Whether the store is started again when it ends.
        returns: bool,
        /// The leases it has.
        leases: Vec<LeaseId>,
    },
}

/// Why a request had no effect. The numbers travel on the wire; append-only.
#[repr(u8)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The lease has ended or is another client's.
    NoLease = 1,
    /// The store has no room for it.
    Full = 2,
    /// What lies under the prefix does not fit into one answer.
    TooLarge = 3,
    /// The client has too many watches or leases already.
    TooMany = 4,
}

/// Bytes that are no frame of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

pub(super) type Decoded<T> = std::result::Result<T, Malformed>;

/// Appends the request's frame to `out`.
pub fn encode_request(id: u64, request: &Request, out: &mut Vec<u8>) {
    let at = open(out, id);
    match request {
        Request::Get { key } => {
            out.push(1);
            put_bytes(out, key);
        }
        Request::Set { key, value, lease } => {
            out.push(2);
            put_lease(out, *lease);
            put_bytes(out, key);
            put_bytes(out, value);
        }
        Request::CompareAndSet { key, expected, new, lease } => {
            out.push(3);
            put_lease(out, *lease);
            put_bytes(out, key);
            put_option(out, expected.as_deref());
            put_option(out, new.as_deref());
        }
        Request::DeletePrefix { prefix } => {
            out.push(4);
            put_bytes(out, prefix);
        }
        Request::List { prefix } => {
            out.push(5);
            put_bytes(out, prefix);
        }
        Request::Watch { prefix, after } => {
            out.push(6);
            put_u64(out, *after);
            put_bytes(out, prefix);
        }
        Request::Lease { ttl } => {
            out.push(7);
            put_u64(out, u64::try_from(ttl.as_nanos()).unwrap_or(u64::MAX));
        }
        Request::Revoke { lease } => {
            out.push(8);
            put_u64(out, lease.0);
        }
        Request::Ping => out.push(9),
        Request::Alive => out.push(10),
        Request::Cancel { request } => {
            out.push(11);
            put_u64(out, *request);
        }
        Request::Settled { below } => {
            out.push(12);
            put_u64(out, *below);
        }
        Request::Leave => out.push(13),
    }
    close(out, at);
}

/// Reads the body of a request's frame.
pub fn decode_request(body: &[u8]) -> Decoded<(u64, Request)> {
    let mut r = Reader(body);
    let id = r.u64()?;
    let request = match r.u8()? {
        1 => Request::Get { key: r.key()? },
        2 => Request::Set { lease: r.lease()?, key: r.key()?, value: r.value()? },
        3 => Request::CompareAndSet {
            lease: r.lease()?,
            key: r.key()?,
            expected: r.option()?,
            new: r.option()?,
        },
        4 => Request::DeletePrefix { prefix: r.key()? },
        5 => Request::List { prefix: r.key()? },
        6 => Request::Watch { after: r.u64()?, prefix: r.key()? },
        7 => Request::Lease { ttl: Duration::from_nanos(r.u64()?) },
        8 => Request::Revoke { lease: LeaseId(r.u64()?) },
        9 => Request::Ping,
        10 => Request::Alive,
        11 => Request::Cancel { request: r.u64()? },
        12 => Request::Settled { below: r.u64()? },
        13 => Request::Leave,
        _ => return Err(Malformed("an unknown request")),
    };
    r.end()?;
    Ok((id, request))
}

/// Appends the answer's frame to `out`. A snapshot that is too large becomes [`Refusal::TooLarge`].
pub fn encode_answer(id: u64, answer: &Answer, out: &mut Vec<u8>) {
    let at = open(out, id);
    match answer {
        Answer::Done => out.push(1),
        Answer::Value(value) => {
            out.push(2);
            put_option(out, value.as_deref());
        }
        Answer::Swap(swap) => {
            out.push(3);
            out.push(u8::from(swap.swapped));
            put_option(out, swap.current.as_deref());
        }
        Answer::Count(n) => {
            out.push(4);
            put_u64(out, *n);
        }
        Answer::Snapshot(s) if snapshot_size(s) > MAX_ANSWER => {
            out.push(7);
            out.push(Refusal::TooLarge as u8);
        }
        Answer::Snapshot(s) => {
            out.push(5);
            put_u64(out, s.revision);
            put_u32(out, s.entries.len());
            for e in &s.entries {
                put_bytes(out, &e.key);
                put_bytes(out, &e.value);
            }
        }
        Answer::Lease(lease) => {
            out.push(6);
            put_u64(out, lease.0);
        }
        Answer::Refused(refusal) => {
            out.push(7);
            out.push(*refusal as u8);
        }
        Answer::Welcome { incarnation, resumed, returns, leases } => {
            out.push(8);
            put_u64(out, *incarnation);
            out.push(u8::from(*resumed));
            out.push(u8::from(*returns));
            put_u32(out, leases.len());
            for lease in leases {
                put_u64(out, lease.0);
            }
        }
    }
    close(out, at);
}

/// Reads the body of an answer's frame.
pub fn decode_answer(body: &[u8]) -> Decoded<(u64, Answer)> {
    let mut r = Reader(body);
    let id = r.u64()?;
    let answer = match r.u8()? {
        1 => Answer::Done,
        2 => Answer::Value(r.option()?),
        3 => Answer::Swap(Swap { swapped: r.bool()?, current: r.option()? }),
        4 => Answer::Count(r.u64()?),
        5 => {
            let revision = r.u64()?;
            let count = r.u32()?;
            // The count is the peer's word: room is only made for what its bytes can hold.
            let mut entries = Vec::with_capacity((count as usize).min(r.0.len() / 8));
            for _ in 0..count {
                entries.push(Entry { key: r.key()?, value: r.value()? });
            }
            Answer::Snapshot(Arc::new(Snapshot { revision, entries }))
        }
        6 => Answer::Lease(LeaseId(r.u64()?)),
        7 => Answer::Refused(match r.u8()? {
            1 => Refusal::NoLease,
            2 => Refusal::Full,
            3 => Refusal::TooLarge,
            4 => Refusal::TooMany,
            _ => return Err(Malformed("an unknown refusal")),
        }),
        8 => {
            let (incarnation, resumed, returns, count) = (r.u64()?, r.bool()?, r.bool()?, r.u32()?);
            let mut leases = Vec::with_capacity((count as usize).min(r.0.len() / 8));
            for _ in 0..count {
                leases.push(LeaseId(r.u64()?));
            }
            Answer::Welcome { incarnation, resumed, returns, leases }
        }
        _ => return Err(Malformed("an unknown answer")),
    };
    r.end()?;
    Ok((id, answer))
}

/// What a client with this session claims in its handshake.
pub fn claim(client: ClientId) -> [u8; 9] {
    let mut claim = [CLAIM; 9];
    claim[1..].copy_from_slice(&client.to_le_bytes());
    claim
}

/// Version of the claim.
const CLAIM: u8 = 1;

/// Whose claim it is: a session's, or that of a client without one, which gets `number`.
pub fn client_of(claim: &[u8], number: u64) -> Option<ClientId> {
    match claim {
        [] => Some(number),
        [CLAIM, id @ ..] => Some(u64::from_le_bytes(id.try_into().ok()?)).filter(|id| id & SESSION != 0),
        _ => None,
    }
}

/// Cuts a stream of bytes into frames.
#[derive(Debug)]
pub struct Frames {
    buf: Vec<u8>,
    start: usize,
    limit: usize,
}

impl Frames {
    /// For frames of at most `limit` bytes.
    pub fn new(limit: usize) -> Frames {
        Frames { buf: Vec::new(), start: 0, limit }
    }

    /// Adds what came off the connection.
    pub fn extend(&mut self, bytes: &[u8]) {
        if self.start == self.buf.len() {
            self.buf.clear();
            self.start = 0;
            // One large frame must not hold its memory for the rest of the connection.
            self.buf.shrink_to(64 * 1024);
        } else if self.start > 64 * 1024 && self.start * 2 > self.buf.len() {
            self.buf.drain(..self.start);
            self.start = 0;
        }
        self.buf.extend_from_slice(bytes);
    }

    /// The body of the next complete frame.
    pub fn next_body(&mut self) -> Decoded<Option<&[u8]>> {
        let rest = self.buf.get(self.start..).unwrap_or_default();
        let Some((head, rest)) = rest.split_first_chunk::<4>() else { return Ok(None) };
        let len = u32::from_le_bytes(*head) as usize;
        if len > self.limit {
            return Err(Malformed("a frame that is too long"));
        }
        let Some(body) = rest.get(..len) else { return Ok(None) };
        self.start += 4 + len;
        Ok(Some(body))
    }

    /// Whether bytes of a frame that is not complete, or not taken, are held.
    pub fn is_empty(&self) -> bool {
        self.start == self.buf.len()
    }
}

fn snapshot_size(s: &Snapshot) -> usize {
    let entries: usize = s.entries.iter().map(|e| 8 + e.key.len() + e.value.len()).sum();
    entries + 32
}

/// Begins a frame; answers where its length goes.
pub(super) fn open(out: &mut Vec<u8>, id: u64) -> usize {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    put_u64(out, id);
    at
}

pub(super) fn close(out: &mut [u8], at: usize) {
    let len = (out.len() - at - 4) as u32;
    out[at..at + 4].copy_from_slice(&len.to_le_bytes());
}

pub(super) fn put_u32(out: &mut Vec<u8>, n: usize) {
    out.extend_from_slice(&(n as u32).to_le_bytes());
}

pub(super) fn put_u64(out: &mut Vec<u8>, n: u64) {
    out.extend_from_slice(&n.to_le_bytes());
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.extend_from_slice(bytes);
}

fn put_option(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    out.push(u8::from(bytes.is_some()));
    if let Some(bytes) = bytes {
        put_bytes(out, bytes);
    }
}

/// Lease 0 does not exist.
pub(super) fn put_lease(out: &mut Vec<u8>, lease: Option<LeaseId>) {
    put_u64(out, lease.map_or(0, |l| l.0));
}

/// Reads fields off the front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

const SHORT: Malformed = Malformed("a frame that ends too early");

impl Reader<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> Decoded<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>().ok_or(SHORT)?;
        self.0 = rest;
        Ok(*head)
    }

    pub(super) fn u8(&mut self) -> Decoded<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(super) fn u32(&mut self) -> Decoded<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(super) fn u64(&mut self) -> Decoded<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(super) fn bool(&mut self) -> Decoded<bool> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(Malformed("a flag that is neither 0 nor 1")),
        }
    }

    pub(super) fn bytes(&mut self, limit: usize) -> Decoded<Vec<u8>> {
        let len = self.u32()? as usize;
        if len > limit {
            return Err(Malformed("a key or value that is too long"));
        }
        let (head, rest) = self.0.split_at_checked(len).ok_or(SHORT)?;
        self.0 = rest;
        Ok(head.to_vec())
    }

    pub(super) fn key(&mut self) -> Decoded<Vec<u8>> {
        self.bytes(MAX_KEY)
    }

    pub(super) fn value(&mut self) -> Decoded<Vec<u8>> {
        self.bytes(MAX_VALUE)
    }

    fn option(&mut self) -> Decoded<Option<Vec<u8>>> {
        if self.bool()? { self.value().map(Some) } else { Ok(None) }
    }

    pub(super) fn lease(&mut self) -> Decoded<Option<LeaseId>> {
        Ok(Some(self.u64()?).filter(|&n| n != 0).map(LeaseId))
    }

    pub(super) fn end(&self) -> Decoded<()> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("a frame with bytes behind its end")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    fn bytes(max: usize) -> impl Strategy<Value = Vec<u8>> {
        vec(any::<u8>(), 0..max)
    }

    fn lease() -> impl Strategy<Value = Option<LeaseId>> {
        option::of((1..u64::MAX).prop_map(LeaseId))
    }

    fn request() -> impl Strategy<Value = Request> {
        prop_oneof![
            bytes(40).prop_map(|key| Request::Get { key }),
            (bytes(40), bytes(400), lease()).prop_map(|(key, value, lease)| Request::Set {
                key,
                value,
                lease
            }),
            (bytes(40), option::of(bytes(90)), option::of(bytes(90)), lease())
                .prop_map(|(key, expected, new, lease)| Request::CompareAndSet { key, expected, new, lease }),
            bytes(40).prop_map(|prefix| Request::DeletePrefix { prefix }),
            bytes(40).prop_map(|prefix| Request::List { prefix }),
            (bytes(40), any::<u64>()).prop_map(|(prefix, after)| Request::Watch { prefix, after }),
            any::<u64>().prop_map(|n| Request::Lease { ttl: Duration::from_nanos(n) }),
            any::<u64>().prop_map(|n| Request::Revoke { lease: LeaseId(n) }),
            Just(Request::Ping),
            Just(Request::Alive),
            any::<u64>().prop_map(|request| Request::Cancel { request }),
            any::<u64>().prop_map(|below| Request::Settled { below }),
            Just(Request::Leave),
        ]
    }

    fn answer() -> impl Strategy<Value = Answer> {
        prop_oneof![
            Just(Answer::Done),
            option::of(bytes(90)).prop_map(Answer::Value),
            (any::<bool>(), option::of(bytes(90)))
                .prop_map(|(swapped, current)| Answer::Swap(Swap { swapped, current })),
            any::<u64>().prop_map(Answer::Count),
            (any::<u64>(), vec((bytes(20), bytes(50)), 0..20)).prop_map(|(revision, all)| {
                let entries = all.into_iter().map(|(key, value)| Entry { key, value }).collect();
                Answer::Snapshot(Arc::new(Snapshot { revision, entries }))
            }),
            any::<u64>().prop_map(|n| Answer::Lease(LeaseId(n))),
            prop_oneof![
                Just(Refusal::NoLease),
                Just(Refusal::Full),
                Just(Refusal::TooLarge),
                Just(Refusal::TooMany)
            ]
            .prop_map(Answer::Refused),
            (any::<u64>(), any::<bool>(), any::<bool>(), vec(any::<u64>().prop_map(LeaseId), 0..9)).prop_map(
                |(incarnation, resumed, returns, leases)| Answer::Welcome {
                    incarnation,
                    resumed,
                    returns,
                    leases
                }
            ),
        ]
    }

    proptest! {
        #[test]
        fn requests_survive_the_wire_in_any_pieces(
            all in vec((any::<u64>(), request()), 1..8),
            piece in 1..200usize,
        ) {
            let mut stream = Vec::new();
            for (id, r) in &all {
                encode_request(*id, r, &mut stream);
            }
            let mut frames = Frames::new(MAX_REQUEST);
            let mut got = Vec::new();
            for p in stream.chunks(piece) {
                frames.extend(p);
                while let Some(body) = frames.next_body().unwrap() {
                    got.push(decode_request(body).unwrap());
                }
            }
            prop_assert_eq!(got, all);
            prop_assert!(frames.is_empty());
        }

        #[test]
        fn answers_survive_the_wire(id in any::<u64>(), a in answer()) {
            let mut stream = Vec::new();
            encode_answer(id, &a, &mut stream);
            let mut frames = Frames::new(MAX_ANSWER);
            frames.extend(&stream);
            let body = frames.next_body().unwrap().unwrap();
            prop_assert_eq!(decode_answer(body).unwrap(), (id, a));
        }

        #[test]
        fn garbage_and_truncation_are_errors_not_panics(
            garbage in bytes(300),
            id in any::<u64>(),
            r in request(),
            cut in 0..400usize,
        ) {
            let _ = decode_request(&garbage);
            let _ = decode_answer(&garbage);
            let mut frames = Frames::new(MAX_REQUEST);
            frames.extend(&garbage);
            while let Ok(Some(_)) = frames.next_body() {}
            let mut stream = Vec::new();
            encode_request(id, &r, &mut stream);
            let body = &stream[4..];
            if cut < body.len() {
                prop_assert!(decode_request(&body[..cut]).is_err());
            }
            let mut long = body.to_vec();
            long.push(0);
            prop_assert!(decode_request(&long).is_err());
        }

        #[test]
        fn flipped_bytes_never_panic(r in request(), a in answer(), at in 0..500usize, x in any::<u8>()) {
            let (mut q, mut s) = (Vec::new(), Vec::new());
            encode_request(7, &r, &mut q);
            encode_answer(7, &a, &mut s);
            let (n, m) = (q.len(), s.len());
            q[at % n] ^= x;
            s[at % m] ^= x;
            let _ = decode_request(&q[4..]);
            let _ = decode_answer(&s[4..]);
        }
    }

    #[test]
    fn the_largest_request_fits_and_larger_is_refused() {
        let request = |n: usize| Request::CompareAndSet {
            key: vec![1; MAX_KEY],
            expected: Some(vec![2; MAX_VALUE]),
            new: Some(vec![3; n]),
            lease: None,
        };
        let mut out = Vec::new();
        encode_request(1, &request(MAX_VALUE), &mut out);
        assert!(out.len() <= MAX_REQUEST);
        assert!(decode_request(&out[4..]).is_ok());
        out.clear();
        encode_request(1, &request(MAX_VALUE + 1), &mut out);
        assert!(decode_request(&out[4..]).is_err());
        let mut frames = Frames::new(MAX_REQUEST);
        frames.extend(&u32::MAX.to_le_bytes());
        assert!(frames.next_body().is_err());
    }

    #[test]
    fn a_snapshot_that_is_too_large_becomes_a_refusal() {
        let entry = Entry { key: vec![1; MAX_KEY], value: vec![2; MAX_VALUE] };
        let entries = vec![entry; MAX_ANSWER / MAX_VALUE + 1];
        let mut out = Vec::new();
        encode_answer(1, &Answer::Snapshot(Arc::new(Snapshot { revision: 1, entries })), &mut out);
        assert_eq!(decode_answer(&out[4..]).unwrap().1, Answer::Refused(Refusal::TooLarge));
    }
}
