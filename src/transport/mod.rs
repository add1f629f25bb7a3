//! How bytes get from one member of a world to another.
//!
//! An [`Endpoint`] is one end of the connection between two members of one world: two strictly ordered
//! directions of messages. The receiver always knows what comes next, because both sides post in the same order,
//! so there are no tags and nothing is ever received before somebody asked for it: what has not been asked for
//! stays in the ring or in the socket, and holds its sender back there.
//!
//! Endpoints never block and never sleep. The engine in `progress` calls [`Endpoint::send`] and
//! [`Endpoint::recv`] until they say [`Progress::Done`], and decides when to sleep.

#[cfg(test)]
pub mod conformance;
pub mod loopback;
pub mod protocol;
pub mod shm;
pub mod tcp;

use crate::sys::copy;
use crate::types::Fingerprint;
use std::io;
use std::os::fd::RawFd;

/// `dst[i] = dst[i] op src[i]` for `count` elements.
///
/// # Safety
/// Both point to `count` elements, `dst` writable, not overlapping. No alignment is assumed.
pub type ReduceFn = unsafe fn(dst: *mut u8, src: *const u8, count: usize);

/// `dst[i] = a[i] op b[i]` for `count` elements.
///
/// # Safety
/// All point to `count` elements, `dst` writable. `dst` equals one of the others or overlaps neither. No
/// alignment is assumed.
pub type Reduce3Fn = unsafe fn(dst: *mut u8, a: *const u8, b: *const u8, count: usize);

/// A message to send. The bytes belong to the caller and stay put until the message is done or cancelled.
#[derive(Debug)]
pub struct SendMsg {
    /// What the receiver must expect.
    pub fp: Fingerprint,
    /// First byte.
    pub ptr: *const u8,
    /// Bytes.
    pub len: usize,
    /// Endpoint's own progress mark; 0 for a message that has not been started.
    pub offset: usize,
    /// Whether the header has gone out.
    pub started: bool,
}

/// A message to receive.
#[derive(Debug)]
pub struct RecvMsg {
    /// What the sender must have announced.
    pub fp: Fingerprint,
    /// Where the bytes go.
    pub sink: Sink,
    /// Bytes.
    pub len: usize,
    /// Bytes consumed so far.
    pub offset: usize,
    /// Whether the header has been read and matched.
    pub started: bool,
}

/// Where received bytes go.
#[derive(Clone, Copy, Debug)]
pub enum Sink {
    /// Into the caller's buffer.
    Copy(*mut u8),
    /// Combined with what the caller's buffer holds.
    Reduce {
        /// First element of the buffer that accumulates.
        dst: *mut u8,
        /// The operator.
        kernel: ReduceFn,
        /// Bytes per element.
        elem: usize,
    },
    /// Combined with another buffer of the caller's.
    Combine {
        /// First element of the result.
        dst: *mut u8,
        /// First element of the other operand; `dst` itself, or apart from it.
        own: *const u8,
        /// The operator.
        kernel: Reduce3Fn,
        /// Bytes per element.
        elem: u32,
        /// Whether `own` is the left operand.
        own_first: bool,
    },
}

impl Sink {
    /// Bytes per element, where a sink combines: it takes whole ones only.
    pub fn element(&self) -> Option<usize> {
        match *self {
            Sink::Copy(_) => None,
            Sink::Reduce { elem, .. } => Some(elem),
            Sink::Combine { elem, .. } => Some(elem as usize),
        }
    }
}

// SAFETY: the pointers are the caller's buffers. Only the engine that holds the message's world lock uses them.
unsafe impl Send for SendMsg {}
// SAFETY: as above.
unsafe impl Send for RecvMsg {}

impl SendMsg {
    /// A message that has not been started.
    pub fn new(fp: Fingerprint, ptr: *const u8, len: usize) -> SendMsg {
        SendMsg { fp, ptr, len, offset: 0, started: false }
    }

    /// The bytes not yet handed over.
    ///
    /// # Safety
    /// The caller's buffer is still valid: the message is neither done nor cancelled.
    pub unsafe fn rest(&self) -> &[u8] {
        if self.len == 0 {
            return &[];
        }
        // SAFETY: `offset <= len`, and the buffer is valid by this function's contract.
        unsafe { std::slice::from_raw_parts(self.ptr.add(self.offset), self.len - self.offset) }
    }
}

impl RecvMsg {
    /// A message that has not been started.
    pub fn new(fp: Fingerprint, sink: Sink, len: usize) -> RecvMsg {
        RecvMsg { fp, sink, len, offset: 0, started: false }
    }

    /// Consumes `bytes`, the next ones of the message; at most `len - offset` of them, and for a reducing sink a
    /// whole number of elements. `past_caches` is for those of long messages that are not reduced.
    ///
    /// # Safety
    /// The caller's buffer is still valid: the message is neither done nor cancelled.
    pub unsafe fn accept(&mut self, bytes: &[u8], past_caches: bool) {
        debug_assert!(bytes.len() <= self.len - self.offset);
        match self.sink {
            // SAFETY: as below.
            Sink::Copy(dst) if past_caches => unsafe {
                copy::copy_streaming(dst.add(self.offset), bytes.as_ptr(), bytes.len());
            },
            // SAFETY: the sink holds `len` bytes and `offset + bytes.len() <= len`; the source is not the sink.
            Sink::Copy(dst) => unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), dst.add(self.offset), bytes.len());
            },
            Sink::Reduce { dst, kernel, elem } => {
                debug_assert!(bytes.len().is_multiple_of(elem) && self.offset.is_multiple_of(elem));
                // SAFETY: as above, in elements.
                unsafe { kernel(dst.add(self.offset), bytes.as_ptr(), bytes.len() / elem) };
            }
            Sink::Combine { dst, own, kernel, elem, own_first } => {
                let elem = elem as usize;
                debug_assert!(bytes.len().is_multiple_of(elem) && self.offset.is_multiple_of(elem));
                // SAFETY: as above; `own` holds `len` bytes too.
                unsafe {
                    let (dst, own) = (dst.add(self.offset), own.add(self.offset));
                    let (a, b) = if own_first { (own, bytes.as_ptr()) } else { (bytes.as_ptr(), own) };
                    kernel(dst, a, b, bytes.len() / elem);
                }
            }
        }
        self.offset += bytes.len();
    }

    /// The rest of the caller's buffer, where the sink copies: an endpoint may read straight into it, and then
    /// advances `offset`. `None` for a reducing sink.
    ///
    /// # Safety
    /// The caller's buffer is still valid: the message is neither done nor cancelled.
    pub unsafe fn direct(&mut self) -> Option<&mut [u8]> {
        match self.sink {
            Sink::Copy(_) if self.len == self.offset => Some(&mut []),
            // SAFETY: the sink holds `len` bytes and `offset <= len`; `&mut self` makes the borrow exclusive.
            Sink::Copy(dst) => unsafe {
                Some(std::slice::from_raw_parts_mut(dst.add(self.offset), self.len - self.offset))
            },
            Sink::Reduce { .. } | Sink::Combine { .. } => None,
        }
    }
}

/// How far a call got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The message is complete; its buffer belongs to the caller again.
    Done,
    /// (send only) The whole message has been announced and the next one may be posted, but the buffer is still
    /// needed: [`Endpoint::reap`] tells when it no longer is. It may even stay here until that is called.
    Posted,
    /// Something moved.
    Some,
    /// Nothing moved: the peer has to act first.
    None,
}

/// Why an endpoint cannot go on. Every variant is final for the endpoint.
#[derive(Debug)]
pub enum EndpointError {
    /// The peer closed its end, and everything it sent before has been delivered. A suspicion, not a verdict:
    /// the watchdog finds out whether it died, left or only stopped using this world.
    Closed,
    /// The peer announced another message than the one posted here.
    Mismatch {
        /// What the peer announced.
        theirs: Fingerprint,
        /// Bytes the peer announced.
        their_len: u64,
    },
    /// A system call failed.
    System(&'static str, io::Error),
    /// The peer wrote something that no correct peer writes.
    Corrupt(&'static str),
}

/// One end of the connection between two members of one world.
///
/// Sends and receives are independent: a blocked one never holds up the other direction.
pub trait Endpoint: Send {
    /// Advances the oldest message that is neither done nor posted. Called again with the same message until it
    /// answers `Done` or `Posted`.
    ///
    /// # Safety
    /// The message's buffer is valid until it is done, reaped, or [`Endpoint::cancel`] has returned.
    unsafe fn send(&mut self, msg: &mut SendMsg) -> Result<Progress, EndpointError>;

    /// Advances the oldest receive that is not done. Never answers `Posted`.
    ///
    /// # Safety
    /// As for [`Endpoint::send`].
    unsafe fn recv(&mut self, msg: &mut RecvMsg) -> Result<Progress, EndpointError>;

    /// How many posted messages, oldest first, have become done since the last call. While there are posted
    /// messages, this is called whenever no more sends follow for now: small ones are held back until then, to
    /// go out together.
    fn reap(&mut self) -> Result<usize, EndpointError>;

    /// Shows the peer what was done since the last call, and wakes it if it sleeps and may wait for that. Until then
    /// it need not notice: a short message may be held back for others that follow.
    fn flush(&mut self) {}

    /// The descriptor to poll before sleeping; `None` when the peer rings this member's bell instead.
    fn poll_fd(&self) -> Option<RawFd>;

    /// Whether the peer is known not to wait for anybody itself. It may be about to answer.
    fn is_peer_at_work(&self) -> bool {
        false
    }

    /// No more sends will come: everything sent stays readable for the peer, and after it the peer's receives
    /// answer [`EndpointError::Closed`].
    fn finish(&mut self);

    /// Gives up everything under way. When this returns no buffer of a posted message is trusted by the peer any
    /// more: its receive fails instead of delivering bytes that the caller may now overwrite.
    fn cancel(&mut self);
}
