//! The messages under way between this member and one peer.

use super::engine::TaskId;
use crate::transport::{Endpoint, EndpointError, Progress, RecvMsg, SendMsg, Sink};
use crate::types::Fingerprint;
use std::collections::VecDeque;

/// Calls into the endpoint per turn and direction, and bytes moved by them, so that one large message, or a peer that
/// never stops, does not hold up the others.
const TURN: usize = 64;
const TURN_BYTES: usize = 1 << 20;

/// Looks at memory in the time of one at a socket.
const SYSTEM_CALL: u32 = 16;

/// How an attempt to move a message at once came out.
#[derive(Debug)]
pub enum Attempt {
    /// It is done.
    Done,
    /// Something else is in its way.
    Untried,
    /// A message that is not all out; `true` when it has been handed over and its buffer is still needed.
    Sending(SendMsg, bool),
    /// A message that is not all here.
    Receiving(RecvMsg),
}

/// An endpoint with its queues.
pub struct Channel {
    endpoint: Box<dyn Endpoint>,
    sends: VecDeque<(SendMsg, TaskId)>,
    /// Handed over, buffer still needed.
    posted: VecDeque<TaskId>,
    recvs: VecDeque<(RecvMsg, TaskId)>,
    /// Point-to-point messages so far in each direction.
    pub send_seq: u32,
    /// See `send_seq`.
    pub recv_seq: u32,
    /// Whether the engine has this channel on its list of busy ones.
    pub listed: bool,
    /// Nothing can be sent any more; what is queued waits for the watchdog's verdict.
    pub closed_out: bool,
    /// Nothing more will come; likewise.
    pub closed_in: bool,
}

impl Channel {
    /// A channel with nothing under way.
    pub fn new(endpoint: Box<dyn Endpoint>) -> Channel {
        Channel {
            endpoint,
            sends: VecDeque::new(),
            posted: VecDeque::new(),
            recvs: VecDeque::new(),
            send_seq: 0,
            recv_seq: 0,
            listed: false,
            closed_out: false,
            closed_in: false,
        }
    }

    /// Whether a message would be the first in its direction.
    #[inline]
    fn can_start_sending(&self) -> bool {
        !self.closed_out && self.sends.is_empty() && self.posted.is_empty()
    }

    /// Sends a message as far as that goes at once, and queues the rest. Answers whether there is none. The peer does
    /// not hear of it before the endpoint is flushed.
    pub fn start_send(&mut self, mut msg: SendMsg, task: TaskId) -> bool {
        if self.can_start_sending() {
            // SAFETY: the task that sends it is being posted, and by the C API's contract its buffers stay valid until
            // it is over.
            match unsafe { self.endpoint.send(&mut msg) } {
                Ok(Progress::Done) => return true,
                Ok(Progress::Posted) => {
                    self.posted.push_back(task);
                    return false;
                }
                // An error stays, and is told when the channel makes progress.
                Ok(Progress::Some | Progress::None) | Err(_) => {}
            }
        }
        self.sends.push_back((msg, task));
        false
    }

    /// Queues a receive.
    pub fn push_recv(&mut self, msg: RecvMsg, task: TaskId) {
        self.recvs.push_back((msg, task));
    }

    /// The endpoint.
    pub fn endpoint(&mut self) -> &mut dyn Endpoint {
        &mut *self.endpoint
    }

    /// The descriptor to poll, if the endpoint has one.
    pub fn poll_fd(&self) -> Option<std::os::fd::RawFd> {
        self.endpoint.poll_fd()
    }

    /// Takes the endpoint out.
    pub fn into_endpoint(self) -> Box<dyn Endpoint> {
        self.endpoint
    }

    /// Nothing under way.
    pub fn is_idle(&self) -> bool {
        self.sends.is_empty() && self.posted.is_empty() && self.recvs.is_empty()
    }

    /// Waits for (bytes from, room at or an answer of) the peer.
    pub fn interest(&self) -> (bool, bool) {
        let outgoing = !self.sends.is_empty() || !self.posted.is_empty();
        (!self.recvs.is_empty() && !self.closed_in, outgoing && !self.closed_out)
    }

    /// Whether something waits for room, and no socket tells when there is some.
    pub fn is_held_up(&self) -> bool {
        !self.sends.is_empty() && !self.closed_out && self.poll_fd().is_none()
    }

    /// Whether nothing is under way, or the peer is at work.
    pub fn is_promising(&self) -> bool {
        self.is_idle() || self.endpoint.is_peer_at_work()
    }

    /// So many looks in terms of this channel's: where one is a system call, it takes as long as many others.
    pub fn looks(&self, looks: u32) -> u32 {
        if self.poll_fd().is_some() { looks.div_ceil(SYSTEM_CALL) } else { looks }
    }

    /// Tasks with messages under way here.
    pub fn tasks(&self) -> impl Iterator<Item = TaskId> + '_ {
        let sends = self.sends.iter().map(|(_, t)| *t);
        sends.chain(self.posted.iter().copied()).chain(self.recvs.iter().map(|(_, t)| *t))
    }

    /// Forgets everything under way. Only after the endpoint was cancelled.
    pub fn clear(&mut self) {
        self.sends.clear();
        self.posted.clear();
        self.recvs.clear();
    }

    /// Sends at once, if nothing else is being sent. Of what has only been announced it looks so many times whether it
    /// has been taken, unless somebody else wants in.
    #[inline]
    pub fn send_now(
        &mut self,
        mut fp: Fingerprint,
        ptr: *const u8,
        len: usize,
        looks: u32,
        wanted: impl Fn() -> bool,
    ) -> Attempt {
        if !self.can_start_sending() {
            return Attempt::Untried;
        }
        fp.seq = self.send_seq;
        self.send_seq = self.send_seq.wrapping_add(1);
        let mut msg = SendMsg::new(fp, ptr, len);
        let (mut posted, mut left) = (false, TURN);
        loop {
            // SAFETY: the caller's buffer is valid while the call lasts, and after it by the C API's contract.
            match unsafe { self.endpoint.send(&mut msg) } {
                Ok(Progress::Done) => {
                    self.endpoint.flush();
                    return Attempt::Done;
                }
                Ok(Progress::Some) if left > 0 => {
                    left -= 1;
                    continue;
                }
                Ok(Progress::Posted) => {
                    if self.is_reaped(looks, wanted) {
                        return Attempt::Done;
                    }
                    posted = true;
                }
                // An error stays, and is told when the channel makes progress.
                Ok(Progress::Some | Progress::None) | Err(_) => {}
            }
            self.endpoint.flush();
            return Attempt::Sending(msg, posted);
        }
    }

    /// Whether the only posted message is done within so many looks.
    #[inline]
    fn is_reaped(&mut self, looks: u32, wanted: impl Fn() -> bool) -> bool {
        // The first look is also for a message that was only held back for others that follow, and none does.
        let mut reaped = self.endpoint.reap();
        self.endpoint.flush();
        // Where one is a system call, the socket is full.
        let mut left = if self.poll_fd().is_some() { 1 } else { looks };
        loop {
            match reaped {
                Ok(0) => {}
                Ok(_) => return true,
                // An error stays, and is told when the channel makes progress.
                Err(_) => return false,
            }
            left = left.saturating_sub(1);
            if left == 0 || wanted() {
                return false;
            }
            std::hint::spin_loop();
            reaped = self.endpoint.reap();
            self.endpoint.flush();
        }
    }

    /// Receives at once, if nothing else is being received: looks for it so many times, unless somebody else wants in.
    #[inline]
    pub fn recv_now(
        &mut self,
        mut fp: Fingerprint,
        ptr: *mut u8,
        len: usize,
        looks: u32,
        wanted: impl Fn() -> bool,
    ) -> Attempt {
        if self.closed_in || !self.recvs.is_empty() {
            return Attempt::Untried;
        }
        fp.seq = self.recv_seq;
        self.recv_seq = self.recv_seq.wrapping_add(1);
        let mut msg = RecvMsg::new(fp, Sink::Copy(ptr), len);
        if self.look_for(&mut msg, looks, &wanted) { Attempt::Done } else { Attempt::Receiving(msg) }
    }

    /// Looks so many times for a message that is the next to be received, with none queued before it, unless somebody
    /// else wants in. Answers whether it is complete.
    #[inline]
    pub fn look_for(&mut self, msg: &mut RecvMsg, looks: u32, wanted: &impl Fn() -> bool) -> bool {
        let mut left = self.looks(looks);
        let is_done = loop {
            // SAFETY: as in `send_now`.
            match unsafe { self.endpoint.recv(msg) } {
                Ok(Progress::Done) => break true,
                Ok(Progress::None) => {
                    left = left.saturating_sub(1);
                    if left == 0 || wanted() {
                        break false;
                    }
                    std::hint::spin_loop();
                }
                Ok(Progress::Some | Progress::Posted) if !wanted() => {}
                // An error stays, and is told when the channel makes progress.
                Ok(_) | Err(_) => break false,
            }
        };
        self.endpoint.flush();
        is_done
    }

    /// Takes over what an attempt has left; nothing else was posted since.
    pub fn adopt(&mut self, attempt: Attempt, task: TaskId) {
        match attempt {
            Attempt::Sending(_, true) => self.posted.push_back(task),
            Attempt::Sending(msg, false) => self.sends.push_back((msg, task)),
            Attempt::Receiving(msg) => self.recvs.push_back((msg, task)),
            Attempt::Done | Attempt::Untried => {}
        }
    }

    /// Moves what can be moved; tasks of finished messages go to `finished`, one entry per message. Answers whether
    /// anything moved.
    pub fn progress(&mut self, finished: &mut Vec<TaskId>) -> Result<bool, EndpointError> {
        let mut moved = false;
        let result = self.progress_both(finished, &mut moved);
        // Once for all of it: waking somebody costs more than moving a small message.
        self.endpoint.flush();
        result.map(|()| moved)
    }

    fn progress_both(&mut self, finished: &mut Vec<TaskId>, moved: &mut bool) -> Result<(), EndpointError> {
        if !self.closed_out {
            *moved |= self.progress_out(finished).inspect_err(|_| self.closed_out = true)?;
        }
        if !self.closed_in {
            *moved |= self.progress_in(finished).inspect_err(|_| self.closed_in = true)?;
        }
        Ok(())
    }

    fn progress_out(&mut self, finished: &mut Vec<TaskId>) -> Result<bool, EndpointError> {
        let (mut moved, mut bytes) = (false, 0);
        for _ in 0..TURN {
            if bytes >= TURN_BYTES {
                break;
            }
            let Some((msg, task)) = self.sends.front_mut() else { break };
            let before = msg.offset;
            // SAFETY: the task that posted the message has neither finished nor been cancelled, and by the C API's
            // contract its buffers stay valid until then.
            match unsafe { self.endpoint.send(msg)? } {
                Progress::Done => finished.push(*task),
                Progress::Posted => self.posted.push_back(*task),
                Progress::Some => {
                    moved = true;
                    bytes += msg.offset - before;
                    continue;
                }
                Progress::None => break,
            }
            moved = true;
            bytes += msg.offset - before;
            self.sends.pop_front();
        }
        if !self.posted.is_empty() {
            let n = self.endpoint.reap()?.min(self.posted.len());
            moved |= n > 0;
            finished.extend(self.posted.drain(..n));
        }
        Ok(moved)
    }

    fn progress_in(&mut self, finished: &mut Vec<TaskId>) -> Result<bool, EndpointError> {
        let (mut moved, mut bytes) = (false, 0);
        for _ in 0..TURN {
            if bytes >= TURN_BYTES {
                break;
            }
            let Some((msg, task)) = self.recvs.front_mut() else { break };
            let before = msg.offset;
            // SAFETY: as in `progress_out`.
            let progress = unsafe { self.endpoint.recv(msg)? };
            bytes += msg.offset - before;
            match progress {
                Progress::Done => {
                    finished.push(*task);
                    self.recvs.pop_front();
                    moved = true;
                }
                Progress::None => break,
                Progress::Some | Progress::Posted => moved = true,
            }
        }
        Ok(moved)
    }

    /// Takes out what will never be done now that the peer has left: everything outgoing, and what waits for bytes
    /// if the peer's have all been read.
    pub fn give_up(&mut self) -> Vec<TaskId> {
        let mut ids: Vec<TaskId> = self.sends.drain(..).map(|(_, t)| t).collect();
        ids.extend(self.posted.drain(..));
        if self.closed_in {
            ids.extend(self.recvs.drain(..).map(|(_, t)| t));
        }
        ids
    }

    /// The fingerprint of the receive at the head, which is what the peer contradicts in a mismatch.
    pub fn expected(&self) -> Option<(Fingerprint, usize)> {
        self.recvs.front().map(|(m, _)| (m.fp, m.len))
    }
}
