//! What endpoints over a byte stream have in common, without I/O: the header in front of every message, how far
//! the message under way has got in each direction, and the error that ended a direction.

use crate::transport::{EndpointError, Progress, RecvMsg, SendMsg};
use crate::types::Fingerprint;
use std::io;

/// What travels in front of every message.
///
/// | bytes | content |
/// |---|---|
/// | 0..4 | `MW`, version 1, 0 |
/// | 4..24 | fingerprint |
/// | 24..32 | length of the payload, little-endian |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The operation that the message belongs to.
    pub fp: Fingerprint,
    /// Bytes of the payload.
    pub len: u64,
}

const MAGIC: [u8; 4] = [b'M', b'W', 1, 0];

impl Header {
    /// Bytes of the encoded form.
    pub const SIZE: usize = 32;

    /// The wire form.
    pub fn encode(&self) -> [u8; Header::SIZE] {
        let mut out = [0; Header::SIZE];
        out[..4].copy_from_slice(&MAGIC);
        out[4..24].copy_from_slice(&self.fp.encode());
        out[24..].copy_from_slice(&self.len.to_le_bytes());
        out
    }

    /// Reads the wire form; `None` when no correct peer wrote it.
    pub fn decode(raw: &[u8; Header::SIZE]) -> Option<Header> {
        let (magic, rest) = raw.split_first_chunk::<4>()?;
        let (fp_raw, rest) = rest.split_first_chunk::<{ Fingerprint::SIZE }>()?;
        let fp = Fingerprint::decode(fp_raw)?;
        let len = u64::from_le_bytes(*rest.first_chunk()?);
        // Encoding again also compares the padding, which a correct peer leaves zero.
        (*magic == MAGIC && fp.encode() == *fp_raw).then_some(Header { fp, len })
    }
}

/// Why one direction of an endpoint is over. Unlike [`EndpointError`] it can be kept and repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The peer closed its end or the connection is lost.
    Closed,
    /// The peer announced another message.
    Mismatch(Header),
    /// A system call failed with this error number.
    System(&'static str, i32),
    /// The peer wrote something that no correct peer writes.
    Corrupt(&'static str),
    /// This end gave up.
    Cancelled,
    /// The caller broke the contract of [`crate::transport::Endpoint`].
    Misuse(&'static str),
}

impl From<Fault> for EndpointError {
    fn from(fault: Fault) -> EndpointError {
        match fault {
            Fault::Closed => EndpointError::Closed,
            Fault::Mismatch(theirs) => EndpointError::Mismatch { theirs: theirs.fp, their_len: theirs.len },
            Fault::System(call, errno) => EndpointError::System(call, io::Error::from_raw_os_error(errno)),
            Fault::Corrupt(what) => EndpointError::Corrupt(what),
            // Not `Closed`: that would throw suspicion on the peer.
            Fault::Cancelled => EndpointError::System("endpoint", io::Error::other("cancelled by this end")),
            Fault::Misuse(what) => {
                EndpointError::System("endpoint", io::Error::new(io::ErrorKind::InvalidInput, what))
            }
        }
    }
}

/// The message under way out of an endpoint.
#[derive(Debug, Default)]
pub struct Departure {
    /// Bytes of the header that are out, while `SendMsg::started` is false.
    header: usize,
    /// The header is out, the payload is not.
    open: bool,
}

impl Departure {
    /// Copies what is left of the header of `msg` to the front of `raw` and returns it.
    pub fn header<'a>(&self, msg: &SendMsg, raw: &'a mut [u8; Header::SIZE]) -> Result<&'a [u8], Fault> {
        if msg.started != self.open || msg.offset > msg.len {
            return Err(Fault::Misuse("another message was sent only in part"));
        }
        if self.open {
            return Ok(&[]);
        }
        *raw = Header { fp: msg.fp, len: msg.len as u64 }.encode();
        Ok(raw.get(self.header..).unwrap_or_default())
    }

    /// Records that `n` more bytes of header and payload are out.
    pub fn advance(&mut self, msg: &mut SendMsg, n: usize) -> Progress {
        let mut payload = n;
        if !self.open {
            let header = n.min(Header::SIZE - self.header);
            payload -= header;
            self.header += header;
            if self.header < Header::SIZE {
                return Progress::Some;
            }
            msg.started = true;
            self.open = true;
        }
        msg.offset += payload;
        if msg.offset < msg.len {
            return Progress::Some;
        }
        self.complete();
        Progress::Done
    }

    /// Forgets the message: it is out, or its payload goes another way.
    pub fn complete(&mut self) {
        *self = Departure::default();
    }
}

/// The message under way into an endpoint.
#[derive(Debug, Default)]
pub struct Arrival {
    open: bool,
    /// The first bytes of an element whose rest has not arrived; used by reducing sinks only.
    carry: [u8; Arrival::MAX_ELEM],
    held: usize,
}

impl Arrival {
    /// Bytes of the largest element that a sink may reduce.
    pub const MAX_ELEM: usize = 16;

    /// Whether `msg` may come next.
    pub fn check(&self, msg: &RecvMsg) -> Result<(), Fault> {
        if msg.started != self.open || msg.offset > msg.len {
            return Err(Fault::Misuse("another message was received only in part"));
        }
        match msg.sink.element() {
            Some(elem) if elem == 0 || elem > Arrival::MAX_ELEM || !msg.len.is_multiple_of(elem) => {
                Err(Fault::Misuse("the message is not made of whole elements"))
            }
            _ => Ok(()),
        }
    }

    /// Compares the peer's announcement with what is posted here.
    pub fn open(&mut self, msg: &mut RecvMsg, raw: &[u8; Header::SIZE]) -> Result<(), Fault> {
        let theirs = Header::decode(raw).ok_or(Fault::Corrupt("message header"))?;
        if theirs != (Header { fp: msg.fp, len: msg.len as u64 }) {
            return Err(Fault::Mismatch(theirs));
        }
        msg.started = true;
        self.open = true;
        Ok(())
    }

    /// Bytes of the message that have not arrived.
    pub fn missing(&self, msg: &RecvMsg) -> usize {
        (msg.len - msg.offset).saturating_sub(self.held)
    }

    /// Consumes the next bytes of the message, at most [`Arrival::missing`], cut anywhere.
    ///
    /// # Safety
    /// The message's buffer is still valid, and is not `bytes`.
    pub unsafe fn feed(&mut self, msg: &mut RecvMsg, mut bytes: &[u8]) {
        let Some(elem) = msg.sink.element() else {
            // SAFETY: by this function's contract.
            unsafe { msg.accept(bytes, false) };
            return;
        };
        if self.held > 0 {
            let (first, rest) = bytes.split_at(bytes.len().min(elem - self.held));
            self.stash(first);
            bytes = rest;
            if self.held < elem {
                return;
            }
            self.held = 0;
            let element = self.carry;
            // SAFETY: by this function's contract; exactly one element.
            unsafe { msg.accept(&element[..elem], false) };
        }
        let (whole, rest) = bytes.split_at(bytes.len() - bytes.len() % elem);
        if !whole.is_empty() {
            // SAFETY: by this function's contract; a whole number of elements.
            unsafe { msg.accept(whole, false) };
        }
        self.stash(rest);
    }

    fn stash(&mut self, part: &[u8]) {
        self.carry[self.held..self.held + part.len()].copy_from_slice(part);
        self.held += part.len();
    }

    /// Whether the message is complete; if so, the next one may be opened.
    pub fn close(&mut self, msg: &RecvMsg) -> bool {
        let complete = self.open && msg.offset == msg.len;
        if complete {
            *self = Arrival::default();
        }
        complete
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::Sink;
    use crate::types::OpKind;
    use proptest::prelude::*;

    fn fp() -> Fingerprint {
        Fingerprint { kind: OpKind::AllReduce, dtype: 7, redop: 0, root: -1, seq: 9, count: 5 }
    }

    #[test]
    fn header_survives_the_wire_and_garbage_does_not_pass() {
        let header = Header { fp: fp(), len: u64::MAX - 1 };
        let raw = header.encode();
        assert_eq!(Header::decode(&raw), Some(header));
        for fixed in [0, 1, 2, 3, 4 + 7] {
            let mut bad = raw;
            bad[fixed] ^= 0x40;
            assert_eq!(Header::decode(&bad), None, "byte {fixed}");
        }
        assert_eq!(Header::decode(&[0; Header::SIZE]), None);
    }

    #[test]
    fn departure_counts_header_and_payload() {
        let data = [7u8; 10];
        let mut msg = SendMsg::new(fp(), data.as_ptr(), data.len());
        let mut out = Departure::default();
        let mut raw = [0; Header::SIZE];
        assert_eq!(out.header(&msg, &mut raw).unwrap().len(), 32);
        assert_eq!(out.advance(&mut msg, 31), Progress::Some);
        assert_eq!((msg.started, out.header(&msg, &mut raw).unwrap().len()), (false, 1));
        assert_eq!(out.advance(&mut msg, 4), Progress::Some);
        assert_eq!((msg.started, msg.offset, out.header(&msg, &mut raw).unwrap().len()), (true, 3, 0));
        let other = SendMsg::new(fp(), data.as_ptr(), data.len());
        assert!(matches!(out.header(&other, &mut raw), Err(Fault::Misuse(_))));
        assert_eq!(out.advance(&mut msg, 7), Progress::Done);
        assert_eq!(out.header(&other, &mut raw).unwrap().len(), 32);
    }

    unsafe fn add_u64(dst: *mut u8, src: *const u8, count: usize) {
        for i in 0..count {
            // SAFETY: `count` elements each, by the contract of ReduceFn; no alignment is assumed.
            unsafe {
                let (dst, src) = (dst.cast::<u64>().add(i), src.cast::<u64>().add(i));
                dst.write_unaligned(dst.read_unaligned().wrapping_add(src.read_unaligned()));
            }
        }
    }

    proptest! {
        #[test]
        fn elements_may_be_cut_anywhere(
            src in prop::collection::vec(any::<u64>(), 1..40),
            cuts in prop::collection::vec(1usize..30, 1..40),
        ) {
            let bytes: Vec<u8> = src.iter().flat_map(|x| x.to_ne_bytes()).collect();
            let mut acc = vec![3u64; src.len()];
            let sink = Sink::Reduce { dst: acc.as_mut_ptr().cast(), kernel: add_u64, elem: 8 };
            let mut msg = RecvMsg::new(fp(), sink, bytes.len());
            let mut arrival = Arrival::default();
            prop_assert!(arrival.check(&msg).is_ok());
            let raw = Header { fp: fp(), len: bytes.len() as u64 }.encode();
            prop_assert!(arrival.open(&mut msg, &raw).is_ok());
            let (mut rest, mut cuts) = (&bytes[..], cuts.into_iter().cycle());
            while !rest.is_empty() {
                prop_assert!(!arrival.close(&msg));
                prop_assert_eq!(arrival.missing(&msg), rest.len());
                let (now, later) = rest.split_at(cuts.next().unwrap_or(1).min(rest.len()));
                // SAFETY: `acc` lives to the end of the test and is not `bytes`.
                unsafe { arrival.feed(&mut msg, now) };
                rest = later;
            }
            prop_assert!(arrival.close(&msg));
            let expected: Vec<u64> = src.iter().map(|x| x.wrapping_add(3)).collect();
            prop_assert_eq!(acc, expected);
        }
    }

    #[test]
    fn sinks_of_broken_elements_are_refused() {
        let mut acc = [0u8; 12];
        for (elem, len) in [(0, 8), (8, 12), (17, 17)] {
            let sink = Sink::Reduce { dst: acc.as_mut_ptr(), kernel: add_u64, elem };
            let msg = RecvMsg::new(fp(), sink, len);
            assert!(matches!(Arrival::default().check(&msg), Err(Fault::Misuse(_))));
        }
    }
}
