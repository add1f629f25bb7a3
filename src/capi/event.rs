//! `mwEvent_t`: what became of worlds, to be fetched or called back with.

use super::arg::{Out, deadline, field};
use super::boundary::{guard, guard_result};
use super::handle::{self, mwWorld_t};
use super::result::mwResult_t;
use super::world::MW_WORLD_NAME_BYTES;
use crate::observe::callbacks::{self, Callback};
use crate::observe::events::{self, Event, EventKind};
use crate::sync::Arc;
use std::ffi::{c_char, c_int, c_void};
use std::ptr;

/// Bytes of an event's reason, with its NUL.
pub const MW_REASON_BYTES: usize = 256;

/// What an event is about. Values are only ever added, so be ready for others.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mwEventKind_t {
    /// A member died, hung or was cut off; one event per world and rank.
    mwEventRankFailed = 1,
    /// The world broke without a dead member: a deadline passed, or the ranks called different operations.
    mwEventWorldBroken = 2,
    /// A member revoked the world.
    mwEventWorldRevoked = 3,
    /// A member finalized the world.
    mwEventRankLeft = 4,
    /// The store went away. Worlds that exist go on; only joining needs it.
    mwEventStoreLost = 5,
}

impl From<EventKind> for mwEventKind_t {
    fn from(kind: EventKind) -> mwEventKind_t {
        match kind {
            EventKind::RankFailed => mwEventKind_t::mwEventRankFailed,
            EventKind::WorldBroken => mwEventKind_t::mwEventWorldBroken,
            EventKind::WorldRevoked => mwEventKind_t::mwEventWorldRevoked,
            EventKind::RankLeft => mwEventKind_t::mwEventRankLeft,
            EventKind::StoreLost => mwEventKind_t::mwEventStoreLost,
        }
    }
}

/// Something that became of a world.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct mwEvent_t {
    /// What happened.
    pub kind: mwEventKind_t,
    /// What operations of the world return from now on; mwSuccess where they go on.
    pub result: mwResult_t,
    /// The world, which may be destroyed by now; NULL for events of the process.
    pub world: mwWorld_t,
    /// The world's name.
    pub name: [c_char; MW_WORLD_NAME_BYTES],
    /// The world's epoch.
    pub epoch: u64,
    /// The rank that failed or left, else -1.
    pub rank: c_int,
    /// When it was noticed: CLOCK_MONOTONIC, in nanoseconds.
    pub timestampNs: u64,
    /// One sentence, cut to fit.
    pub reason: [c_char; MW_REASON_BYTES],
}

impl From<&Event> for mwEvent_t {
    fn from(event: &Event) -> mwEvent_t {
        mwEvent_t {
            kind: event.kind.into(),
            result: event.code.map_or(mwResult_t::mwSuccess, mwResult_t::from),
            world: ptr::without_provenance_mut(event.world_token),
            name: field(&event.world_name),
            epoch: event.epoch,
            rank: event.rank.and_then(|rank| c_int::try_from(rank).ok()).unwrap_or(-1),
            timestampNs: event.timestamp_ns,
            reason: field(&event.reason),
        }
    }
}

/// Called with an event, which is valid for the call only, and the `user` of mwWorldSetCallback. It runs on a
/// thread of the library that only runs callbacks, one at a time, so a slow one delays later callbacks and
/// nothing else. It may call every function of this library; it must not throw an exception or leave by
/// longjmp.
pub type mwEventCallback_t = Option<unsafe extern "C" fn(event: *const mwEvent_t, user: *mut c_void)>;

/// What C gave along with its callback.
struct User(*mut c_void);

// SAFETY: mwWorldSetCallback demands that `user` may be used on the callback thread; we only pass it on.
unsafe impl Send for User {}
// SAFETY: as above.
unsafe impl Sync for User {}

/// A descriptor that is readable exactly while mwEventNext would find an event: for poll, epoll and select.
/// There is one per process. It belongs to the library; do not read from it and do not close it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwEventFd(fd: *mut c_int) -> mwResult_t {
    guard(|| {
        // SAFETY: writable by the contract of every output argument.
        let out = unsafe { Out::new(fd, "fd") }?;
        out.set(events::fd()?);
        Ok(())
    })
}

/// Takes the oldest event of this process, of whichever world. Waits up to `timeoutMs` for one (0: not at
/// all, negative: until there is one); mwInProgress when none came. Each event is taken once, by one thread.
/// Worlds with a callback have their events here, too. The library keeps 4096 events; if nobody takes them
/// the oldest are dropped.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwEventNext(event: *mut mwEvent_t, timeoutMs: c_int) -> mwResult_t {
    guard_result(|| {
        // SAFETY: writable by the contract of every output argument.
        let out = unsafe { Out::new(event, "event") }?;
        let Some(event) = events::next(deadline(timeoutMs)) else { return Ok(mwResult_t::mwInProgress) };
        out.set(mwEvent_t::from(&event));
        Ok(mwResult_t::mwSuccess)
    })
}

/// Sets what is called with each event of a world from now on; NULL for nothing. When this, mwWorldDestroy or
/// mwWorldAbort returns, the previous callback is not running and will not be called again, so `user` may be
/// freed; the exception is a call from within that callback, which does not wait for itself. If the callback
/// does not return within 10 seconds this is mwTimeout: it will not be called again, but is still running.
#[unsafe(no_mangle)]
pub extern "C" fn mwWorldSetCallback(
    world: mwWorld_t,
    callback: mwEventCallback_t,
    user: *mut c_void,
) -> mwResult_t {
    guard(|| {
        handle::world(world)?;
        let callback = callback.map(|function| closure(function, User(user)));
        let set = callbacks::set_callback(world.addr(), callback);
        // A world that was destroyed meanwhile may have taken its callback away before this one was there.
        if handle::world(world).is_err() {
            callbacks::set_callback(world.addr(), None)?;
        }
        set
    })
}

fn closure(function: unsafe extern "C" fn(*const mwEvent_t, *mut c_void), user: User) -> Callback {
    Arc::new(move |event| {
        // Names the whole of `user`, so that the closure keeps it and not only the pointer in it.
        let user = &user;
        // SAFETY: the caller's function, with a valid event and the pointer it was set with.
        unsafe { function(&mwEvent_t::from(event), user.0) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Code;
    use std::ffi::CStr;

    #[test]
    fn an_event_is_the_same_in_c() {
        let event = Event {
            kind: EventKind::RankFailed,
            code: Some(Code::Remote),
            world_token: 0x11,
            world_name: "kv".into(),
            epoch: 3,
            rank: Some(2),
            timestamp_ns: 99,
            reason: "x".repeat(300).into(),
        };
        let c = mwEvent_t::from(&event);
        assert_eq!((c.kind, c.result), (mwEventKind_t::mwEventRankFailed, mwResult_t::mwRemoteError));
        assert_eq!((c.world.addr(), c.epoch, c.rank, c.timestampNs), (0x11, 3, 2, 99));
        // SAFETY: both fields end with NUL.
        let (name, reason) = unsafe { (CStr::from_ptr(c.name.as_ptr()), CStr::from_ptr(c.reason.as_ptr())) };
        assert_eq!((name, reason.count_bytes()), (c"kv", 255));
        let process = Event { kind: EventKind::StoreLost, code: None, world_token: 0, rank: None, ..event };
        let c = mwEvent_t::from(&process);
        assert_eq!((c.result, c.rank, c.world.is_null()), (mwResult_t::mwSuccess, -1, true));
    }
}
