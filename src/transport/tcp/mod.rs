//! TCP between machines: one connection per pair of members of one world.
//!
//! A message is a [`Header`] and its payload, nothing else; a direction is a sequence of messages. Payloads
//! go straight from the sender's buffer into the kernel and from the kernel into the receiver's, apart from
//! those that are reduced and from small ones, which are put together on the way out (see `outbox`) and come
//! along with a header on the way in (see `inbox`).
//!
//! Small messages are only posted by [`Endpoint::send`]; [`Endpoint::reap`], a long message behind them or a
//! full outbox makes them go, all with one system call.
//!
//! An error ends the direction in which it happened and stays: the same call answers the same error for ever. The
//! other direction goes on, so that what a peer sent before it went is delivered, and a peer that only finished
//! sending still gets what it waits for. [`Endpoint::cancel`] ends both.
//!
//! Whatever the network reports about a connection that is lost (reset, broken pipe, timed out, unreachable) is
//! [`EndpointError::Closed`]: all of them say that the peer cannot be
//! reached this way, none says why.
//!
//! Poll [`Endpoint::poll_fd`] for reading only while a receive is posted, and only after [`Endpoint::recv`] answered
//! `None`: bytes that nobody asked for keep the descriptor readable, and bytes read ahead do not.

mod inbox;
mod outbox;
mod spare;
#[cfg(test)]
mod tests;

use crate::sys::stream;
use crate::transport::protocol::{Arrival, Departure, Fault, Header};
use crate::transport::{Endpoint, EndpointError, Progress, RecvMsg, SendMsg, Sink};
use inbox::Inbox;
use outbox::Outbox;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// Payload bytes that one call moves at most, so that other peers get their turn.
const WORK: usize = 1 << 20;
/// The header of a longer message is read alone: its payload is worth a system call of its own and no copy.
const READ_AHEAD_BELOW: usize = 8 << 10;
/// Bytes thrown away at most when an endpoint is dropped.
const DISCARD: usize = 8 << 20;

/// One end of a TCP connection that carries one world's messages between two of its members.
#[derive(Debug)]
pub struct TcpEndpoint {
    stream: TcpStream,
    departure: Departure,
    arrival: Arrival,
    outbox: Outbox,
    inbox: Inbox,
    /// No more sends will come; the peer is told when the outbox is empty.
    finished: bool,
    send_fault: Option<Fault>,
    recv_fault: Option<Fault>,
}

impl TcpEndpoint {
    /// Takes over a connection that is authenticated and that nothing else will use.
    pub fn new(stream: TcpStream) -> io::Result<TcpEndpoint> {
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(TcpEndpoint {
            stream,
            departure: Departure::default(),
            arrival: Arrival::default(),
            outbox: Outbox::default(),
            inbox: Inbox::default(),
            finished: false,
            send_fault: None,
            recv_fault: None,
        })
    }

    /// Chooses the congestion control of this direction by the kernel's name for it, such as `cubic` or `bbr`.
    pub fn set_congestion(&self, name: &str) -> io::Result<()> {
        stream::set_congestion(self.stream.as_fd(), name)
    }

    /// # Safety
    /// As for [`Endpoint::send`].
    unsafe fn advance_send(&mut self, msg: &mut SendMsg) -> Result<Progress, Fault> {
        let mut raw = [0; Header::SIZE];
        let header = self.departure.header(msg, &mut raw)?;
        // SAFETY: by this function's contract; `header` has checked `offset <= len`.
        let rest = unsafe { msg.rest() };
        if let Some(whole) = header.first_chunk()
            && rest.len() <= outbox::SMALL
        {
            if self.outbox.push(whole, rest) {
                return Ok(Progress::Posted);
            }
            let moved = self.push_out()?;
            return Ok(match (self.outbox.push(whole, rest), moved) {
                (true, _) => Progress::Posted,
                (false, true) => Progress::Some,
                (false, false) => Progress::None,
            });
        }
        let payload = rest.get(..WORK).unwrap_or(rest);
        let before = self.outbox.filled();
        let bufs = [IoSlice::new(before), IoSlice::new(header), IoSlice::new(payload)];
        let bufs = if before.is_empty() { bufs.get(1..).unwrap_or_default() } else { &bufs };
        match sent("sendmsg", stream::send_vectored(self.stream.as_fd(), bufs))? {
            Some(n) => {
                let ahead = n.min(before.len());
                self.outbox.consume(ahead);
                Ok(self.departure.advance(msg, n - ahead))
            }
            None => Ok(Progress::None),
        }
    }

    /// Hands the outbox to the kernel as far as that takes it. Whether anything moved.
    fn push_out(&mut self) -> Result<bool, Fault> {
        let Some(n) = sent("send", stream::send(self.stream.as_fd(), self.outbox.filled()))? else {
            return Ok(false);
        };
        self.outbox.consume(n);
        if self.finished && self.outbox.is_empty() {
            self.shut_write();
        }
        Ok(n > 0)
    }

    fn shut_write(&self) {
        // Fails only on a connection that is lost already, which the peer notices without our word.
        let _lost = self.stream.shutdown(Shutdown::Write);
    }

    /// # Safety
    /// As for [`Endpoint::recv`].
    unsafe fn advance_recv(&mut self, msg: &mut RecvMsg) -> Result<Progress, Fault> {
        self.arrival.check(msg)?;
        let was_started = msg.started;
        let mut drained = false;
        if !msg.started {
            let missing = Header::SIZE.saturating_sub(self.inbox.filled().len());
            if missing > 0 {
                let want = if msg.len > READ_AHEAD_BELOW { missing } else { inbox::CAPACITY };
                let Some(n) = self.read_ahead(want)? else {
                    return Ok(Progress::None);
                };
                drained = n < want;
            }
            let Some(raw) = self.inbox.filled().first_chunk() else {
                return Ok(Progress::Some);
            };
            self.arrival.open(msg, raw)?;
            self.inbox.consume(Header::SIZE);
        }
        let mut moved = !was_started;
        let ahead = self.inbox.filled();
        if let Some(bytes) = ahead.get(..self.arrival.missing(msg).min(ahead.len()))
            && !bytes.is_empty()
        {
            let n = bytes.len();
            // SAFETY: the buffer is valid by this function's contract, and is not the inbox.
            unsafe { self.arrival.feed(msg, bytes) };
            self.inbox.consume(n);
            moved = true;
        }
        if self.arrival.missing(msg) > 0 && !drained {
            // SAFETY: by this function's contract.
            moved |= unsafe { self.read_payload(msg) }?;
        }
        Ok(match (self.arrival.close(msg), moved) {
            (true, _) => Progress::Done,
            (false, true) => Progress::Some,
            (false, false) => Progress::None,
        })
    }

    /// Reads up to `want` bytes into the inbox; `None` when nothing has arrived.
    fn read_ahead(&mut self, want: usize) -> Result<Option<usize>, Fault> {
        let space = self.inbox.space();
        let want = want.min(space.len());
        let space = space.get_mut(..want).unwrap_or_default();
        let got = received(stream::recv(self.stream.as_fd(), space));
        self.inbox.commit(got.ok().flatten().unwrap_or(0));
        got
    }

    /// Reads the next part of the payload, and when that completes the message, what is behind it into the
    /// inbox. Whether anything has arrived. Called with an empty inbox.
    ///
    /// # Safety
    /// As for [`Endpoint::recv`].
    unsafe fn read_payload(&mut self, msg: &mut RecvMsg) -> Result<bool, Fault> {
        let missing = self.arrival.missing(msg);
        // What follows a long message is probably long, too: its header comes along, and its payload is worth
        // a system call.
        let ahead = if msg.len > READ_AHEAD_BELOW { Header::SIZE } else { inbox::CAPACITY };
        let fd = self.stream.as_fd();
        let arrival = &mut self.arrival;
        let inbox = &mut self.inbox;
        let mut fill = |front: &mut [u8]| {
            if front.len() < missing {
                return received(stream::recv(fd, front));
            }
            let back = inbox.space().get_mut(..ahead).unwrap_or_default();
            let mut bufs = [IoSliceMut::new(front), IoSliceMut::new(back)];
            let got = received(stream::recv_vectored(fd, &mut bufs));
            let n = got.ok().flatten().unwrap_or(0);
            inbox.commit(n.saturating_sub(front.len()));
            got.map(|n| n.map(|n| n.min(front.len())))
        };
        let got = match msg.sink {
            Sink::Copy(_) => {
                // SAFETY: the buffer is valid by this function's contract.
                let user = unsafe { msg.direct() }.unwrap_or_default();
                let want = user.len().min(WORK);
                let got = fill(user.get_mut(..want).unwrap_or_default())?;
                msg.offset += got.unwrap_or(0);
                got
            }
            Sink::Reduce { .. } | Sink::Combine { .. } => inbox::with_scratch(|scratch| {
                let want = scratch.len().min(missing);
                let scratch = scratch.get_mut(..want).unwrap_or_default();
                let got = fill(scratch)?;
                let bytes = scratch.get(..got.unwrap_or(0)).unwrap_or_default();
                // SAFETY: the buffer is valid by this function's contract, and is not the scratch.
                unsafe { arrival.feed(msg, bytes) };
                Ok(got)
            })?,
        };
        Ok(got.is_some())
    }
}

/// What a read says: `None` when it has to wait, `Closed` at the end of the stream.
fn received(result: io::Result<usize>) -> Result<Option<usize>, Fault> {
    match result {
        Ok(0) => Err(Fault::Closed),
        Ok(n) => Ok(Some(n)),
        Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(err) => Err(fault("recv", &err)),
    }
}

/// What a write says: `None` when it has to wait.
fn sent(call: &'static str, result: io::Result<usize>) -> Result<Option<usize>, Fault> {
    match result {
        Ok(n) => Ok(Some(n)),
        Err(err) if err.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(err) => Err(fault(call, &err)),
    }
}

fn fault(call: &'static str, err: &io::Error) -> Fault {
    match err.kind() {
        ErrorKind::BrokenPipe
        | ErrorKind::ConnectionAborted
        | ErrorKind::ConnectionReset
        | ErrorKind::HostUnreachable
        | ErrorKind::NetworkDown
        | ErrorKind::NetworkUnreachable
        | ErrorKind::NotConnected
        | ErrorKind::TimedOut => Fault::Closed,
        _ => Fault::System(call, err.raw_os_error().unwrap_or_default()),
    }
}

impl Endpoint for TcpEndpoint {
    unsafe fn send(&mut self, msg: &mut SendMsg) -> Result<Progress, EndpointError> {
        if let Some(fault) = self.send_fault {
            return Err(fault.into());
        }
        if self.finished {
            return Err(Fault::Misuse("send after finish").into());
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
        if !self.outbox.is_empty() && self.send_fault.is_none() {
            let flushed = self.push_out();
            self.send_fault = flushed.err();
        }
        match (self.outbox.take_done(), self.send_fault) {
            (0, Some(fault)) => Err(fault.into()),
            (n, _) => Ok(n),
        }
    }

    fn poll_fd(&self) -> Option<RawFd> {
        Some(self.stream.as_raw_fd())
    }

    fn finish(&mut self) {
        self.finished = true;
        if self.outbox.is_empty() {
            self.shut_write();
        } else if self.send_fault.is_none() {
            self.send_fault = self.push_out().err();
        }
    }

    fn cancel(&mut self) {
        // The end of the stream in the middle of a message can never be mistaken for its rest: the peer's receive
        // answers `Closed`. With the other direction shut too, the kernel answers whatever the peer still sends by
        // a reset, so that its sends fail as well instead of waiting for room that nobody makes.
        self.send_fault = Some(Fault::Cancelled);
        self.recv_fault = Some(Fault::Cancelled);
        self.outbox.clear();
        self.inbox.consume(inbox::CAPACITY);
        // Fails only on a connection that is lost already, which the peer notices without our word.
        let _lost = self.stream.shutdown(Shutdown::Both);
    }
}

impl Drop for TcpEndpoint {
    fn drop(&mut self) {
        // Closing a socket with unread bytes resets the connection, and a reset overtakes what is still on its way
        // to the peer. Reading them first lets it arrive, unless the peer keeps sending.
        let _lost = self.stream.shutdown(Shutdown::Write);
        let mut left = DISCARD;
        while left > 0 {
            match stream::discard(self.stream.as_fd(), left) {
                Ok(n) if n > 0 => left = left.saturating_sub(n),
                // The end, nothing more for now, or lost: in each case there is nothing to save here.
                _ => break,
            }
        }
    }
}
