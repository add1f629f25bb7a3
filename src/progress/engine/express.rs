//! Collectives on the spot: as long as nothing else is under way and nobody has to be waited for long, a collective needs
//! no task, no queues and no turns, only its messages. That is most of what a short one costs.

use super::super::channel::Channel;
use super::super::operation::Operation;
use super::super::ticket::Ticket;
use super::{Collective, Engine, TaskId};
use crate::collective::Action;
use crate::sync::Arc;
use crate::transport::RecvMsg;
use crate::types::Fingerprint;

impl Engine {
    /// Runs a collective while the engine is idle: looks `looks` times for each message that is to be received, unless
    /// somebody else wants in. `None` says that it is done; otherwise it has been posted, as far as it was not done, with
    /// the ticket that comes back and without a deadline ([`Engine::date`]).
    pub fn attempt_collective(
        &mut self,
        mut operation: Operation,
        looks: u32,
        wanted: impl Fn() -> bool,
        ticket: impl FnOnce() -> Arc<Ticket>,
    ) -> Option<Arc<Ticket>> {
        let id = self.next_task();
        let begun = match &mut operation {
            Operation::Collective { shape, input, output, fp } if self.is_idle() && self.ended.is_none() => {
                Some((self.begin(shape, *input, *output, fp), *fp))
            }
            _ => None,
        };
        let Some((mut c, fp)) = begun else {
            let ticket = ticket();
            self.post(operation, ticket.clone(), None);
            return Some(ticket);
        };
        let look_for = |channel: &mut Channel, msg: &mut RecvMsg| channel.look_for(msg, looks, &wanted);
        let mut actions = std::mem::take(&mut self.actions);
        let mut left = 0;
        while left == 0 {
            actions.clear();
            if !c.plan.step(c.step, &mut actions) {
                self.actions = actions;
                self.end_collective(c);
                self.count((0, 0));
                return None;
            }
            c.step += 1;
            left = self.send_step(id, &mut c, fp, &actions);
            left = self.recv_step(id, &mut c, fp, &actions, left, &look_for);
        }
        self.actions = actions;
        let ticket = ticket();
        let task = self.task(operation, Vec::new(), ticket.clone(), None);
        debug_assert_eq!(task, id);
        if let Some(task) = self.tasks[id].as_mut() {
            task.left = left;
            task.collective = Some(c);
        }
        self.collective = Some(id);
        Some(ticket)
    }

    /// A step's local actions and what it sends. Answers how many messages have not gone; they are queued.
    fn send_step(&mut self, id: TaskId, c: &mut Collective, fp: Fingerprint, actions: &[Action]) -> usize {
        let mut left = 0;
        for action in actions {
            if let Action::Send { peer, src } = *action {
                left += usize::from(!self.send(id, peer, fp, c.at(src), src.len));
            } else {
                // SAFETY: as in the engine's `carry_out`.
                unsafe { c.carry_out(action) };
            }
        }
        self.flush();
        left
    }

    /// What a step receives, in order. Once there are messages `left`, the others are queued; it is looked for the ones
    /// before, until one does not come. Answers how many are left then.
    fn recv_step(
        &mut self,
        id: TaskId,
        c: &mut Collective,
        fp: Fingerprint,
        actions: &[Action],
        mut left: usize,
        look_for: &impl Fn(&mut Channel, &mut RecvMsg) -> bool,
    ) -> usize {
        for action in actions {
            let Some((peer, sink, len)) = c.incoming(action) else { continue };
            match self.channels.get_mut(peer as usize) {
                Some(Some(channel)) if left == 0 => {
                    let mut msg = RecvMsg::new(fp, sink, len);
                    if look_for(channel, &mut msg) {
                        continue;
                    }
                    channel.push_recv(msg, id);
                    self.list(peer);
                }
                _ => self.recv(id, peer, fp, sink, len),
            }
            left += 1;
        }
        left
    }
}
