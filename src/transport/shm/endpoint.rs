//! One end of the connection between two members that share memory.

use super::choice::{Way, is_direct};
use super::meter::{Meter, SAMPLE};
use super::neighbour::Neighbour;
use super::ring::{
    First, Fragment, INLINE, Receiver, Sender, TAG_DATA, TAG_MORE, TAG_PULL, TAG_REGION, TAG_RUN,
};
use super::segment::{SLOTS, Segment};
use super::shared::{Shared, Window};
use super::stores::Stores;
use crate::sync::Arc;
use crate::sync::atomic::{AtomicBool, Ordering, fence};
use crate::sys::{bell, process, sleeper};
use crate::transport::protocol::{Fault, Header};
use crate::transport::{Endpoint, EndpointError, Progress, RecvMsg, SendMsg};
use crate::types::{Fingerprint, OpKind};
use std::os::fd::{AsFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

/// Messages up to this many bytes always go through the ring: copying twice is cheaper than asking the kernel.
const EAGER: usize = 16 << 10;
/// Messages up to this many bytes share slots of the ring with those behind them.
const SHORT: usize = 1 << 10;
/// Messages from this many bytes on are taken from the sender's region, where they lie in one. It is faster for shorter
/// ones, too, but those that are copied let the sender go on before they are received.
const IN_PLACE: usize = 1 << 10;
/// Messages from this many bytes on are written past the receiver's caches, which they would only empty.
const STREAM: usize = 8 << 20;
/// Bytes fetched per call, so that a broken world is noticed in the middle of a large message.
const PULL: usize = 512 << 10;
/// As above for a reducing sink, where the bytes go through a buffer that should stay in the cache.
const PULL_REDUCE: usize = 128 << 10;

/// How the receiver reaches the sender's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// `process_vm_readv` from this process. Also between threads of one process: unlike a plain copy it survives a
    /// sender that gives up and unmaps its buffer in the middle.
    Process(u32),
    /// Not at all: everything goes through the ring.
    None,
}

/// A run of short messages, of which some have been received.
#[derive(Clone, Copy)]
struct Run {
    /// What was announced first, and how many have been received.
    fp: Fingerprint,
    received: u32,
    messages: u32,
    /// Bytes of each.
    each: usize,
    fragment: Fragment,
}

/// Where this end and the other one are.
pub struct Wiring {
    /// The shared memory.
    pub segment: Arc<Segment>,
    /// This member's index in it.
    pub me: u32,
    /// The other's.
    pub peer: u32,
    /// Whether reading the peer's memory may be tried.
    pub direct: bool,
    /// The doorbell of the peer's process; `None` when that is this process.
    pub doorbell: Option<Arc<OwnedFd>>,
    /// The peer's process.
    pub neighbour: Arc<Neighbour>,
}

/// Where an announced message is.
enum Source {
    /// At this address of the sender's process.
    Remote(u64),
    /// In a region.
    Mapped(Window),
}

/// See the module's documentation.
pub struct ShmEndpoint {
    tx: Sender,
    rx: Receiver,
    wiring: Wiring,
    reach: Reach,
    probed: bool,
    /// Announced messages that the sender has been told are read.
    reaped: u64,
    posted: u64,
    pull: Option<Source>,
    pulled: u64,
    run: Option<Run>,
    buffer: Vec<u8>,
    /// The peer's messages are over, or not to be trusted.
    fault: Option<Fault>,
    /// This end gave up.
    cancelled: bool,
    /// This end sends nothing more.
    finished: bool,
    /// Something was done that the peer may wait for, and its bell has not been rung since.
    unrung: bool,
    /// Slots and bytes given back since the peer's bell was last rung for them.
    freed: (usize, usize),
    meter: Meter,
    /// Long messages sent through the ring.
    long: u32,
    stores: Stores,
    shared: Shared,
}

impl ShmEndpoint {
    /// A new end. Large messages go through the ring until the receiver has found a better way, which it tries when
    /// the first message comes: by then the sender has introduced itself.
    pub fn new(wiring: Wiring) -> ShmEndpoint {
        let tx = Sender::new(wiring.segment.clone(), wiring.me, wiring.peer);
        let rx = Receiver::new(wiring.segment.clone(), wiring.peer, wiring.me);
        let shared = Shared::new(wiring.neighbour.clone());
        ShmEndpoint {
            tx,
            rx,
            wiring,
            reach: Reach::None,
            probed: false,
            reaped: 0,
            posted: 0,
            pull: None,
            pulled: 0,
            run: None,
            buffer: Vec::new(),
            fault: None,
            cancelled: false,
            finished: false,
            unrung: false,
            freed: (0, 0),
            meter: Meter::default(),
            long: 0,
            stores: Stores::default(),
            shared,
        }
    }

    /// Tries whether this end can read the peer's memory and tells the peer.
    #[cold]
    fn probe(&mut self) {
        static SAID: AtomicBool = AtomicBool::new(false);
        self.probed = true;
        let line = self.wiring.segment.member(self.wiring.peer);
        let pid = line.pid.load(Ordering::Acquire);
        let expected = line.probe.load(Ordering::Acquire);
        let at = line.probe_at.load(Ordering::Acquire);
        let mut word = [0u8; 8];
        // SAFETY: `word` is eight bytes.
        let got = self.wiring.direct.then(|| unsafe { process::read_memory(pid, at, word.as_mut_ptr(), 8) });
        self.reach = match &got {
            Some(Ok(8)) if u64::from_ne_bytes(word) == expected => Reach::Process(pid),
            _ => Reach::None,
        };
        let answer = if self.reach == Reach::None { 2 } else { 1 };
        if answer == 2 && !SAID.swap(true, Ordering::Relaxed) {
            let why = match got {
                None => "switched off".to_string(),
                Some(Err(e)) => e.to_string(),
                Some(Ok(_)) => "another process answers to its id (different namespaces?)".to_string(),
            };
            tracing::warn!("process_vm_readv from a peer: {why}; large messages are copied twice");
        }
        self.rx.control().direct.store(self.meter.start(pid), Ordering::Relaxed);
        self.rx.control().can_pull.store(answer, Ordering::Release);
    }

    fn ring_peer(&self) {
        let line = self.wiring.segment.member(self.wiring.peer);
        let doorbell = match &self.wiring.doorbell {
            Some(theirs) => Some(theirs.as_fd()),
            None => sleeper::doorbell_if_any(),
        };
        bell::ring(&line.bell, doorbell);
    }

    /// The peer says that it will read no more.
    fn reader_gone(&self) -> bool {
        // Acquire: pairs with `leave`; what the peer read before is visible.
        self.tx.control().gone.load(Ordering::Acquire) != 0
    }

    /// This end reads no more.
    fn leave(&mut self) {
        self.rx.control().gone.store(1, Ordering::Release);
        self.finish();
    }

    /// The peer says that it will send no more; everything it sent before is visible by now.
    fn peer_finished(&self) -> bool {
        // Acquire: pairs with the Release in `finish`.
        self.rx.control().finished.load(Ordering::Acquire) != 0 && self.rx.peek() == 0
    }

    fn corrupt<T>(&self, what: &'static str) -> Result<T, Fault> {
        Err(Fault::Corrupt(what))
    }

    /// Matches the announcement at the reading position with the posted receive.
    ///
    /// # Safety
    /// The message's buffer is valid.
    unsafe fn begin(&mut self, msg: &mut RecvMsg) -> Result<Progress, Fault> {
        if let Some(run) = self.run {
            return self.take_of_run(run, msg);
        }
        let tag = self.rx.peek();
        if tag == 0 {
            if self.peer_finished() {
                return Err(Fault::Closed);
            }
            return Ok(Progress::None);
        }
        if !self.probed {
            self.probe();
        }
        let first = match self.rx.first() {
            Some(f) if matches!(tag, TAG_DATA | TAG_RUN | TAG_PULL | TAG_REGION) => f,
            _ => return self.corrupt("shared-memory ring: not a message"),
        };
        let expected = cfg!(mw_without = "fingerprints").then_some(msg.fp);
        let Some(fp) = expected.or(first.fp) else {
            return self.corrupt("shared-memory ring: not a fingerprint");
        };
        self.tx.hear(first.released);
        if tag == TAG_RUN {
            let run = self.run(fp, &first)?;
            return self.take_of_run(run, msg);
        }
        if fp != msg.fp || first.total != msg.len as u64 {
            return Err(Fault::Mismatch(Header { fp, len: first.total }));
        }
        msg.started = true;
        match tag {
            TAG_DATA => {
                if msg.len > EAGER && self.reach != Reach::None {
                    self.meter.begin(msg.len, Way::Ring);
                }
                self.consume(msg, first.fragment)
            }
            TAG_PULL => {
                self.meter.begin(msg.len, Way::Direct);
                if first.fragment.len != 8 || self.reach == Reach::None {
                    return self.corrupt("shared-memory ring: announcement of unreachable bytes");
                }
                // SAFETY: eight payload bytes of a checked fragment.
                let raw = unsafe { first.fragment.payload.cast::<[u8; 8]>().read_unaligned() };
                self.pull = Some(Source::Remote(u64::from_le_bytes(raw)));
                self.free(0);
                Ok(Progress::Some)
            }
            // SAFETY: by this function's contract.
            _ => unsafe { self.begin_in_place(msg, &first) },
        }
    }

    /// A message in a region of the peer.
    ///
    /// # Safety
    /// The message's buffer is valid.
    #[inline]
    unsafe fn begin_in_place(&mut self, msg: &mut RecvMsg, first: &First) -> Result<Progress, Fault> {
        if first.fragment.len != 16 {
            return self.corrupt("shared-memory ring: not a place in a region");
        }
        // SAFETY: sixteen payload bytes of a checked fragment.
        let [id, at] = unsafe { first.fragment.payload.cast::<[[u8; 8]; 2]>().read_unaligned() };
        let Some(window) = self.shared.window(u64::from_le_bytes(id), u64::from_le_bytes(at), msg.len)?
        else {
            // It has given the message up, and freed the memory, or it has ended.
            self.still_valid()?;
            if self.shared.is_peer_gone() {
                return Err(Fault::Closed);
            }
            return self.corrupt("shared-memory ring: announcement of a region that is not there");
        };
        // SAFETY: by this function's contract.
        unsafe { self.take(msg, window) }
    }

    /// Takes the next piece of a message that lies in a region.
    ///
    /// # Safety
    /// The message's buffer is valid.
    #[inline]
    unsafe fn take(&mut self, msg: &mut RecvMsg, window: Window) -> Result<Progress, Fault> {
        let (bytes, len) = window.bytes(msg.offset, PULL);
        let before = msg.offset;
        // SAFETY: the window holds these bytes, and the message's buffer, valid by this function's contract, has room for
        // them: both are `msg.len` bytes long. PULL is a multiple of every element's size. A sender that has not given
        // the message up does not write to them; if it has, what came of it is thrown away below.
        unsafe { msg.accept(std::slice::from_raw_parts(bytes, len), msg.len >= STREAM) };
        self.still_valid().inspect_err(|_| msg.offset = before)?;
        if msg.offset < msg.len {
            self.pull = Some(Source::Mapped(window));
            return Ok(Progress::Some);
        }
        // The slot is given back only now: the sender looks at the line where that is said, and would hold up every store
        // behind it.
        self.free(0);
        self.fetched(msg.len);
        Ok(Progress::Done)
    }

    /// A run as it was announced.
    fn run(&self, fp: Fingerprint, first: &First) -> Result<Run, Fault> {
        let fragment = first.fragment;
        let each = usize::try_from(first.total).unwrap_or(usize::MAX);
        if each == 0 || fragment.len < each || !fragment.len.is_multiple_of(each) {
            return self.corrupt("shared-memory ring: run of an impossible length");
        }
        Ok(Run { fp, received: 0, messages: (fragment.len / each) as u32, each, fragment })
    }

    /// Takes the next message of a run.
    #[inline]
    fn take_of_run(&mut self, mut run: Run, msg: &mut RecvMsg) -> Result<Progress, Fault> {
        if msg.len != run.each || !run.fp.is_followed(run.received, &msg.fp) {
            let fp = Fingerprint { seq: run.fp.seq.wrapping_add(run.received), ..run.fp };
            return Err(Fault::Mismatch(Header { fp, len: run.each as u64 }));
        }
        msg.started = true;
        let at = run.received as usize * run.each;
        // SAFETY: `received < messages`, so these bytes lie in the run's fragment, which lies within the ring and is
        // ours until released; the message is pending and takes as many.
        unsafe { msg.accept(std::slice::from_raw_parts(run.fragment.payload.add(at), run.each), false) };
        run.received += 1;
        self.run = (run.received < run.messages).then_some(run);
        if self.run.is_none() {
            self.free(run.fragment.len);
        }
        Ok(Progress::Done)
    }

    /// Gives a fragment of so many bytes back: the sender may wait for the room. It is rung for a part of the ring at a
    /// time, because ringing makes it wait for the stores before; for less it looks by itself.
    #[inline]
    fn free(&mut self, bytes: usize) {
        let released = self.rx.release();
        self.tx.say(released);
        self.freed = (self.freed.0 + 1, self.freed.1 + bytes);
        if self.freed.0 >= SLOTS / 4 || self.freed.1 >= self.rx.size() / 4 {
            self.freed = (0, 0);
            self.unrung = true;
        }
    }

    /// Takes a fragment's bytes.
    #[inline]
    fn consume(&mut self, msg: &mut RecvMsg, f: Fragment) -> Result<Progress, Fault> {
        let rest = msg.len - msg.offset;
        if f.len > rest || (f.len == 0 && rest != 0) || (f.len < rest && !f.len.is_multiple_of(8)) {
            return self.corrupt("shared-memory ring: fragment of an impossible length");
        }
        // SAFETY: the fragment lies within the ring and is ours until released; the message is pending, so its
        // buffer is valid, and it has room for `f.len` more bytes. The sender writes in multiples of eight, so
        // elements are never split.
        unsafe { msg.accept(std::slice::from_raw_parts(f.payload, f.len), msg.len >= STREAM) };
        self.free(f.len);
        if msg.offset == msg.len {
            self.learn(msg.len);
            return Ok(Progress::Done);
        }
        Ok(Progress::Some)
    }

    /// A message is complete: what it cost tells which way the next one should take.
    #[inline]
    fn learn(&mut self, len: usize) {
        let control = self.rx.control();
        let first = || Duration::from_nanos(u64::from(control.first.load(Ordering::Relaxed)));
        if let Some(bits) = self.meter.end(len, first) {
            control.direct.store(bits, Ordering::Relaxed);
        }
    }

    /// Fetches the next piece of an announced message.
    ///
    /// # Safety
    /// The message's buffer is valid.
    unsafe fn fetch(&mut self, msg: &mut RecvMsg, base: u64) -> Result<Progress, Fault> {
        let rest = msg.len - msg.offset;
        let from = base.wrapping_add(msg.offset as u64);
        // SAFETY: by this function's contract.
        if let Some(to) = unsafe { msg.direct() } {
            let want = rest.min(PULL);
            let to = to.as_mut_ptr();
            // SAFETY: `to` has room for `rest` bytes.
            let n = unsafe { self.read(from, to, want)? };
            self.still_valid()?;
            msg.offset += n;
        } else {
            let want = rest.min(PULL_REDUCE);
            let mut buffer = std::mem::take(&mut self.buffer);
            if buffer.len() < want {
                buffer.resize(want, 0);
            }
            let mut have = 0;
            while have < want {
                let at = from.wrapping_add(have as u64);
                // SAFETY: the buffer has `want` bytes.
                have += unsafe { self.read(at, buffer.as_mut_ptr().add(have), want - have)? };
            }
            self.still_valid()?;
            // SAFETY: by this function's contract; PULL_REDUCE is a multiple of every element size.
            unsafe { msg.accept(&buffer[..want], false) };
            self.buffer = buffer;
        }
        if msg.offset < msg.len {
            self.pull = Some(Source::Remote(base));
            return Ok(Progress::Some);
        }
        self.fetched(msg.len);
        Ok(Progress::Done)
    }

    /// An announced message is complete.
    #[inline]
    fn fetched(&mut self, len: usize) {
        self.learn(len);
        self.pulled += 1;
        // Release: our reads of the sender's buffer come before its reuse.
        self.rx.control().pulled.store(self.pulled, Ordering::Release);
        self.unrung = true;
    }

    /// Whether what was just read is what the sender announced. It voids its announcement before it lets its caller
    /// reuse the buffer; if it did so while we read, what we read may be anything.
    fn still_valid(&self) -> Result<(), Fault> {
        // Pairs with the fence in `cancel`: our reads come before the look at the mark.
        fence(Ordering::Acquire);
        if self.rx.control().cancelled.load(Ordering::Acquire) != 0 { Err(Fault::Closed) } else { Ok(()) }
    }

    /// # Safety
    /// `to` is valid for writing `len` bytes.
    unsafe fn read(&mut self, from: u64, to: *mut u8, len: usize) -> Result<usize, Fault> {
        match self.reach {
            // SAFETY: `to` by this function's contract.
            Reach::Process(pid) => match unsafe { process::read_memory(pid, from, to, len) } {
                Ok(0) => self.corrupt("process_vm_readv read nothing"),
                Ok(n) => Ok(n.min(len)),
                // The process is gone, or its memory is already.
                Err(e) => {
                    tracing::debug!("process_vm_readv from {pid}: {e}");
                    Err(Fault::Closed)
                }
            },
            Reach::None => self.corrupt("no way to read the peer's memory"),
        }
    }

    /// Writes the next fragment of a message; answers whether anything moved.
    ///
    /// # Safety
    /// The message's buffer is valid.
    #[inline]
    unsafe fn put(&mut self, msg: &mut SendMsg) -> bool {
        // What a collective sends is waited for, and nothing like it follows at once.
        let follows = msg.fp.kind == OpKind::PointToPoint;
        let is_short = follows && msg.len <= SHORT && msg.len > 0;
        // SAFETY: by this function's contract.
        if is_short && !msg.started && unsafe { self.tx.join(&msg.fp, msg.ptr, msg.len) } {
            msg.started = true;
            msg.offset = msg.len;
            return true;
        }
        let rest = msg.len - msg.offset;
        let Some(mut f) = self.tx.reserve(rest, msg.offset) else { return false };
        if f.len < rest {
            // Never split an element: all are at most eight bytes long.
            f.len &= !7;
        }
        let tag = if msg.started {
            TAG_MORE
        } else {
            self.tx.write_first(&msg.fp, msg.len as u64);
            TAG_DATA
        };
        let is_long = tag == TAG_DATA && msg.len > EAGER;
        self.long = self.long.wrapping_add(u32::from(is_long));
        let since = (is_long && self.long.is_multiple_of(SAMPLE)).then(Instant::now);
        // SAFETY: the caller's buffer has `rest` more bytes; the fragment has room for `f.len`.
        unsafe {
            self.stores.copy(
                f.payload,
                msg.ptr.add(msg.offset),
                f.len,
                follows && !msg.started && self.tx.is_ahead(),
            )
        };
        if let Some(since) = since {
            let took = u32::try_from(since.elapsed().as_nanos()).unwrap_or(u32::MAX);
            self.tx.control().first.store(took, Ordering::Relaxed);
        }
        if is_short && f.len == msg.len {
            self.tx.hold(&msg.fp, f);
        } else {
            self.tx.publish(&f, tag);
        }
        msg.started = true;
        msg.offset += f.len;
        true
    }

    /// Tells where a message is.
    #[inline]
    fn announce<const N: usize>(&mut self, msg: &mut SendMsg, tag: u32, words: [u64; N]) -> Progress {
        const { assert!(N * 8 <= INLINE) };
        let Some(f) = self.tx.reserve(N * 8, 0) else { return Progress::None };
        self.tx.write_first(&msg.fp, msg.len as u64);
        // SAFETY: room for so many bytes was reserved.
        unsafe { f.payload.cast::<[[u8; 8]; N]>().write_unaligned(words.map(u64::to_le_bytes)) };
        self.tx.publish(&f, tag);
        msg.started = true;
        self.posted += 1;
        self.unrung = true;
        Progress::Posted
    }

    /// Says that a message is at some place, true or not.
    #[cfg(test)]
    pub(super) fn announce_region(&mut self, msg: &mut SendMsg, place: [u64; 2]) {
        assert_eq!(self.announce(msg, TAG_REGION, place), Progress::Posted);
    }

    /// Whether a message is announced and fetched instead of copied through the ring.
    fn goes_direct(&self, len: usize) -> bool {
        let control = self.tx.control();
        len > EAGER
            && control.can_pull.load(Ordering::Acquire) == 1
            && is_direct(control.direct.load(Ordering::Relaxed), len, self.posted - self.reaped)
    }

    /// Advances a receive.
    ///
    /// # Safety
    /// As for [`Endpoint::recv`].
    #[inline]
    unsafe fn receive(&mut self, msg: &mut RecvMsg) -> Result<Progress, Fault> {
        if !msg.started {
            // SAFETY: by this function's contract.
            return unsafe { self.begin(msg) };
        }
        match self.pull.take() {
            None => {}
            // SAFETY: by this function's contract.
            Some(Source::Remote(base)) => return unsafe { self.fetch(msg, base) },
            // SAFETY: by this function's contract.
            Some(Source::Mapped(window)) => return unsafe { self.take(msg, window) },
        }
        match self.rx.peek() {
            0 if self.peer_finished() => Err(Fault::Closed),
            0 => Ok(Progress::None),
            TAG_MORE => match self.rx.fragment() {
                Some(f) => self.consume(msg, f),
                None => self.corrupt("shared-memory ring: fragment out of range"),
            },
            _ => self.corrupt("shared-memory ring: fragment expected"),
        }
    }
}

impl Endpoint for ShmEndpoint {
    #[inline]
    unsafe fn send(&mut self, msg: &mut SendMsg) -> Result<Progress, EndpointError> {
        if self.cancelled {
            return Err(Fault::Cancelled.into());
        }
        if self.finished {
            return Err(Fault::Misuse("a send after finish").into());
        }
        if !msg.started && msg.len >= IN_PLACE {
            let announced = if let Some(place) = self.shared.place(msg.ptr, msg.len) {
                Some(self.announce(msg, TAG_REGION, [place.id, place.at as u64]))
            } else if self.goes_direct(msg.len) {
                Some(self.announce(msg, TAG_PULL, [msg.ptr as u64]))
            } else {
                None
            };
            match announced {
                None => {}
                Some(Progress::None) if self.reader_gone() => return Err(EndpointError::Closed),
                Some(progress) => return Ok(progress),
            }
        }
        // SAFETY: by this function's contract.
        if !unsafe { self.put(msg) } {
            return if self.reader_gone() { Err(EndpointError::Closed) } else { Ok(Progress::None) };
        }
        self.unrung = true;
        Ok(if msg.offset == msg.len { Progress::Done } else { Progress::Some })
    }

    #[inline]
    unsafe fn recv(&mut self, msg: &mut RecvMsg) -> Result<Progress, EndpointError> {
        if self.cancelled {
            return Err(Fault::Cancelled.into());
        }
        if self.fault.is_none() {
            // SAFETY: by this function's contract.
            match unsafe { self.receive(msg) } {
                Ok(p) => return Ok(p),
                Err(f) => self.fault = Some(f),
            }
        }
        Err(self.fault.unwrap_or(Fault::Closed).into())
    }

    #[inline]
    fn reap(&mut self) -> Result<usize, EndpointError> {
        if self.reaped == self.posted {
            return Ok(0);
        }
        // Acquire: pairs with the Release in `fetch`; the buffer may be reused afterwards.
        let pulled = self.tx.control().pulled.load(Ordering::Acquire);
        if pulled < self.reaped || pulled > self.posted {
            return Err(EndpointError::Corrupt("shared-memory ring: more messages read than announced"));
        }
        let n = pulled - self.reaped;
        if n == 0 && self.reader_gone() && self.tx.control().pulled.load(Ordering::Acquire) == pulled {
            return Err(EndpointError::Closed);
        }
        self.reaped = pulled;
        Ok(n as usize)
    }

    #[inline]
    fn flush(&mut self) {
        self.tx.let_go();
        if std::mem::take(&mut self.unrung) {
            self.ring_peer();
        }
    }

    fn poll_fd(&self) -> Option<RawFd> {
        None
    }

    fn is_peer_at_work(&self) -> bool {
        self.wiring.segment.member(self.wiring.peer).rest.0.load(Ordering::Relaxed) == 0
    }

    fn finish(&mut self) {
        self.finished = true;
        self.tx.let_go();
        // Release: everything published before is visible to whoever sees the mark.
        self.tx.control().finished.store(1, Ordering::Release);
        self.ring_peer();
    }

    fn cancel(&mut self) {
        self.cancelled = true;
        self.tx.control().cancelled.store(1, Ordering::Release);
        // Pairs with the fence in `still_valid`: the caller's later writes to its buffers come after the mark.
        fence(Ordering::SeqCst);
        self.leave();
    }
}

impl Drop for ShmEndpoint {
    fn drop(&mut self) {
        // A message that was announced and not fetched loses its buffer with this end.
        if self.reaped != self.posted && !self.cancelled {
            self.cancel();
        } else {
            self.leave();
        }
    }
}
