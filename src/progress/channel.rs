//! The messages under way between this member and one peer.

use super::engine::TaskId;
use crate::transport::{Endpoint, EndpointError, Progress, RecvMsg, SendMsg};
use std::collections::VecDeque;

/// Messages per turn and direction: small ones that the endpoint may hand on together.
const TURN: usize = 64;
/// Calls per turn that leave a message unfinished, so that one large message does not hold up the other peers.
const PARTS: usize = 8;

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

    /// Queues a message.
    pub fn push_send(&mut self, msg: SendMsg, task: TaskId) {
        self.sends.push_back((msg, task));
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

    /// Moves what can be moved; tasks of finished messages go to `finished`, one entry per message. Answers whether
    /// anything moved.
    pub fn progress(&mut self, finished: &mut Vec<TaskId>) -> Result<bool, EndpointError> {
        let mut moved = false;
        if !self.closed_out {
            moved |= self.progress_out(finished).inspect_err(|_| self.closed_out = true)?;
        }
        if !self.closed_in {
            moved |= self.progress_in(finished).inspect_err(|_| self.closed_in = true)?;
        }
        Ok(moved)
    }

    fn progress_out(&mut self, finished: &mut Vec<TaskId>) -> Result<bool, EndpointError> {
        let mut moved = false;
        let mut parts = 0;
        for _ in 0..TURN {
            let Some((msg, task)) = self.sends.front_mut() else { break };
            // SAFETY: the task that posted the message has neither finished nor been cancelled, and by the C API's
            // contract its buffers stay valid until then.
            match unsafe { self.endpoint.send(msg)? } {
                Progress::Done => finished.push(*task),
                Progress::Posted => self.posted.push_back(*task),
                Progress::Some => {
                    moved = true;
                    parts += 1;
                    if parts == PARTS {
                        break;
                    }
                    continue;
                }
                Progress::None => break,
            }
            moved = true;
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
        let mut moved = false;
        let mut parts = 0;
        for _ in 0..TURN {
            let Some((msg, task)) = self.recvs.front_mut() else { break };
            // SAFETY: as in `progress_out`.
            match unsafe { self.endpoint.recv(msg)? } {
                Progress::Done => {
                    finished.push(*task);
                    self.recvs.pop_front();
                    moved = true;
                }
                Progress::None => break,
                Progress::Some | Progress::Posted => {
                    moved = true;
                    parts += 1;
                    if parts == PARTS {
                        break;
                    }
                }
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
    pub fn expected(&self) -> Option<(crate::types::Fingerprint, usize)> {
        self.recvs.front().map(|(m, _)| (m.fp, m.len))
    }
}
