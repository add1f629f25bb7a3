//! The operations. All of them go the same way: [`post`] checks what does not depend on the world, and the
//! world checks the rest, before anything happens.

use super::boundary::{guard, within};
use super::datatype::{RawDataType, datatype, mwDataType_t};
use super::group;
use super::handle::{self, mwWorld_t};
use super::redop::{self, RawRedOp};
use super::result::mwResult_t;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::types::{OpKind, RedOp, Reduction};
use crate::world::{Call, Posts, World};
use std::ffi::{c_int, c_void};
use std::ptr;

/// Behind [`mwStream_t`].
pub struct CUstream_st {
    _nothing: [u8; 0],
}

/// A cudaStream_t on the nccl backend, NULL on the host backend.
pub type mwStream_t = *mut CUstream_st;

/// An operation as C called it.
#[derive(Clone, Copy)]
struct Posted {
    kind: OpKind,
    send: bool,
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    count: usize,
    datatype: RawDataType,
    op: Option<RawRedOp>,
    /// Peer or root.
    peer: c_int,
}

impl Posted {
    const fn new(kind: OpKind, count: usize, datatype: RawDataType) -> Posted {
        let (sendbuff, recvbuff) = (ptr::null(), ptr::null_mut());
        Posted { kind, send: false, sendbuff, recvbuff, count, datatype, op: None, peer: 0 }
    }

    /// The call, after the checks that do not depend on the world.
    fn call(&self, world: mwWorld_t, rank: u32, on_device: bool) -> Result<Call> {
        let dtype = datatype(self.datatype)?;
        if self.count > 0 && self.sendbuff.is_null() && self.sends(rank) {
            return Err(self.null("sendbuff"));
        }
        if self.count > 0 && self.recvbuff.is_null() && self.receives(rank) {
            return Err(self.null("recvbuff"));
        }
        let (reduction, scalar_on_device) = match self.op {
            Some(op) => redop::reduction(world, op, dtype, on_device)?,
            None => (Reduction::Builtin(RedOp::Sum), false),
        };
        Ok(Call {
            kind: self.kind,
            send: self.send,
            sendbuf: self.sendbuff.cast(),
            recvbuf: self.recvbuff.cast(),
            count: self.count,
            dtype,
            reduction,
            scalar_on_device,
            peer: self.peer,
            stream: ptr::null_mut(),
        })
    }

    #[cold]
    fn null(&self, name: &str) -> Error {
        Error::argument(format!("{name}: NULL for {} elements", self.count))
    }

    fn is_root(&self, rank: u32) -> bool {
        u32::try_from(self.peer) == Ok(rank)
    }

    /// Whether this rank needs a send buffer.
    fn sends(&self, rank: u32) -> bool {
        match self.kind {
            OpKind::PointToPoint => self.send,
            OpKind::Broadcast | OpKind::Scatter => self.is_root(rank),
            OpKind::Barrier => false,
            _ => true,
        }
    }

    /// Whether this rank needs a receive buffer.
    fn receives(&self, rank: u32) -> bool {
        match self.kind {
            OpKind::PointToPoint => !self.send,
            OpKind::Reduce | OpKind::Gather => self.is_root(rank),
            OpKind::Barrier => false,
            _ => true,
        }
    }
}

impl Posted {
    fn call_on(&self, handle: mwWorld_t, stream: mwStream_t, world: &World) -> Result<Call> {
        let call = self.call(handle, world.rank(), world.is_on_device())?;
        Ok(Call { stream: stream.cast(), ..call })
    }

    /// Runs it to its end.
    fn run(&self, handle: mwWorld_t, stream: mwStream_t, world: &Arc<World>) -> Result<()> {
        let call = self.call_on(handle, stream, world)?;
        within(world, |world| world.run(&call))
    }

    /// Checks it and puts it into a group.
    fn add(
        &self,
        handle: mwWorld_t,
        stream: mwStream_t,
        world: &Arc<World>,
        posts: &mut Posts,
        at: usize,
    ) -> Result<()> {
        let call = self.call_on(handle, stream, world)?;
        within(world, |world| world.check(&call)).map(|()| posts.call(at, call))
    }
}

/// Runs an operation, or puts it into this thread's open group.
#[inline]
fn post(handle: mwWorld_t, stream: mwStream_t, posted: Posted) -> mwResult_t {
    guard(|| {
        if group::is_open() {
            let add =
                |world: &Arc<World>, posts: &mut Posts, at| posted.add(handle, stream, world, posts, at);
            return group::post(handle, add).map_err(group::poison);
        }
        posted.run(handle, stream, &*handle::world(handle)?)
    })
}

/// The same for a message. Those of worlds on host memory are many and short, and go a way of their own, on which little
/// is moved.
#[inline]
fn post_message(handle: mwWorld_t, stream: mwStream_t, posted: Posted) -> mwResult_t {
    let message = |world: &Arc<World>| {
        let (buffer, name) = if posted.send {
            (posted.sendbuff, "sendbuff")
        } else {
            (posted.recvbuff.cast_const(), "recvbuff")
        };
        let dtype = datatype(posted.datatype)?;
        if posted.count > 0 && buffer.is_null() {
            return Err(posted.null(name));
        }
        let buffer = buffer.cast_mut().cast();
        world.message(posted.send, buffer, posted.count, dtype, posted.peer, stream.cast())
    };
    guard(|| {
        if group::is_open() {
            let add = |world: &Arc<World>, posts: &mut Posts, at| {
                if world.is_on_device() {
                    return posted.add(handle, stream, world, posts, at);
                }
                message(world).map(|message| posts.message(at, message))
            };
            return group::post(handle, add).map_err(group::poison);
        }
        let world = handle::world(handle)?;
        if world.is_on_device() {
            return posted.run(handle, stream, &world);
        }
        let message = message(&world)?;
        within(&world, |world| world.run_message(message))
    })
}

/// Sends `count` elements to the rank `peer`, which has to call mwRecv with the same count and type. Messages
/// between two ranks arrive in the order in which they were sent. Outside a group this returns when the
/// buffer may be used again, which may be before the peer has received: two ranks that both send first and
/// then receive need a group.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwSend(
    sendbuff: *const c_void,
    count: usize,
    datatype: RawDataType,
    peer: c_int,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::PointToPoint, count, datatype);
    post_message(world, stream, Posted { send: true, sendbuff, peer, ..posted })
}

/// Receives `count` elements from the rank `peer`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwRecv(
    recvbuff: *mut c_void,
    count: usize,
    datatype: RawDataType,
    peer: c_int,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::PointToPoint, count, datatype);
    post_message(world, stream, Posted { recvbuff, peer, ..posted })
}

/// Copies the `count` elements at `sendbuff` of the rank `root` to `recvbuff` of every rank. `sendbuff` is
/// used on the root only, where both may be the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwBroadcast(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    count: usize,
    datatype: RawDataType,
    root: c_int,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::Broadcast, count, datatype);
    post(world, stream, Posted { sendbuff, recvbuff, peer: root, ..posted })
}

/// Reduces `count` elements of every rank into `recvbuff` of the rank `root`. `recvbuff` is used on the root
/// only, where both may be the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwReduce(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    count: usize,
    datatype: RawDataType,
    op: RawRedOp,
    root: c_int,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::Reduce, count, datatype);
    post(world, stream, Posted { sendbuff, recvbuff, op: Some(op), peer: root, ..posted })
}

/// Reduces `count` elements of every rank into `recvbuff` of every rank; the bits are the same on all. Both
/// buffers may be the same.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwAllReduce(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    count: usize,
    datatype: RawDataType,
    op: RawRedOp,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::AllReduce, count, datatype);
    post(world, stream, Posted { sendbuff, recvbuff, op: Some(op), ..posted })
}

/// Puts the `sendcount` elements of rank i at `recvbuff + i * sendcount` of every rank; `recvbuff` holds
/// nranks * sendcount elements. In place when `sendbuff` is this rank's part of `recvbuff`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwAllGather(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    sendcount: usize,
    datatype: RawDataType,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::AllGather, sendcount, datatype);
    post(world, stream, Posted { sendbuff, recvbuff, ..posted })
}

/// Reduces nranks * recvcount elements of every rank and leaves the part that begins at i * recvcount,
/// `recvcount` elements, in `recvbuff` of rank i. In place when `recvbuff` is this rank's part of `sendbuff`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwReduceScatter(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    recvcount: usize,
    datatype: RawDataType,
    op: RawRedOp,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::ReduceScatter, recvcount, datatype);
    post(world, stream, Posted { sendbuff, recvbuff, op: Some(op), ..posted })
}

/// Sends the `count` elements at `sendbuff + i * count` to rank i and puts those that come from rank i at
/// `recvbuff + i * count`; both buffers hold nranks * count elements and do not overlap.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwAllToAll(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    count: usize,
    datatype: RawDataType,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::AllToAll, count, datatype);
    post(world, stream, Posted { sendbuff, recvbuff, ..posted })
}

/// Puts the `count` elements of rank i at `recvbuff + i * count` of the rank `root`. `recvbuff`, nranks *
/// count elements, is used on the root only; in place there when `sendbuff` is the root's part of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwGather(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    count: usize,
    datatype: RawDataType,
    root: c_int,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::Gather, count, datatype);
    post(world, stream, Posted { sendbuff, recvbuff, peer: root, ..posted })
}

/// Puts the `count` elements at `sendbuff + i * count` of the rank `root` into `recvbuff` of rank i.
/// `sendbuff`, nranks * count elements, is used on the root only; in place there when `recvbuff` is the
/// root's part of it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwScatter(
    sendbuff: *const c_void,
    recvbuff: *mut c_void,
    count: usize,
    datatype: RawDataType,
    root: c_int,
    world: mwWorld_t,
    stream: mwStream_t,
) -> mwResult_t {
    let posted = Posted::new(OpKind::Scatter, count, datatype);
    post(world, stream, Posted { sendbuff, recvbuff, peer: root, ..posted })
}

/// Returns when every rank has called it.
#[unsafe(no_mangle)]
pub extern "C" fn mwBarrier(world: mwWorld_t, stream: mwStream_t) -> mwResult_t {
    post(world, stream, Posted::new(OpKind::Barrier, 0, mwDataType_t::mwInt8 as RawDataType))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which buffers must not be NULL: (sendbuff, recvbuff) for rank 1 of an operation whose root or peer is
    /// `root`.
    fn needs(kind: OpKind, send: bool, root: c_int) -> (bool, bool) {
        let missing = |sendbuff, recvbuff| {
            let posted = Posted { send, peer: root, sendbuff, recvbuff, ..Posted::new(kind, 3, 7) };
            posted.call(ptr::null_mut(), 1, false).err().map(|err| err.to_string())
        };
        let there = ptr::without_provenance_mut::<c_void>(8);
        assert_eq!(missing(there, there), None);
        let (send, recv) = (missing(ptr::null(), there), missing(there, ptr::null_mut()));
        assert!(send.as_ref().is_none_or(|text| text == "sendbuff: NULL for 3 elements"));
        assert!(recv.as_ref().is_none_or(|text| text == "recvbuff: NULL for 3 elements"));
        (send.is_some(), recv.is_some())
    }

    #[test]
    fn buffers_are_needed_where_they_are_used() {
        assert_eq!(needs(OpKind::PointToPoint, true, 0), (true, false));
        assert_eq!(needs(OpKind::PointToPoint, false, 0), (false, true));
        for kind in [OpKind::AllReduce, OpKind::AllGather, OpKind::ReduceScatter, OpKind::AllToAll] {
            assert_eq!(needs(kind, false, 0), (true, true));
        }
        for kind in [OpKind::Broadcast, OpKind::Scatter] {
            assert_eq!((needs(kind, false, 1), needs(kind, false, 0)), ((true, true), (false, true)));
        }
        for kind in [OpKind::Reduce, OpKind::Gather] {
            assert_eq!((needs(kind, false, 1), needs(kind, false, -1)), ((true, true), (true, false)));
        }
        assert_eq!(needs(OpKind::Barrier, false, 0), (false, false));
    }

    #[test]
    fn no_elements_need_no_buffers() {
        let posted = Posted { op: Some(2), ..Posted::new(OpKind::AllReduce, 0, 7) };
        let call = posted.call(ptr::null_mut(), 0, false).unwrap();
        assert_eq!(call.reduction, Reduction::Builtin(RedOp::Max));
    }

    #[test]
    fn enumerators_are_checked() {
        let text = |posted: Posted| posted.call(ptr::null_mut(), 0, false).unwrap_err().to_string();
        let posted = Posted::new(OpKind::AllReduce, 0, 7);
        assert_eq!(text(Posted { datatype: 12, ..posted }), "datatype: 12 is no mwDataType_t");
        for op in [-1, 5] {
            let expected = format!("op: {op} is neither built in nor an operator made for this world");
            assert_eq!(text(Posted { op: Some(op), ..posted }), expected);
        }
    }
}
