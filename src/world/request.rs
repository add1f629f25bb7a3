//! Groups and asynchronous operations, across worlds.

use super::operate::forked;
use super::{Call, World, background};
use crate::error::Result;
use crate::progress::Ticket;
use crate::progress::wait::{self, Driver};
use crate::sync::Arc;
use crate::sys::process;
use crate::types::OpKind;
use std::time::{Duration, Instant};

/// Everything one group posted.
pub struct Request {
    ticket: Arc<Ticket>,
    worlds: Vec<Arc<World>>,
}

impl Request {
    /// Starts the calls of a group, which have been checked: per world, collectives in call order first, then all
    /// point-to-point operations together, as in NCCL. Never blocks. With `background`, a thread of the library
    /// drives them while nobody waits.
    pub fn submit(calls: Vec<(Arc<World>, Call)>, background: bool) -> Arc<Request> {
        let ticket = Arc::new(Ticket::new(calls.len()));
        let mut worlds: Vec<Arc<World>> = Vec::new();
        for (world, _) in &calls {
            if !worlds.iter().any(|w| Arc::ptr_eq(w, world)) {
                worlds.push(world.clone());
            }
        }
        let now = Instant::now();
        let (p2p, collective): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|(_, c)| c.kind == OpKind::PointToPoint);
        for (world, call) in collective.iter().chain(&p2p) {
            world.post(call, &ticket, now + world.timeout());
        }
        let request = Arc::new(Request { ticket, worlds });
        if background && !request.ticket.is_done() {
            background::drive(&request);
        }
        request
    }

    pub(super) fn is_done(&self) -> bool {
        self.ticket.is_done()
    }

    pub(super) fn worlds(&self) -> &[Arc<World>] {
        &self.worlds
    }

    /// `None` while not done; else the first error of any of its operations, or success. Drives progress.
    pub fn test(&self) -> Option<Result<()>> {
        if !self.is_done() {
            if process::is_forked() {
                return Some(Err(forked()));
            }
            let now = Instant::now();
            for w in &self.worlds {
                w.drive();
                w.tick(now);
            }
        }
        self.is_done().then(|| self.ticket.result())
    }

    /// Waits until done or `until`; `None` when the time is up. Without `until`, the operations' own deadlines bound
    /// it.
    pub fn wait(&self, until: Option<Instant>) -> Option<Result<()>> {
        if !self.is_done() && process::is_forked() {
            return Some(Err(forked()));
        }
        let drivers: Vec<&dyn Driver> = self.worlds.iter().map(|w| &**w as &dyn Driver).collect();
        wait::until(&drivers, &|| self.is_done(), until).then(|| self.ticket.result())
    }

    /// Waits until one of them is done; answers its index.
    pub fn wait_any(requests: &[Arc<Request>], limit: Option<Duration>) -> Option<usize> {
        let until = limit.and_then(|l| Instant::now().checked_add(l));
        let mut worlds: Vec<&Arc<World>> = Vec::new();
        for w in requests.iter().flat_map(|r| &r.worlds) {
            if !worlds.iter().any(|x| Arc::ptr_eq(x, w)) {
                worlds.push(w);
            }
        }
        let drivers: Vec<&dyn Driver> = worlds.iter().map(|w| &***w as &dyn Driver).collect();
        // In a fork all of them are over: each answers with that error.
        if process::is_forked() && !requests.is_empty() {
            return Some(0);
        }
        let first = || requests.iter().position(|r| r.is_done());
        wait::until(&drivers, &|| first().is_some(), until);
        first()
    }
}
