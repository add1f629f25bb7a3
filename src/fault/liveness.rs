//! How long a peer process has been silent, as far as this process can tell.

use std::time::{Duration, Instant};

/// One peer's signs of life.
#[derive(Clone, Copy, Debug)]
pub struct Liveness {
    last_heard: Instant,
    beat: u64,
    last_answered: Instant,
    answered: u64,
}

impl Liveness {
    /// A peer that was heard just now.
    pub fn new(now: Instant) -> Liveness {
        Liveness { last_heard: now, beat: 0, last_answered: now, answered: 0 }
    }

    /// A message arrived.
    pub fn heard(&mut self, now: Instant) {
        self.last_heard = self.last_heard.max(now);
    }

    /// The peer's shared heartbeat counter was read.
    pub fn beat(&mut self, counter: u64, now: Instant) {
        if counter != self.beat {
            self.beat = counter;
            self.heard(now);
        }
    }

    /// Of the bytes that were sent to it so far, its machine has acknowledged so many; `waiting` others are on their way.
    pub fn answered(&mut self, bytes: u64, waiting: u64, now: Instant) {
        if bytes != self.answered || waiting == 0 {
            self.answered = bytes;
            self.last_answered = self.last_answered.max(now);
        }
    }

    /// How long nothing that was sent has arrived there, although something is on its way: a peer that is heard, but does
    /// not hear, is lost all the same.
    pub fn deafness(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_answered)
    }

    /// How long nothing was heard.
    pub fn silence(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.last_heard)
    }

    /// The observer itself was held up for `lag`, up to `now`: the peer may have spoken and could not be heard.
    pub fn excuse(&mut self, lag: Duration, now: Instant) {
        // Not into the future: who was heard just now must not be excused for the time to come.
        self.last_heard = self.last_heard.max(now.min(self.last_heard + lag));
        self.last_answered = self.last_answered.max(now.min(self.last_answered + lag));
    }
}

/// Notices that the observer itself did not run.
#[derive(Debug)]
pub struct Lag {
    expected: Instant,
}

impl Lag {
    /// An observer that runs again at `expected`.
    pub fn new(expected: Instant) -> Lag {
        Lag { expected }
    }

    /// The observer runs at `now` and next at `next`. Answers how much too late it is, beyond what one `interval`
    /// excuses.
    pub fn run(&mut self, now: Instant, next: Instant, interval: Duration) -> Duration {
        let late = now.saturating_duration_since(self.expected);
        self.expected = next;
        if late > interval { late } else { Duration::ZERO }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn silence_ends_with_a_message_or_a_changed_counter() {
        let t = Instant::now();
        let mut l = Liveness::new(t);
        assert_eq!(l.silence(t + 300 * MS), 300 * MS);
        l.beat(0, t + 400 * MS);
        assert_eq!(l.silence(t + 400 * MS), 400 * MS, "the same counter is no sign of life");
        l.beat(1, t + 500 * MS);
        assert_eq!(l.silence(t + 600 * MS), 100 * MS);
        l.heard(t + 600 * MS);
        l.heard(t + 100 * MS);
        assert_eq!(l.silence(t + 600 * MS), Duration::ZERO, "an old message does not turn back time");
    }

    #[test]
    fn who_does_not_hear_is_noticed_by_what_does_not_arrive() {
        let t = Instant::now();
        let mut l = Liveness::new(t);
        l.answered(10, 5, t + 100 * MS);
        assert_eq!(l.deafness(t + 100 * MS), Duration::ZERO);
        l.answered(10, 10, t + 200 * MS);
        l.heard(t + 200 * MS);
        assert_eq!(l.deafness(t + 300 * MS), 200 * MS, "what is heard is no answer");
        l.answered(15, 10, t + 400 * MS);
        assert_eq!(l.deafness(t + 400 * MS), Duration::ZERO, "slow, but it arrives");
        l.answered(15, 0, t + 900 * MS);
        assert_eq!(l.deafness(t + 900 * MS), Duration::ZERO, "nothing is on its way");
        l.excuse(500 * MS, t + 1500 * MS);
        assert_eq!(l.deafness(t + 1500 * MS), 100 * MS);
    }

    #[test]
    fn an_observer_that_slept_accuses_nobody() {
        let t = Instant::now();
        let mut lag = Lag::new(t + 100 * MS);
        assert_eq!(lag.run(t + 150 * MS, t + 250 * MS, 100 * MS), Duration::ZERO);
        let late = lag.run(t + 5250 * MS, t + 5350 * MS, 100 * MS);
        assert_eq!(late, 5000 * MS);
        let mut l = Liveness::new(t);
        l.excuse(late, t + 5250 * MS);
        assert_eq!(l.silence(t + 5250 * MS), 250 * MS);
        l.heard(t + 5250 * MS);
        l.excuse(late, t + 5250 * MS);
        assert_eq!(l.silence(t + 5350 * MS), 100 * MS, "what was heard needs no excuse");
    }
}
