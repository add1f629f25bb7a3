//! The kernels of one communicator: one at a time, in the order in which they were issued, as in NCCL.

use crate::cuda::{CudaError, Device};
use crate::record::lock;
use crate::stop::Stop;
use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The line in which kernels wait for their turn, and the graphs that hold some.
#[derive(Default)]
pub struct Kernels {
    line: Mutex<Line>,
    changed: Condvar,
}

#[derive(Default)]
struct Line {
    issued: u64,
    /// Every ticket below this one is over.
    turn: u64,
    /// Tickets above the turn that are over.
    over: BTreeSet<u64>,
    /// Captured launches whose graphs still exist.
    captured: u64,
}

/// How long a kernel that waits for its turn sleeps between two looks at the abort flag.
const STEP: Duration = Duration::from_millis(2);
/// How often somebody who waits for kernels asks whether the device still works.
const PROBE: Duration = Duration::from_millis(20);

impl Kernels {
    /// A place at the end of the line.
    pub fn issue(&self) -> u64 {
        let mut line = lock(&self.line);
        line.issued += 1;
        line.issued - 1
    }

    /// Waits for the turn. False when the kernel is to leave instead.
    pub fn wait_turn(&self, ticket: u64, stop: &Stop) -> bool {
        let mut line = lock(&self.line);
        while line.turn < ticket && !stop.is_raised() {
            let (next, _) = self.changed.wait_timeout(line, STEP).unwrap_or_else(PoisonError::into_inner);
            line = next;
        }
        !stop.is_raised()
    }

    /// The kernel is over, or will never run.
    pub fn leave(&self, ticket: u64) {
        let mut line = lock(&self.line);
        line.over.insert(ticket);
        while let Some(first) = line.over.first().copied().filter(|first| *first == line.turn) {
            line.over.remove(&first);
            line.turn += 1;
        }
        drop(line);
        self.changed.notify_all();
    }

    /// A graph has got hold of a kernel.
    pub fn capture(&self) {
        lock(&self.line).captured += 1;
    }

    /// A graph that had a kernel is gone.
    pub fn release(&self) {
        let mut line = lock(&self.line);
        line.captured = line.captured.saturating_sub(1);
        drop(line);
        self.changed.notify_all();
    }

    /// Waits until every kernel that was issued is over. A device that has broken drops the kernels that were
    /// still to run, so then this is an error.
    pub fn wait_idle(&self, device: &Device) -> Result<(), CudaError> {
        self.wait(device, |line| line.turn == line.issued)
    }

    /// Waits until every graph that holds a kernel is gone.
    pub fn wait_graphs(&self, device: &Device) -> Result<(), CudaError> {
        self.wait(device, |line| line.captured == 0)
    }

    fn wait(&self, device: &Device, over: impl Fn(&Line) -> bool) -> Result<(), CudaError> {
        let mut line = lock(&self.line);
        while !over(&line) {
            let (next, time) = self.changed.wait_timeout(line, PROBE).unwrap_or_else(PoisonError::into_inner);
            line = next;
            if time.timed_out() && !over(&line) {
                drop(line);
                device.probe()?;
                line = lock(&self.line);
            }
        }
        Ok(())
    }
}
