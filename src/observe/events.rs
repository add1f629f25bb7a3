//! The process's event queue: one pollable descriptor, one ordered queue, bounded.
//!
//! Whoever notices that something became of a world publishes an [`Event`]. It goes into the queue, where the
//! application fetches it when it likes, and to the callback of its world where one is set (see
//! [`callbacks`]). An application that never looks loses the oldest events, not memory.

use super::callbacks;
use crate::error::{Code, Error, Result};
use crate::sync::{Arc, Condvar, Mutex};
use crate::sys::eventfd::EventFd;
use std::collections::VecDeque;
use std::os::fd::{AsRawFd, RawFd};
use std::time::Instant;

/// Events kept for an application that does not fetch them.
pub const CAPACITY: usize = 4096;

/// What happened. The numbers are the C API's.
#[repr(i32)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventKind {
    /// A member died, hung or was cut off.
    RankFailed = 1,
    /// The world broke without a dead member.
    WorldBroken = 2,
    /// A member revoked the world.
    WorldRevoked = 3,
    /// A member left in good order.
    RankLeft = 4,
    /// The store went away; worlds that exist go on.
    StoreLost = 5,
}

/// Something that the application should know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What happened.
    pub kind: EventKind,
    /// The result that operations of the world answer from now on; `None` where they go on.
    pub code: Option<Code>,
    /// The world as C knows it; 0 for events of the process.
    pub world_token: usize,
    /// The world's name, empty for events of the process.
    pub world_name: Arc<str>,
    /// Epoch of the world.
    pub epoch: u64,
    /// The rank it is about.
    pub rank: Option<u32>,
    /// When it was noticed, on the monotonic clock.
    pub timestamp_ns: u64,
    /// One sentence.
    pub reason: Arc<str>,
}

static QUEUE: Queue = Queue::new();

/// Hands an event to the queue and to the world's callback. Never blocks on the application.
pub fn publish(event: Event) {
    // In this order, so that a callback finds in the queue what it was called with.
    QUEUE.push(event.clone());
    callbacks::offer(&event);
}

/// The oldest event; waits for one until `until` (without: for as long as it takes).
pub fn next(until: Option<Instant>) -> Option<Event> {
    QUEUE.pop(until)
}

/// The descriptor that is readable exactly while the queue holds events. It belongs to the library: poll it,
/// but neither read nor close it.
pub fn fd() -> Result<RawFd> {
    QUEUE.fd()
}

/// How many events were dropped because nobody fetched them.
pub fn dropped() -> u64 {
    QUEUE.state.lock().dropped
}

struct Queue {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    events: VecDeque<Event>,
    dropped: u64,
    /// Made by the first caller who asks for it.
    fd: Option<EventFd>,
}

impl State {
    /// Brings the descriptor in line with the queue. A failure costs wake-ups, not events, so it is only
    /// logged.
    fn show(&self) {
        let Some(fd) = &self.fd else { return };
        let shown = if self.events.is_empty() { fd.drain().map(drop) } else { fd.signal() };
        if let Err(err) = shown {
            tracing::warn!(%err, "the event descriptor cannot be updated");
        }
    }
}

impl Queue {
    const fn new() -> Queue {
        Queue {
            state: Mutex::new(State { events: VecDeque::new(), dropped: 0, fd: None }),
            arrived: Condvar::new(),
        }
    }

    fn push(&self, event: Event) {
        let mut state = self.state.lock();
        let overflow = state.events.len() == CAPACITY;
        if overflow {
            state.events.pop_front();
            state.dropped += 1;
        }
        state.events.push_back(event);
        state.show();
        let dropped = state.dropped;
        drop(state);
        self.arrived.notify_one();
        // Every doubling, so that a process that never looks does not flood its log.
        if overflow && dropped.is_power_of_two() {
            tracing::warn!(dropped, "the event queue is full, the oldest events were dropped");
        }
    }

    fn pop(&self, until: Option<Instant>) -> Option<Event> {
        let mut state = self.state.lock();
        loop {
            if let Some(event) = state.events.pop_front() {
                if state.events.is_empty() {
                    state.show();
                }
                return Some(event);
            }
            match until {
                None => self.arrived.wait(&mut state),
                Some(until) => {
                    if self.arrived.wait_until(&mut state, until).timed_out() && state.events.is_empty() {
                        return None;
                    }
                }
            }
        }
    }

    fn fd(&self) -> Result<RawFd> {
        let mut state = self.state.lock();
        if state.fd.is_none() {
            state.fd = Some(EventFd::new().map_err(|err| Error::system("eventfd", &err))?);
            if !state.events.is_empty() {
                state.show();
            }
        }
        state.fd.as_ref().map(EventFd::as_raw_fd).ok_or_else(|| Error::internal("no event descriptor"))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::sys::eventfd::readable;
    use std::time::Duration;

    pub(in crate::observe) fn event(world_token: usize, rank: u32) -> Event {
        Event {
            kind: EventKind::RankFailed,
            code: Some(Code::Remote),
            world_token,
            world_name: "w".into(),
            epoch: 1,
            rank: Some(rank),
            timestamp_ns: 0,
            reason: "died".into(),
        }
    }

    #[test]
    fn events_come_in_order() {
        let queue = Queue::new();
        queue.push(event(1, 0));
        queue.push(event(1, 1));
        let now = Some(Instant::now());
        assert_eq!(queue.pop(now).and_then(|e| e.rank), Some(0));
        assert_eq!(queue.pop(now).and_then(|e| e.rank), Some(1));
        assert_eq!(queue.pop(now), None);
    }

    #[test]
    fn the_descriptor_is_readable_while_events_wait() {
        let queue = Queue::new();
        queue.push(event(1, 0));
        let fd = queue.fd().unwrap();
        assert!(readable(fd));
        queue.push(event(1, 1));
        let now = Some(Instant::now());
        queue.pop(now).unwrap();
        assert!(readable(fd));
        queue.pop(now).unwrap();
        assert!(!readable(fd));
        queue.push(event(1, 2));
        assert!(readable(fd));
        assert_eq!(queue.fd().unwrap(), fd);
    }

    #[test]
    fn the_oldest_event_goes_when_nobody_looks() {
        let queue = Queue::new();
        for rank in 0..CAPACITY as u32 + 3 {
            queue.push(event(1, rank));
        }
        assert_eq!(queue.state.lock().dropped, 3);
        assert_eq!(queue.pop(Some(Instant::now())).and_then(|e| e.rank), Some(3));
    }

    #[test]
    fn waiting_ends_with_an_event_or_in_time() {
        let queue = Queue::new();
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(queue.pop(Some(soon)), None);
        assert!(Instant::now() >= soon);
        std::thread::scope(|s| {
            let waiter = s.spawn(|| queue.pop(None));
            queue.push(event(1, 4));
            assert_eq!(waiter.join().unwrap().and_then(|e| e.rank), Some(4));
        });
    }
}
