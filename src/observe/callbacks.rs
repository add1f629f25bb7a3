//! Callbacks of worlds, called on a thread of their own so that a slow one delays neither the watchdog nor an
//! operation. One callback runs at a time, in the order of the events.

use super::events::{CAPACITY, Event};
use crate::error::{Error, Result};
use crate::sync::{Arc, Condvar, Mutex};
use crate::sys::process;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

/// What a world calls with each of its events.
pub type Callback = Arc<dyn Fn(&Event) + Send + Sync>;

/// How long [`set_callback`] waits for a callback that is running.
pub const PATIENCE: Duration = Duration::from_secs(10);

static DISPATCHER: Dispatcher = Dispatcher::new();

/// Sets, replaces or (`None`) removes the callback of a world. When it returns `Ok`, the previous callback is
/// not running and will not be called again, unless this is called from within that callback, which then is
/// the last call of it. A callback that does not come back within [`PATIENCE`] is `Code::Timeout`: it is
/// never called again, but still running.
pub fn set_callback(world_token: usize, callback: Option<Callback>) -> Result<()> {
    DISPATCHER.set(world_token, callback, PATIENCE)
}

/// Queues the event for its world's callback, if there is one.
pub(super) fn offer(event: &Event) {
    DISPATCHER.offer(event);
}

/// Lets the callback of one world be another one's, too.
pub fn pass_on(from: usize, to: usize) {
    DISPATCHER.pass_on(from, to);
}

struct Dispatcher {
    state: Mutex<State>,
    /// Work for the thread.
    posted: Condvar,
    /// A callback returned.
    returned: Condvar,
}

struct State {
    callbacks: BTreeMap<usize, Callback>,
    pending: VecDeque<Event>,
    /// World of the callback that runs now, and the number of the call.
    running: Option<(usize, u64)>,
    calls: u64,
    thread: Option<ThreadId>,
}

impl Dispatcher {
    const fn new() -> Dispatcher {
        let state = State {
            callbacks: BTreeMap::new(),
            pending: VecDeque::new(),
            running: None,
            calls: 0,
            thread: None,
        };
        Dispatcher { state: Mutex::new(state), posted: Condvar::new(), returned: Condvar::new() }
    }

    fn offer(&self, event: &Event) {
        let mut state = self.state.lock();
        if !state.callbacks.contains_key(&event.world_token) {
            return;
        }
        let overflow = state.pending.len() == CAPACITY;
        if overflow {
            state.pending.pop_front();
        }
        state.pending.push_back(event.clone());
        drop(state);
        self.posted.notify_one();
        if overflow {
            tracing::warn!("a callback does not keep up, the oldest event for callbacks was dropped");
        }
    }

    fn set(&'static self, token: usize, callback: Option<Callback>, patience: Duration) -> Result<()> {
        let mut state = self.state.lock();
        let previous = match callback {
            Some(callback) => {
                self.start(&mut state)?;
                state.callbacks.insert(token, callback)
            }
            None => {
                state.pending.retain(|event| event.world_token != token);
                state.callbacks.remove(&token)
            }
        };
        let until = Instant::now() + patience;
        let call = state.running.filter(|&(running, _)| running == token);
        let own = state.thread == Some(thread::current().id());
        let mut late = false;
        while call.is_some() && state.running == call && !own && !late {
            late = self.returned.wait_until(&mut state, until).timed_out() && state.running == call;
        }
        drop(state);
        // Outside the lock, because dropping it runs foreign code.
        drop(previous);
        if late {
            return Err(Error::timeout(format!("callback: still running after {} ms", patience.as_millis())));
        }
        Ok(())
    }

    fn pass_on(&self, from: usize, to: usize) {
        let mut state = self.state.lock();
        let callback = state.callbacks.get(&from).cloned();
        state.callbacks.extend(callback.map(|callback| (to, callback)));
    }

    fn start(&'static self, state: &mut State) -> Result<()> {
        if state.thread.is_none() {
            state.thread = Some(process::spawn("mw-events", || self.run())?.thread().id());
        }
        Ok(())
    }

    fn run(&self) {
        let mut state = self.state.lock();
        loop {
            let Some(event) = state.pending.pop_front() else {
                self.posted.wait(&mut state);
                continue;
            };
            let Some(callback) = state.callbacks.get(&event.world_token).cloned() else { continue };
            state.calls += 1;
            state.running = Some((event.world_token, state.calls));
            drop(state);
            let called = catch_unwind(AssertUnwindSafe(move || {
                callback(&event);
                // The callback owns the caller's data, so it is let go before it counts as returned.
                drop(callback);
            }));
            if let Err(payload) = called {
                tracing::error!("a callback panicked");
                // Dropping a payload can panic again.
                std::mem::forget(payload);
            }
            state = self.state.lock();
            state.running = None;
            self.returned.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::events::tests::event;
    use super::*;
    use crossbeam::channel::{bounded, unbounded};

    const LONG: Duration = Duration::from_secs(10);

    /// A dispatcher of the test's own; its thread ends with the process.
    fn dispatcher() -> &'static Dispatcher {
        Box::leak(Box::new(Dispatcher::new()))
    }

    #[test]
    fn events_reach_the_callback_of_their_world_in_order() {
        let d = dispatcher();
        let (tx, rx) = unbounded();
        d.set(1, Some(Arc::new(move |e: &Event| tx.send(e.rank).unwrap())), LONG).unwrap();
        d.offer(&event(1, 5));
        d.offer(&event(2, 6));
        d.offer(&event(1, 7));
        assert_eq!(rx.recv_timeout(LONG), Ok(Some(5)));
        assert_eq!(rx.recv_timeout(LONG), Ok(Some(7)));
        d.set(1, None, LONG).unwrap();
        d.offer(&event(1, 8));
        assert!(rx.recv_timeout(LONG).is_err(), "the channel closes because the callback was let go");
    }

    #[test]
    fn removing_waits_for_the_callback() {
        let d = dispatcher();
        let (entered_tx, entered) = bounded(0);
        let (release, released) = bounded::<()>(0);
        let done = Arc::new(crate::sync::atomic::AtomicBool::new(false));
        let flag = Arc::clone(&done);
        let callback = move |_: &Event| {
            entered_tx.send(()).unwrap();
            released.recv().unwrap();
            flag.store(true, crate::sync::atomic::Ordering::Relaxed);
        };
        d.set(1, Some(Arc::new(callback)), LONG).unwrap();
        d.offer(&event(1, 0));
        entered.recv_timeout(LONG).unwrap();
        // Another world's callback may be changed meanwhile.
        d.set(2, None, LONG).unwrap();
        let late = d.set(1, None, Duration::from_millis(1)).unwrap_err();
        assert_eq!(late.code, crate::error::Code::Timeout);
        let remover = thread::spawn(move || d.set(1, None, LONG));
        release.send(()).unwrap();
        remover.join().unwrap().unwrap();
        assert!(done.load(crate::sync::atomic::Ordering::Relaxed));
    }

    #[test]
    fn a_callback_may_remove_itself_and_may_panic() {
        let d = dispatcher();
        let (tx, rx) = unbounded();
        let callback = move |e: &Event| {
            d.set(e.world_token, None, LONG).unwrap();
            tx.send(e.rank).unwrap();
            panic!("on purpose");
        };
        d.set(1, Some(Arc::new(callback)), LONG).unwrap();
        d.offer(&event(1, 0));
        d.offer(&event(1, 1));
        assert_eq!(rx.recv_timeout(LONG), Ok(Some(0)));
        assert!(rx.recv_timeout(LONG).is_err());
        let (tx, rx) = unbounded();
        d.set(2, Some(Arc::new(move |e: &Event| tx.send(e.rank).unwrap())), LONG).unwrap();
        d.offer(&event(2, 2));
        assert_eq!(rx.recv_timeout(LONG), Ok(Some(2)));
    }
}
