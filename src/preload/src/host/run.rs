//! Operations of communicators on host memory.

use super::{Host, stream};
use crate::boundary::within;
use crate::cuda::Stream;
use crate::operation::Posted;
use crate::redop::Scalar;
use crate::{arg, group};
use multiworld::error::{Error, Result};
use multiworld::sync::Arc;
use multiworld::types::{OpKind, RedOp, Reduction};
use multiworld::world::{Call, Calls, Request, World};

/// A checked operation.
#[derive(Clone, Copy)]
pub struct Item {
    call: Call,
    /// A multiplier that is read when the operation runs.
    scalar: Option<Scalar>,
}

/// An operation of this thread's open group.
pub struct Queued {
    /// Whose it is.
    pub host: Arc<Host>,
    /// The operation.
    pub item: Item,
    /// The stream it was posted on.
    pub stream: Stream,
}

impl Item {
    /// The call, with what was to be read when it runs.
    fn now(&self) -> Call {
        match self.scalar {
            None => self.call,
            Some(scalar) => Call { reduction: scalar.reduction(), ..self.call },
        }
    }
}

/// Runs an operation, queues it on its stream, or puts it into this thread's open group.
#[inline]
pub fn post(host: &Arc<Host>, stream: Stream, posted: &Posted) -> Result<()> {
    let world = host.ready()?;
    let item = item(host, world, posted)?;
    if group::is_open() {
        world.check(&item.call)?;
        group::add(Queued { host: host.clone(), item, stream });
        return Ok(());
    }
    match host.runtime {
        None => within(world, |world| world.run(&item.now())).map_err(|e| host.translate(e)),
        Some(runtime) => {
            world.check(&item.call)?;
            refuse_self(world, &item.call)?;
            stream::launch(runtime, vec![Queued { host: host.clone(), item, stream }])
        }
    }
}

/// What [`World::run`] says, before the operation is on a stream, where nobody hears it.
fn refuse_self(world: &World, call: &Call) -> Result<()> {
    if call.kind == OpKind::PointToPoint && u32::try_from(call.peer) == Ok(world.rank()) {
        return Err(Error::usage(format!(
            "peer: {} is this rank itself; a send to oneself and its receive must be in one group",
            call.peer
        )));
    }
    Ok(())
}

/// Everything that can be checked without the other ranks.
#[inline]
fn item(host: &Host, world: &World, posted: &Posted) -> Result<Item> {
    let dtype = arg::datatype(posted.datatype)?;
    if let Some(fault) = posted.missing_buffer(world.rank().cast_signed()) {
        return Err(posted.explain(fault, world.nranks().cast_signed()));
    }
    let (reduction, scalar) = match posted.op {
        None => (Reduction::Builtin(RedOp::Sum), None),
        Some(op) => match i32::try_from(op).ok().and_then(RedOp::from_raw) {
            Some(builtin) => (Reduction::Builtin(builtin), None),
            None => host.redops.find(op, dtype)?,
        },
    };
    let call = Call {
        kind: posted.kind,
        send: posted.send,
        sendbuf: posted.sendbuff.cast(),
        recvbuf: posted.recvbuff.cast(),
        count: posted.count,
        dtype,
        reduction,
        peer: posted.peer,
        stream: std::ptr::null_mut(),
        scalar_on_device: false,
    };
    Ok(Item { call, scalar })
}

/// Runs what a group has collected: at once where the program has no streams, else queued on them.
pub fn run_group(calls: Vec<Queued>) -> Result<()> {
    let (queued, now): (Vec<Queued>, Vec<Queued>) = calls.into_iter().partition(|c| c.host.runtime.is_some());
    let mut launched = Ok(());
    if let Some(runtime) = queued.first().and_then(|c| c.host.runtime) {
        launched = stream::launch(runtime, queued);
    }
    launched.and(run_now(&now))
}

/// Runs operations, of any communicators, together and to their end.
pub fn run_now(calls: &[Queued]) -> Result<()> {
    match calls {
        [] => Ok(()),
        [one] if one.item.call.kind != OpKind::PointToPoint => {
            let world = one.host.world()?;
            within(world, |world| world.run(&one.item.now())).map_err(|e| one.host.translate(e))
        }
        _ => {
            let mut all = Calls::new();
            for c in calls {
                all.add(c.host.world()?, c.item.now());
            }
            let done = Request::submit(&mut all, false).wait(None);
            let done = done.unwrap_or_else(|| Err(Error::internal("a wait without a deadline ended early")));
            done.map_err(|e| match calls.iter().find(|c| c.host.world().is_ok_and(|w| w.error().is_some())) {
                Some(broken) => broken.host.translate(e),
                None => e,
            })
        }
    }
}
