//! Worlds whose operations NCCL carries out: how they are set up and how they end.

use super::wireup::MEETING;
use super::{Call, State, World};
use crate::backend::Device;
use crate::backend::nccl::{self, Nccl};
use crate::error::{Error, Result};
use crate::nccl::cuda;
use crate::nccl::cuda::Mark;
use crate::nccl::recipe::Limits;
use crate::nccl::{Comm, Options, Outcome, loader};
use crate::sync::Arc;
use crate::types::ProcessId;
use crate::watchdog::Watchdog;
use crate::watchdog::message::Handout;
use std::collections::BTreeSet;
use std::time::Instant;

impl World {
    /// The CUDA device; -1 where there is none.
    pub fn device(&self) -> i32 {
        self.device.get().map_or(-1, |d| d.ordinal())
    }

    /// Whether its operations take device memory.
    pub fn is_on_device(&self) -> bool {
        self.device.get().is_some()
    }

    /// Makes the communicator. What goes wrong with it here ends the world for everybody: nobody waits in NCCL for a
    /// rank that will not come.
    pub(super) fn wire_device(
        self: &Arc<World>,
        w: &Watchdog,
        deadline: Instant,
        broken: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        // Everybody is there to hear of it.
        self.exchange(&[0; 128], MEETING, deadline)?;
        self.make_comm(w, deadline, broken).inspect_err(|e| self.announce_own(e))
    }

    /// Rank 0 gets an identity from NCCL and hands it to everybody.
    fn make_comm(
        self: &Arc<World>,
        w: &Watchdog,
        deadline: Instant,
        broken: &dyn Fn() -> Result<()>,
    ) -> Result<()> {
        let library = loader::shared()?;
        if let Some(device) = self.config.device {
            cuda::bind(device)?;
        }
        let world = (self.id, self.epoch);
        if self.rank == 0 {
            let id = nccl::unique_id(&library)?;
            let processes: BTreeSet<ProcessId> = self.members.iter().map(|m| m.process).collect();
            for p in &processes {
                w.hand_out(p, world, &id)?;
            }
        }
        let id = w.await_handout(world, deadline, broken)?;
        let options = Options {
            name: self.name.to_string(),
            timeout: Some(self.config.timeout),
            limits: Limits::within(self.config.abort_timeout, self.config.timeout),
        };
        let backend = Nccl::init(library, &id, self.rank, self.nranks(), options)?;
        let comm = backend.comm().clone();
        self.care_for(&comm);
        self.attach(backend)?;
        comm.settle(Outcome::Pending, deadline).map_err(|e| broken().err().unwrap_or(e))
    }

    /// Every rank's word, by rank, over the control links. Collective; `number` tells the calls of one world apart.
    pub fn exchange(&self, mine: &Handout, number: u32, deadline: Instant) -> Result<Vec<Handout>> {
        let w = Watchdog::get(self.config.ifname.as_deref())?;
        // Not an epoch: those are small.
        let tag = |rank: u32| 1 << 63 | u64::from(number) << 32 | u64::from(rank);
        let processes: BTreeSet<ProcessId> = self.members.iter().map(|m| m.process).collect();
        for p in &processes {
            w.hand_out(p, (self.id, tag(self.rank)), mine)?;
        }
        let broken = || match self.state() {
            State::Active => Ok(()),
            _ => Err(self.error().unwrap_or_else(|| Error::internal("the world ended without a reason"))),
        };
        (0..self.nranks()).map(|r| w.await_handout((self.id, tag(r)), deadline, &broken)).collect()
    }

    /// Gives the world a device to end when the world ends, at once if it has ended. Once per world.
    pub fn attach(&self, device: Arc<dyn Device>) -> Result<()> {
        if self.device.set(device).is_err() {
            return Err(Error::internal("a world was given two devices"));
        }
        self.end_device();
        Ok(())
    }

    /// What goes wrong on a communicator breaks this world, for all members.
    pub fn care_for(self: &Arc<World>, comm: &Arc<Comm>) {
        let world = Arc::downgrade(self);
        comm.listen(move |e| {
            if let Some(world) = world.upgrade() {
                world.announce_own(e);
            }
        });
    }

    /// Enqueues checked calls on the device.
    pub(super) fn enqueue(&self, device: &dyn Device, calls: &[Call], deadline: Instant) -> Result<()> {
        super::operate::refuse_forked()?;
        let ended = || match self.state() {
            State::Active => None,
            _ => Some(self.error().unwrap_or_else(|| Error::internal("the world ended without a reason"))),
        };
        if let Some(e) = ended() {
            return Err(e);
        }
        // The world's own reason says more than what the device makes of its end.
        device.enqueue(calls, deadline).map_err(|e| ended().unwrap_or(e))
    }

    /// Marks behind what calls have just enqueued, one per stream.
    pub(super) fn marks(&self, device: &dyn Device, calls: &[Call]) -> Result<Vec<Mark>> {
        let mut streams: Vec<_> = calls.iter().map(|c| c.stream).collect();
        streams.sort_unstable();
        streams.dedup();
        let marks: Result<Vec<_>> = streams.into_iter().map(|s| device.mark(s)).collect();
        Ok(marks?.into_iter().flatten().collect())
    }

    /// Ends what is under way on the device of a world that has ended.
    pub(super) fn end_device(&self) {
        let ended = matches!(self.state(), State::Broken | State::Revoked | State::Aborted);
        if let (true, Some(device)) = (ended, self.device.get()) {
            let error = self.error().unwrap_or_else(|| Error::internal("the world ended without a reason"));
            device.end(&error);
        }
    }

    /// Ends the device, unless it was finalized, and waits until that is over or given up.
    pub(super) fn abandon_device(&self, error: &Error) {
        let Some(device) = self.device.get() else { return };
        device.end(error);
        if let Err(e) = device.wait_over() {
            // The janitor has counted and reported it.
            tracing::debug!("{e}");
        }
    }
}
