//! Two endpoints in one process, with scripted faults, for tests of everything above a transport.
//!
//! A direction is a `Pipe` behind a lock. Headers and short payloads are copied into it; of a long one only the
//! place is noted, and the receiver copies it from there while it holds the lock ("lent"). The sender of a lent
//! message is answered [`Progress::Posted`] and learns by [`Endpoint::reap`] that it has been read.
//!
//! Lent buffers are safe because (1) they are only read under the pipe's lock, and (2) [`Endpoint::cancel`] and
//! dropping the sender remove them from the pipe under the same lock before they return.

use crate::sync::{Arc, Mutex};
use crate::transport::protocol::{Arrival, Departure, Fault, Header};
use crate::transport::{Endpoint, EndpointError, Progress, RecvMsg, SendMsg};
use std::collections::VecDeque;
use std::os::fd::RawFd;

/// Payload bytes that one call moves at most, unless scripted otherwise.
const WORK: usize = 1 << 20;

/// Part of what is on its way.
#[derive(Debug)]
enum Segment {
    /// Headers and payloads, copied.
    Bytes(VecDeque<u8>),
    /// What has not been read of a sender's buffer.
    Lent { ptr: *const u8, len: usize },
}

// SAFETY: the pointer is read only under the pipe's lock and while the sender's buffer is valid: see the file head.
unsafe impl Send for Segment {}

/// One direction.
#[derive(Debug)]
struct Pipe {
    segments: VecDeque<Segment>,
    /// Bytes in `Segment::Bytes`, at most `capacity`.
    buffered: usize,
    capacity: usize,
    /// Longer messages are lent.
    lend_above: usize,
    /// Lent messages: on their way, and read but not reaped.
    lent: usize,
    reaped: usize,
    /// No more is coming.
    sender_done: bool,
    receiver_gone: bool,
    script: Script,
}

/// The faults of one direction.
#[derive(Debug)]
struct Script {
    per_call: usize,
    stalled: bool,
    corrupt_header: bool,
    /// Bytes that are still delivered before the connection is lost.
    closes_after: Option<u64>,
}

impl Pipe {
    fn new(capacity: usize) -> Arc<Mutex<Pipe>> {
        Arc::new(Mutex::new(Pipe {
            segments: VecDeque::new(),
            buffered: 0,
            capacity,
            lend_above: capacity,
            lent: 0,
            reaped: 0,
            sender_done: false,
            receiver_gone: false,
            script: Script { per_call: WORK, stalled: false, corrupt_header: false, closes_after: None },
        }))
    }

    fn room(&self) -> usize {
        self.capacity.saturating_sub(self.buffered).min(self.script.per_call)
    }

    fn lost(&self) -> bool {
        self.script.closes_after == Some(0)
    }

    /// Copies the front of `bytes` into the pipe, as much as there is room for.
    fn write(&mut self, bytes: &[u8], room: usize) -> usize {
        let bytes = bytes.get(..room).unwrap_or(bytes);
        if let Some(Segment::Bytes(last)) = self.segments.back_mut() {
            last.extend(bytes);
        } else if !bytes.is_empty() {
            self.segments.push_back(Segment::Bytes(bytes.iter().copied().collect()));
        }
        self.buffered += bytes.len();
        bytes.len()
    }

    /// Hands up to `max` bytes to `sink`, as they lie in the pipe, and says how many.
    fn read(&mut self, max: usize, sink: impl FnOnce(&[u8])) -> Result<usize, Fault> {
        if self.lost() {
            return Err(Fault::Closed);
        }
        if self.script.stalled || max == 0 {
            return Ok(0);
        }
        let allowed = self.script.closes_after.unwrap_or(u64::MAX);
        let max = max.min(self.script.per_call).min(usize::try_from(allowed).unwrap_or(usize::MAX));
        let Some(front) = self.segments.front_mut() else {
            return if self.sender_done { Err(Fault::Closed) } else { Ok(0) };
        };
        let (n, empty) = match front {
            Segment::Bytes(bytes) => {
                let front = bytes.as_slices().0;
                let n = front.len().min(max);
                sink(front.get(..n).unwrap_or_default());
                bytes.drain(..n);
                self.buffered -= n;
                (n, bytes.is_empty())
            }
            Segment::Lent { ptr, len } => {
                let n = max.min(*len);
                // SAFETY: `len` bytes from `ptr` are the unread rest of a buffer that its sender keeps valid while
                // the segment is in the pipe; the lock is held.
                sink(unsafe { std::slice::from_raw_parts(*ptr, n) });
                // SAFETY: `n <= len`, so this stays within the buffer or one past its end.
                *ptr = unsafe { ptr.add(n) };
                *len -= n;
                if *len == 0 {
                    self.lent -= 1;
                    self.reaped += 1;
                }
                (n, *len == 0)
            }
        };
        if empty {
            self.segments.pop_front();
        }
        if let Some(left) = &mut self.script.closes_after {
            *left -= n as u64;
        }
        Ok(n)
    }

    /// The sender goes: what was copied stays readable up to the first lent message.
    fn abandon(&mut self) {
        self.sender_done = true;
        let lent = self.segments.iter().position(|s| matches!(s, Segment::Lent { .. }));
        self.segments.truncate(lent.unwrap_or(self.segments.len()));
    }
}

/// One end; see [`pair`].
#[derive(Debug)]
pub struct LoopbackEndpoint {
    tx: Arc<Mutex<Pipe>>,
    rx: Arc<Mutex<Pipe>>,
    departure: Departure,
    arrival: Arrival,
    /// The header under way in, and how much of it is there.
    header: ([u8; Header::SIZE], usize),
    send_fault: Option<Fault>,
    recv_fault: Option<Fault>,
}

/// Two connected ends. Each direction holds `capacity` bytes of headers and copied payloads; longer messages are
/// lent. A sender cannot go on before the receiver has made room, so a capacity of 0 delivers nothing at all.
pub fn pair(capacity: usize) -> (LoopbackEndpoint, LoopbackEndpoint) {
    let (there, back) = (Pipe::new(capacity), Pipe::new(capacity));
    (LoopbackEndpoint::new(there.clone(), back.clone()), LoopbackEndpoint::new(back, there))
}

/// Scripts the faults of one direction, from any thread and while its ends are in use.
#[derive(Clone, Debug)]
pub struct Control(Arc<Mutex<Pipe>>);

impl Control {
    /// Nothing more is delivered (true), or everything again (false). The sender is held back once the pipe is full.
    pub fn stall(&self, stalled: bool) {
        self.0.lock().script.stalled = stalled;
    }

    /// At most `bytes` (at least 1) move per call from now on, so that headers and elements are cut apart.
    pub fn limit_per_call(&self, bytes: usize) {
        self.0.lock().script.per_call = bytes.max(1);
    }

    /// The connection is lost after `bytes` more bytes, headers included, have been delivered; lent messages of
    /// which the receiver has not read all are never reaped.
    pub fn close_after(&self, bytes: u64) {
        self.0.lock().script.closes_after = Some(bytes);
    }

    /// The next header whose last byte is delivered arrives with a wrong first byte.
    pub fn corrupt_header(&self) {
        self.0.lock().script.corrupt_header = true;
    }

    /// Messages longer than `bytes` are lent, others copied.
    pub fn lend_above(&self, bytes: usize) {
        self.0.lock().lend_above = bytes;
    }
}

impl LoopbackEndpoint {
    fn new(tx: Arc<Mutex<Pipe>>, rx: Arc<Mutex<Pipe>>) -> LoopbackEndpoint {
        LoopbackEndpoint {
            tx,
            rx,
            departure: Departure::default(),
            arrival: Arrival::default(),
            header: ([0; Header::SIZE], 0),
            send_fault: None,
            recv_fault: None,
        }
    }

    /// The script of what this end sends.
    pub fn control(&self) -> Control {
        Control(self.tx.clone())
    }

    /// # Safety
    /// As for [`Endpoint::send`].
    unsafe fn advance_send(&mut self, msg: &mut SendMsg) -> Result<Progress, Fault> {
        let mut raw = [0; Header::SIZE];
        let header = self.departure.header(msg, &mut raw)?;
        let mut pipe = self.tx.lock();
        if pipe.receiver_gone || pipe.lost() {
            return Err(Fault::Closed);
        }
        let room = pipe.room();
        let mut n = pipe.write(header, room);
        let lend = msg.len > pipe.lend_above && !msg.started;
        if lend && n == header.len() && n > 0 {
            pipe.segments.push_back(Segment::Lent { ptr: msg.ptr, len: msg.len });
            pipe.lent += 1;
            msg.started = true;
            self.departure.complete();
            return Ok(Progress::Posted);
        }
        if n == header.len() {
            // SAFETY: by this function's contract; `header` has checked `offset <= len`.
            n += pipe.write(unsafe { msg.rest() }, room - n);
        }
        if n == 0 {
            return Ok(Progress::None);
        }
        Ok(self.departure.advance(msg, n))
    }

    /// # Safety
    /// As for [`Endpoint::recv`].
    unsafe fn advance_recv(&mut self, msg: &mut RecvMsg) -> Result<Progress, Fault> {
        self.arrival.check(msg)?;
        let mut pipe = self.rx.lock();
        let mut moved = false;
        if !msg.started {
            let (header, have) = &mut self.header;
            let n = pipe.read(Header::SIZE - *have, |bytes| {
                if let Some(part) = header.get_mut(*have..*have + bytes.len()) {
                    part.copy_from_slice(bytes);
                }
            })?;
            *have += n;
            if *have < Header::SIZE {
                return Ok(if n > 0 { Progress::Some } else { Progress::None });
            }
            if std::mem::take(&mut pipe.script.corrupt_header) {
                header[0] ^= 0xff;
            }
            *have = 0;
            self.arrival.open(msg, header)?;
            moved = true;
        }
        let missing = self.arrival.missing(msg);
        if missing > 0 {
            // SAFETY: the buffer is valid by this function's contract, and is neither in the pipe nor lent by the
            // sender, whose buffer nobody writes.
            let n = pipe.read(missing, |bytes| unsafe { self.arrival.feed(msg, bytes) });
            moved |= n? > 0;
        }
        Ok(match (self.arrival.close(msg), moved) {
            (true, _) => Progress::Done,
            (false, true) => Progress::Some,
            (false, false) => Progress::None,
        })
    }

    fn leave(&mut self) {
        self.tx.lock().abandon();
        let mut rx = self.rx.lock();
        rx.receiver_gone = true;
        // Nothing will read them, and the peer may take its lent buffers back.
        rx.segments.clear();
    }
}

impl Endpoint for LoopbackEndpoint {
    unsafe fn send(&mut self, msg: &mut SendMsg) -> Result<Progress, EndpointError> {
        if let Some(fault) = self.send_fault {
            return Err(fault.into());
        }
        // SAFETY: by this function's contract.
        unsafe { self.advance_send(msg) }.map_err(|fault| {
            self.send_fault = Some(fault);
            fault.into()
        })
    }

    unsafe fn recv(&mut self, msg: &mut RecvMsg) -> Result<Progress, EndpointError> {
        if let Some(fault) = self.recv_fault {
            return Err(fault.into());
        }
        // SAFETY: by this function's contract.
        unsafe { self.advance_recv(msg) }.map_err(|fault| {
            self.recv_fault = Some(fault);
            fault.into()
        })
    }

    fn reap(&mut self) -> Result<usize, EndpointError> {
        let mut pipe = self.tx.lock();
        let reaped = std::mem::take(&mut pipe.reaped);
        // A reader that is gone will never read the rest; whoever waits for it has to know.
        if reaped == 0 && pipe.lent > 0 && (pipe.receiver_gone || pipe.lost()) {
            return Err(self.send_fault.unwrap_or(Fault::Closed).into());
        }
        Ok(reaped)
    }

    fn poll_fd(&self) -> Option<RawFd> {
        None
    }

    fn finish(&mut self) {
        self.send_fault.get_or_insert(Fault::Misuse("send after finish"));
        self.tx.lock().sender_done = true;
    }

    fn cancel(&mut self) {
        self.send_fault = Some(Fault::Cancelled);
        self.recv_fault = Some(Fault::Cancelled);
        self.leave();
    }
}

impl Drop for LoopbackEndpoint {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::conformance::driver::{Peer, drive, fill, fp, pattern};
    use crate::transport::conformance::{random_schedule, suite};

    type Ends = (Box<dyn Endpoint>, Box<dyn Endpoint>);

    fn boxed((a, b): (LoopbackEndpoint, LoopbackEndpoint)) -> Ends {
        (Box::new(a), Box::new(b))
    }

    fn scripted(capacity: usize) -> (Peer, Peer, Control) {
        let (a, b) = pair(capacity);
        let control = a.control();
        (Peer::new(Box::new(a)), Peer::new(Box::new(b)), control)
    }

    #[test]
    fn conforms_with_lent_messages() {
        suite(&|| boxed(pair(64 << 10)));
    }

    #[test]
    fn conforms_with_copied_messages() {
        suite(&|| {
            let (a, b) = pair(64 << 10);
            a.control().lend_above(usize::MAX);
            b.control().lend_above(usize::MAX);
            boxed((a, b))
        });
    }

    #[test]
    fn random_schedules_in_small_pieces() {
        for seed in 0..20 {
            let make = || {
                let (a, b) = pair(40 + 100 * seed as usize);
                a.control().limit_per_call(1 + seed as usize * 37);
                b.control().limit_per_call(5 + seed as usize);
                boxed((a, b))
            };
            random_schedule(&make, seed, 40, 2000);
        }
    }

    #[test]
    fn connection_is_lost_where_the_script_says() {
        for (len, cut) in [(100, 0), (100, 31), (100, 131), (1000, 32), (1000, 1031)] {
            let (mut a, mut b, control) = scripted(500);
            control.close_after(32 + 10 + cut);
            for (i, len) in (0..).zip([10, len]) {
                a.send(fp(i), pattern(1, len));
                b.recv(fp(i), len);
            }
            fill(&mut a);
            let mut polls = 0;
            let err = loop {
                match b.poll_recv() {
                    Ok(_) => polls += 1,
                    Err(err) => break err,
                }
                assert!(polls < 100);
            };
            assert!(matches!(err, EndpointError::Closed) && b.received.len() == 1);
            a.send(fp(2), pattern(1, 1));
            assert!(matches!(a.poll_send(), Err(EndpointError::Closed)));
            // A lent message is never reaped.
            assert_eq!(a.poll_reap().is_err(), len > 500);
        }
    }

    #[test]
    fn stalled_direction_goes_on_later() {
        let (mut a, mut b, control) = scripted(100);
        control.stall(true);
        (0..10).for_each(|i| a.send(fp(i), pattern(1, 50)));
        (0..10).for_each(|i| b.recv(fp(i), 50));
        assert!(!fill(&mut a));
        assert_eq!(b.poll_recv().unwrap(), Progress::None);
        b.send(fp(0), pattern(2, 10));
        a.recv(fp(0), 10);
        assert!(fill(&mut b));
        a.poll_recv().unwrap();
        assert_eq!(a.take(), *pattern(2, 10));
        control.stall(false);
        drive(&mut a, &mut b);
        assert_eq!(b.received.len(), 10);
    }

    #[test]
    fn corrupt_header_is_noticed() {
        let (mut a, mut b, control) = scripted(1000);
        (0..2).for_each(|i| a.send(fp(i), pattern(1, 50)));
        (0..2).for_each(|i| b.recv(fp(i), 50));
        fill(&mut a);
        b.poll_recv().unwrap();
        control.corrupt_header();
        assert!(matches!(b.recv_error(), EndpointError::Corrupt(_)));
        assert_eq!((b.received.len(), b.untouched()), (1, true));
    }

    #[test]
    fn lent_message_is_reaped_when_it_has_been_read() {
        let (mut a, mut b, _) = scripted(100);
        a.send(fp(0), pattern(1, 5000));
        assert_eq!(a.poll_send().unwrap(), Progress::Posted);
        assert!(!a.poll_reap().unwrap());
        b.recv(fp(0), 5000);
        assert_eq!(b.poll_recv().unwrap(), Progress::Done);
        assert!(a.poll_reap().unwrap());
        assert_eq!(a.pending(), (0, 0));
    }

    #[test]
    fn reader_that_leaves_is_told_to_whoever_lent() {
        let (mut a, b, _) = scripted(100);
        a.send(fp(0), pattern(1, 5000));
        assert_eq!(a.poll_send().unwrap(), Progress::Posted);
        drop(b);
        assert!(matches!(a.poll_reap(), Err(EndpointError::Closed)));
    }
}
