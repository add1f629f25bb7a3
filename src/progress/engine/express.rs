//! Collectives on the spot: as long as nothing else is under way and nobody has to be waited for long, a collective needs
//! no task, no queues and no turns, only its messages. That is most of what a short one costs.

use super::super::operation::Operation;
use super::super::ticket::Ticket;
use super::{Collective, Engine, TaskId};
use crate::collective::Action;
use crate::sync::Arc;
use crate::transport::{RecvMsg, SendMsg};
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
            left += self.recv_step(id, &mut c, fp, &actions, if left == 0 { looks } else { 0 }, &wanted);
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
        let (mut left, mut sends) = (0, false);
        for action in actions {
            let Action::Send { peer, src } = *action else {
                // SAFETY: as in `carry_out`.
                unsafe { c.carry_out(action) };
                continue;
            };
            let msg = SendMsg::new(fp, c.at(src), src.len);
            let is_gone = if let Some(Some(channel)) = self.channels.get_mut(peer as usize) {
                sends = true;
                channel.start_send(msg, id)
            } else {
                self.self_sends.push_back((msg, id));
                false
            };
            if !is_gone {
                left += 1;
                self.list(peer);
            }
        }
        if sends {
            for action in actions {
                if let Action::Send { peer, .. } = *action
                    && let Some(Some(channel)) = self.channels.get_mut(peer as usize)
                {
                    channel.endpoint().flush();
                }
            }
        }
        left
    }

    /// What a step receives, in order. From the first message on that does not come within so many looks they are queued;
    /// answers how many.
    fn recv_step(
        &mut self,
        id: TaskId,
        c: &mut Collective,
        fp: Fingerprint,
        actions: &[Action],
        looks: u32,
        wanted: &impl Fn() -> bool,
    ) -> usize {
        let mut left = 0;
        for action in actions {
            let Some((peer, sink, len)) = c.incoming(action) else { continue };
            let mut msg = RecvMsg::new(fp, sink, len);
            let looks = if left == 0 { looks } else { 0 };
            if let Some(Some(channel)) = self.channels.get_mut(peer as usize) {
                if looks > 0 && channel.look_for(&mut msg, looks, wanted) {
                    continue;
                }
                channel.push_recv(msg, id);
                self.list(peer);
            } else {
                self.self_recvs.push_back((msg, id));
            }
            left += 1;
        }
        left
    }
}
