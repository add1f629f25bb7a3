//! Barrier. No bytes: an empty message is enough.
//!
//! **Flat**, for few ranks: everybody tells everybody that it has arrived. One step, n - 1 messages.
//!
//! **Dissemination**: in round j every rank tells the one 2^j after it that it has arrived, and hears from the
//! one 2^j before it. What a rank hears in round j vouches for 2^j ranks, so after ceil(log2 n) rounds it has
//! heard of all. ceil(log2 n) steps of one message.

use super::frame::{Frame, recv, send};
use super::plan::Schedule;
use super::{Action, Buf};

/// Barrier in one round.
#[derive(Clone, Copy, Debug)]
pub(super) struct BarrierFlat {
    pub frame: Frame,
}

impl Schedule for BarrierFlat {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        1
    }

    fn step(&self, _k: usize, out: &mut Vec<Action>) {
        for distance in 1..self.frame.n {
            send(self.frame.after(distance), Buf::Input.at(0, 0), out);
            recv(self.frame.before(distance), Buf::Output.at(0, 0), out);
        }
    }
}

/// Barrier in ceil(log2 n) rounds.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dissemination {
    pub frame: Frame,
}

impl Schedule for Dissemination {
    fn scratch_len(&self) -> usize {
        0
    }

    fn steps(&self) -> usize {
        self.frame.n.next_power_of_two().trailing_zeros() as usize
    }

    fn step(&self, k: usize, out: &mut Vec<Action>) {
        let distance = 1 << k;
        send(self.frame.after(distance), Buf::Input.at(0, 0), out);
        recv(self.frame.before(distance), Buf::Output.at(0, 0), out);
    }
}
