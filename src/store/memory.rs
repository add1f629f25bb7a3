//! The store inside one process: the same state as behind the server, a lock instead of connections.

use super::calls::Ask;
use super::state::{Action, ClientId, Limits, State};
use super::wire::{Answer, Request};
use crate::error::{Error, Result};
use crate::sync::{Arc, Condvar, Mutex};
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

/// One client of a store in memory.
pub struct Memory {
    shared: Arc<Shared>,
    client: ClientId,
}

struct Shared {
    inner: Mutex<Inner>,
    answered: Condvar,
}

struct Inner {
    state: State,
    last_client: ClientId,
    last_request: u64,
    /// Calls that wait, by request.
    waiting: BTreeMap<u64, ClientId>,
    answers: HashMap<u64, Answer>,
}

impl Inner {
    /// Ends leases. A client with a call that waits is alive by contract.
    fn tick(&mut self, now: Instant) {
        for &client in self.waiting.values() {
            self.state.alive(client, now);
        }
        self.state.tick(now);
        self.settle();
    }

    fn settle(&mut self) {
        self.state.settle();
        for Action { request, answer, .. } in self.state.take_actions() {
            if self.waiting.contains_key(&request) {
                self.answers.insert(request, answer);
            }
        }
    }
}

impl Memory {
    /// The first client of a new, empty store.
    pub fn new() -> Memory {
        let inner = Inner {
            state: State::new(Limits::default(), 0),
            last_client: 0,
            last_request: 0,
            waiting: BTreeMap::new(),
            answers: HashMap::new(),
        };
        Memory::join(Arc::new(Shared { inner: Mutex::new(inner), answered: Condvar::new() }))
    }

    /// A further client of the same store, with leases of its own.
    pub fn another(&self) -> Memory {
        Memory::join(self.shared.clone())
    }

    fn join(shared: Arc<Shared>) -> Memory {
        let mut inner = shared.inner.lock();
        inner.last_client += 1;
        let client = inner.last_client;
        inner.state.connect(client, Instant::now());
        drop(inner);
        Memory { shared, client }
    }
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new()
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut inner = self.shared.inner.lock();
        inner.state.disconnect(self.client);
        inner.settle();
        self.shared.answered.notify_all();
    }
}

impl Ask for Memory {
    fn ask(&self, request: Request, deadline: Instant) -> Result<Answer> {
        let mut inner = self.shared.inner.lock();
        let now = Instant::now();
        inner.last_request += 1;
        let id = inner.last_request;
        inner.waiting.insert(id, self.client);
        inner.tick(now);
        inner.state.request(self.client, id, request, now);
        inner.settle();
        // Whoever sleeps may have been answered, or must look earlier than it intended because of a new
        // lease.
        self.shared.answered.notify_all();
        loop {
            if let Some(answer) = inner.answers.remove(&id) {
                inner.waiting.remove(&id);
                return Ok(answer);
            }
            let now = Instant::now();
            if now >= deadline {
                inner.state.request(self.client, 0, Request::Cancel { request: id }, now);
                inner.waiting.remove(&id);
                return Err(Error::timeout("store: no answer in time"));
            }
            let until = inner.state.next_deadline().map_or(deadline, |at| at.min(deadline));
            self.shared.answered.wait_until(&mut inner, until);
            let answered = inner.answers.len();
            inner.tick(Instant::now());
            if inner.answers.len() > answered {
                self.shared.answered.notify_all();
            }
        }
    }
}
