//! One connection of the server: its phase, its unread input, its unsent output.

use super::SOFT_OUTPUT;
use crate::auth::{KeyId, ServerHandshake};
use crate::store::state::ClientId;
use crate::store::wire::Frames;
use crate::sys::poll::{Epoll, Interest};
use std::io::{self, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Instant;

/// A connection.
pub struct Conn {
    pub stream: TcpStream,
    pub addr: SocketAddr,
    pub phase: Phase,
    /// Whether it is in the server's list of connections to be looked after at the end of the round.
    pub dirty: bool,
    out: Vec<u8>,
    /// Bytes of `out` that have been sent.
    sent: usize,
    interest: Interest,
}

/// How far a connection has come.
pub enum Phase {
    /// It has proven nothing yet.
    Handshake { handshake: Box<ServerHandshake>, deadline: Instant },
    /// It is a client.
    Client { key_id: KeyId, client: ClientId, frames: Frames },
}

impl Conn {
    /// A connection that is watched for reading.
    pub fn new(stream: TcpStream, addr: SocketAddr, phase: Phase) -> Conn {
        Conn { stream, addr, phase, dirty: false, out: Vec::new(), sent: 0, interest: Interest::READ }
    }

    /// Where output is put.
    pub fn out(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }

    /// Bytes that wait to be sent.
    pub fn pending(&self) -> usize {
        self.out.len() - self.sent
    }

    /// Whether the client must read first before it is listened to again.
    pub fn is_choked(&self) -> bool {
        self.pending() > SOFT_OUTPUT
    }

    /// Sends what it can.
    pub fn flush(&mut self) -> io::Result<()> {
        while let Some(rest) = self.out.get(self.sent..).filter(|r| !r.is_empty()) {
            match self.stream.write(rest) {
                Ok(n) => self.sent += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        if self.pending() == 0 {
            self.out.clear();
            // One large answer must not hold its memory for the rest of the connection.
            self.out.shrink_to(64 * 1024);
            self.sent = 0;
        } else if self.sent > SOFT_OUTPUT {
            self.out.drain(..self.sent);
            self.sent = 0;
        }
        Ok(())
    }

    /// Lets the kernel report what this connection waits for now.
    pub fn update_interest(&mut self, epoll: &Epoll, token: u64) -> io::Result<()> {
        let read = if self.is_choked() { Interest::NONE } else { Interest::READ };
        let write = if self.pending() > 0 { Interest::WRITE } else { Interest::NONE };
        let interest = read | write;
        if interest != self.interest {
            epoll.modify(&self.stream, token, interest)?;
            self.interest = interest;
        }
        Ok(())
    }
}
