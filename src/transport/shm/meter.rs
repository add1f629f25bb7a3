//! What the receiver of long messages measures, for [`Choice`].
//!
//! Looking at the clock is a tenth of what a short one of them costs. So only some are measured, each together with the
//! end of the one before: in a stream of messages, what lies between two of them is part of what they cost.

use super::choice::{Choice, LARGE, Way, class_of, is_trial};
use crate::sync::Arc;
use crate::sync::light::Lock;
use std::time::{Duration, Instant};

/// One message in so many is measured below the class of large ones, while nothing is being tried.
pub const SAMPLE: u32 = 8;

/// See the module's documentation.
#[derive(Debug, Default)]
pub struct Meter {
    choice: Option<Arc<Lock<Choice>>>,
    /// What the sender was told last.
    bits: u32,
    /// Messages begun.
    begun: u32,
    /// The way of the message that is coming, and when it began, if it is measured; whether its end is of interest.
    timing: Option<(Instant, Way)>,
    ends: bool,
    /// When the last one was complete.
    last: Option<Instant>,
}

impl Meter {
    /// Begins to measure the messages of a process. Answers the bits to tell the sender.
    pub fn start(&mut self, process: u32) -> u32 {
        let choice = Choice::of(process);
        self.bits = choice.try_lock().map_or(0, |choice| choice.bits());
        self.choice = Some(choice);
        self.bits
    }

    /// A message begins.
    #[inline]
    pub fn begin(&mut self, len: usize, way: Way) {
        self.begun = self.begun.wrapping_add(1);
        let place = if class_of(len) >= LARGE || is_trial(self.bits, len) { 0 } else { self.begun % SAMPLE };
        self.timing = (place == 0).then(|| (Instant::now(), way));
        self.ends = place == 0 || place == SAMPLE - 1;
    }

    /// The message is complete; before it began here, the sender had to spend some time on its first part. Answers the
    /// bits to tell the sender when they have changed.
    #[inline]
    pub fn end(&mut self, len: usize, first: impl FnOnce() -> Duration) -> Option<u32> {
        if !std::mem::take(&mut self.ends) {
            self.last = None;
            return None;
        }
        let now = Instant::now();
        let last = self.last.replace(now);
        let (since, way) = self.timing.take()?;
        let mut alone = now.duration_since(since);
        if way == Way::Ring {
            alone += first();
        }
        let with_pause = last.map(|last| now.duration_since(last)).filter(|all| *all < 2 * alone);
        let cost = with_pause.unwrap_or(alone).as_nanos() as f32 / len as f32;
        // Another world's thread may be doing the same: then not.
        let mut choice = self.choice.as_ref()?.try_lock()?;
        choice.record(len, way, cost);
        let bits = choice.bits();
        (bits != std::mem::replace(&mut self.bits, bits)).then_some(bits)
    }
}
