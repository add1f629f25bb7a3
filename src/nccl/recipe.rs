//! What is done with a communicator that broke, as a state machine without calls and without a clock.
//!
//! ```text
//! Alive -> Waiting -> Revoking -> Aborting -> Gone
//!              \----> Destroying ----------/
//! ```
//!
//! One that was finalized is destroyed instead, which NCCL lets wait for the other processes: for as long as they take.
//!
//! Waiting is for the communicator's lock: NCCL allows an abort only while no thread is inside a call on it. Any stage
//! can hang inside NCCL or CUDA. Then the communicator is given up: what it holds is leaked, counted and reported, and
//! whoever waits for it goes on. The thread that hangs is left alone; should it come back, it finishes its work and the
//! leak is taken back.

use std::time::{Duration, Instant};

/// Where a communicator stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Stage {
    /// In use.
    Alive,
    /// Broken; nobody calls NCCL on it any more, except who was inside a call already.
    Waiting,
    /// Its kernels are being told to leave the device.
    Revoking,
    /// Its resources are being freed.
    Aborting,
    /// The same of one that was finalized; since NCCL 2.31 that waits for the other processes.
    Destroying,
    /// Freed.
    Gone,
}

/// How long each stage may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Waiting for a thread to come out of a call.
    pub call: Duration,
    /// Revoking.
    pub revoke: Duration,
    /// Aborting.
    pub abort: Duration,
    /// Destroying.
    pub destroy: Duration,
}

impl Limits {
    /// So long for the abort, and half as long for each step before it; as long as an operation may take for the
    /// others to destroy theirs.
    pub fn within(abort: Duration, operation: Duration) -> Limits {
        Limits { call: abort / 2, revoke: abort / 2, abort, destroy: operation }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::within(Duration::from_secs(10), Duration::from_secs(600))
    }
}

/// Why a communicator was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leak {
    /// A thread is inside an NCCL call on it.
    InCall,
    /// ncclCommRevoke does not return.
    Revoke,
    /// ncclCommAbort does not return.
    Abort,
    /// ncclCommDestroy does not return.
    Destroy,
    /// ncclCommAbort does not return, and waits for CUDA graphs that captured the communicator.
    Graph,
}

impl Leak {
    /// The sentence of the report.
    pub fn reason(self) -> &'static str {
        match self {
            Leak::InCall => "a thread does not come out of an NCCL call on it",
            Leak::Revoke => "ncclCommRevoke does not return",
            Leak::Abort => {
                "ncclCommAbort does not return; work of another communicator on the device may hold it up"
            }
            Leak::Destroy => "ncclCommDestroy does not return; not all members may have destroyed theirs",
            Leak::Graph => "ncclCommAbort waits until the CUDA graphs that captured it have been destroyed",
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Recipe {
    stage: Stage,
    since: Instant,
    leak: Option<Leak>,
    limits: Limits,
}

impl Recipe {
    /// A communicator in use.
    pub fn new(now: Instant, limits: Limits) -> Recipe {
        Recipe { stage: Stage::Alive, since: now, leak: None, limits }
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.stage
    }

    /// Why it has been given up, if it is.
    pub fn leak(&self) -> Option<Leak> {
        self.leak
    }

    /// How long it has been in its stage.
    pub fn lasts(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.since)
    }

    /// Nobody needs to wait for it any longer.
    pub fn is_over(&self) -> bool {
        self.stage == Stage::Gone || self.leak.is_some()
    }

    /// The next stage begins. Stages are never left backwards.
    pub fn enter(&mut self, stage: Stage, now: Instant) {
        if stage > self.stage {
            self.stage = stage;
            self.since = now;
        }
    }

    /// It has been freed. Answers whether it had been given up before.
    pub fn finish(&mut self, now: Instant) -> Option<Leak> {
        self.enter(Stage::Gone, now);
        self.leak.take()
    }

    /// Gives it up when its stage takes too long; answers why, once.
    pub fn check(&mut self, now: Instant, captured: bool) -> Option<Leak> {
        if self.leak.is_some() {
            return None;
        }
        let (limit, leak) = match self.stage {
            Stage::Alive | Stage::Gone => return None,
            Stage::Waiting => (self.limits.call, Leak::InCall),
            Stage::Revoking => (self.limits.revoke, Leak::Revoke),
            Stage::Aborting if captured => (self.limits.abort, Leak::Graph),
            Stage::Aborting => (self.limits.abort, Leak::Abort),
            Stage::Destroying => (self.limits.destroy, Leak::Destroy),
        };
        if self.lasts(now) < limit {
            return None;
        }
        self.leak = Some(leak);
        self.leak
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let second = Duration::from_secs(1);
        Limits { call: second, revoke: 2 * second, abort: 3 * second, destroy: 4 * second }
    }

    fn at(start: Instant, seconds: u64) -> Instant {
        start + Duration::from_secs(seconds)
    }

    #[test]
    fn a_prompt_abort_leaks_nothing() {
        let t = Instant::now();
        let mut r = Recipe::new(t, limits());
        assert_eq!(r.check(at(t, 1000), false), None);
        for (i, stage) in [Stage::Waiting, Stage::Revoking, Stage::Aborting].into_iter().enumerate() {
            r.enter(stage, at(t, 1000 + i as u64));
            assert_eq!((r.check(at(t, 1000 + i as u64), false), r.is_over()), (None, false));
        }
        assert_eq!(r.finish(at(t, 1003)), None);
        assert!(r.is_over() && r.leak().is_none());
        assert_eq!(r.check(at(t, 5000), false), None);
    }

    #[test]
    fn each_stage_has_its_limit_and_its_reason() {
        let cases = [
            (Stage::Waiting, 1, false, Leak::InCall),
            (Stage::Revoking, 2, false, Leak::Revoke),
            (Stage::Aborting, 3, false, Leak::Abort),
            (Stage::Aborting, 3, true, Leak::Graph),
            (Stage::Destroying, 4, true, Leak::Destroy),
        ];
        for (stage, seconds, captured, leak) in cases {
            let t = Instant::now();
            let mut r = Recipe::new(t, limits());
            r.enter(stage, t);
            assert_eq!(r.check(at(t, seconds) - Duration::from_millis(1), captured), None);
            assert_eq!(r.check(at(t, seconds), captured), Some(leak));
            assert!(r.is_over());
            assert_eq!(r.check(at(t, seconds + 1), captured), None, "reported once");
        }
    }

    #[test]
    fn who_comes_back_late_takes_the_leak_back() {
        let t = Instant::now();
        let mut r = Recipe::new(t, limits());
        r.enter(Stage::Waiting, t);
        assert_eq!(r.check(at(t, 1), false), Some(Leak::InCall));
        r.enter(Stage::Revoking, at(t, 9));
        assert_eq!(r.check(at(t, 100), false), None, "a leak is reported once, whatever happens later");
        r.enter(Stage::Waiting, at(t, 101));
        assert_eq!(r.stage(), Stage::Revoking);
        assert_eq!(r.finish(at(t, 101)), Some(Leak::InCall));
        assert_eq!((r.stage(), r.leak()), (Stage::Gone, None));
    }
}
