//! Groups: what a thread posts between mwGroupStart and its end.

use super::arg::Out;
use super::boundary::guard;
use super::handle::{self, mwRequest_t, mwWorld_t};
use super::result::mwResult_t;
use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::world::{Calls, Posts, Request, World};
use std::cell::RefCell;
use std::ptr;

thread_local! {
    static GROUP: RefCell<Group<World>> = const { RefCell::new(Group::new()) };
}

/// What a thread has posted since its outermost mwGroupStart. `W` is a world.
struct Group<W> {
    depth: u32,
    calls: Calls<W>,
    /// The handle of the last call's world, and the world's place among the calls.
    last: Option<(mwWorld_t, usize)>,
    /// The first error of a call in the group. It poisons the group: nothing of it will be started.
    error: Option<Error>,
}

impl<W> Group<W> {
    const fn new() -> Group<W> {
        Group { depth: 0, calls: Calls::new(), last: None, error: None }
    }

    fn start(&mut self) -> Result<()> {
        self.depth =
            self.depth.checked_add(1).ok_or_else(|| Error::usage("mwGroupStart: too many open groups"))?;
        Ok(())
    }

    fn place(&mut self, handle: mwWorld_t, world: &Arc<W>) -> usize {
        let at = self.calls.place(world);
        self.last = Some((handle, at));
        at
    }

    fn poison(&mut self, err: &Error) {
        if self.depth > 0 && self.error.is_none() {
            self.error = Some(err.clone());
        }
    }

    /// What the outermost end starts; `None` at an inner one.
    fn end(&mut self) -> Result<Option<Calls<W>>> {
        match self.depth {
            0 => Err(Error::usage("mwGroupEnd: no group is open in this thread")),
            1 => self.close().map(Some),
            _ => {
                self.depth -= 1;
                Ok(None)
            }
        }
    }

    /// What mwGroupSubmit starts.
    fn submit(&mut self) -> Result<Calls<W>> {
        match self.depth {
            0 => Err(Error::usage("mwGroupSubmit: no group is open in this thread")),
            1 => self.close(),
            n => Err(Error::usage(format!(
                "mwGroupSubmit: inside {n} groups; only the outermost is submitted"
            ))),
        }
    }

    fn close(&mut self) -> Result<Calls<W>> {
        self.depth = 0;
        self.last = None;
        let calls = std::mem::take(&mut self.calls);
        match self.error.take() {
            Some(err) => Err(err),
            None => Ok(calls),
        }
    }
}

/// Whether this thread has an open group.
pub(super) fn is_open() -> bool {
    GROUP.with_borrow(|group| group.depth > 0)
}

/// Posts in the open group: `add` checks what is posted for the world of the handle, and adds it at the world's place.
#[inline]
pub(super) fn post(
    handle: mwWorld_t,
    add: impl Fn(&Arc<World>, &mut Posts, usize) -> Result<()>,
) -> Result<()> {
    GROUP.with_borrow_mut(|group| {
        // Most groups are for one world: looking whether its handle is still good is cheaper than referring to it anew.
        if let Some((last, at)) = group.last
            && last == handle
            && handle::is_live(handle)
            && let (Some(world), posts) = group.calls.at(at)
        {
            return add(world, posts, at);
        }
        let world = handle::world(handle)?;
        let at = group.place(handle, &world);
        add(&world, group.calls.at(at).1, at)
    })
}

/// Keeps the memory of a group that has been started for this thread's next one.
fn give_back(calls: Calls) {
    GROUP.with_borrow_mut(|group| {
        if group.calls.is_empty() {
            group.calls = calls;
        }
    });
}

/// Makes the open group, if there is one, fail with this error.
pub(super) fn poison(err: Error) -> Error {
    GROUP.with_borrow_mut(|group| group.poison(&err));
    err
}

/// For calls that wait for other ranks and cannot be part of a group.
pub(super) fn refuse(function: &str) -> Result<()> {
    if is_open() {
        return Err(Error::usage(format!("{function}: not allowed between mwGroupStart and mwGroupEnd")));
    }
    Ok(())
}

/// Opens a group: operations that this thread posts from now on are checked at once, but started by the
/// mwGroupEnd (or mwGroupSubmit) that belongs to it, and then progress together. One that is refused spoils the
/// group: its end returns the first such error and starts nothing. Groups may be nested; only the outermost one
/// counts. A group may span worlds.
#[unsafe(no_mangle)]
pub extern "C" fn mwGroupStart() -> mwResult_t {
    guard(|| GROUP.with_borrow_mut(Group::start))
}

/// Closes a group. The outermost one starts everything posted in it and, on the host backend, returns when
/// all of it is done: mwSuccess, or the first error; operations of other worlds than the failed one complete.
/// If an operation of the group was refused when it was posted, that error is returned and nothing is
/// started. An empty group does nothing.
#[unsafe(no_mangle)]
pub extern "C" fn mwGroupEnd() -> mwResult_t {
    guard(|| {
        let Some(mut calls) = GROUP.with_borrow_mut(Group::end)? else { return Ok(()) };
        if calls.is_empty() {
            return Ok(());
        }
        let request = Request::submit(&mut calls, false);
        give_back(calls);
        let done = request.wait(None);
        done.unwrap_or_else(|| Err(Error::internal("a wait without a deadline ended early")))
    })
}

/// Closes a group as mwGroupEnd does, but does not wait: gives a request for everything posted in it. Only
/// for the outermost group. The buffers must stay valid, and those that are written untouched, until the
/// request is done. On an error the request is NULL and nothing is started. That closes the group, too, unless
/// the error is that `request` is wrong or the group an inner one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwGroupSubmit(request: *mut mwRequest_t) -> mwResult_t {
    guard(|| {
        // SAFETY: writable by the contract of every output argument.
        let out = unsafe { Out::new(request, "request") }?;
        out.set(ptr::null_mut());
        let mut calls = GROUP.with_borrow_mut(Group::submit)?;
        let request = Request::submit(&mut calls, true);
        give_back(calls);
        out.set(handle::issue_request(request)?);
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{DataType, OpKind, RedOp, Reduction};
    use crate::world::Call;

    fn call() -> Call {
        Call {
            kind: OpKind::Barrier,
            send: false,
            sendbuf: ptr::null(),
            recvbuf: ptr::null_mut(),
            count: 0,
            dtype: DataType::Int8,
            reduction: Reduction::Builtin(RedOp::Sum),
            peer: 0,
            stream: ptr::null_mut(),
            scalar_on_device: false,
        }
    }

    fn worlds(calls: &Calls<u8>) -> Vec<u8> {
        calls.worlds().iter().map(|world| **world).collect()
    }

    fn add(group: &mut Group<u8>, world: u8) {
        let at = group.place(ptr::null_mut(), &Arc::new(world));
        group.calls.at(at).1.call(at, call());
    }

    #[test]
    fn only_the_outermost_end_starts_anything() {
        let mut group = Group::new();
        group.start().unwrap();
        add(&mut group, 1);
        group.start().unwrap();
        add(&mut group, 2);
        assert!(group.end().unwrap().is_none());
        add(&mut group, 3);
        assert_eq!(worlds(&group.end().unwrap().unwrap()), [1, 2, 3]);
        assert!(group.end().err().unwrap().to_string().contains("no group is open"));
    }

    #[test]
    fn the_first_error_poisons_the_whole_group_and_no_other() {
        let mut group = Group::new();
        group.poison(&Error::argument("outside of a group"));
        group.start().unwrap();
        add(&mut group, 1);
        group.start().unwrap();
        group.poison(&Error::argument("peer: first"));
        group.poison(&Error::argument("peer: second"));
        assert!(group.end().unwrap().is_none());
        add(&mut group, 1);
        assert_eq!(group.end().err().unwrap().to_string(), "peer: first");
        group.start().unwrap();
        add(&mut group, 2);
        assert_eq!(worlds(&group.submit().unwrap()), [2]);
    }

    #[test]
    fn submit_is_for_the_outermost_group() {
        let mut group = Group::<u8>::new();
        assert!(group.submit().err().unwrap().to_string().contains("no group is open"));
        group.start().unwrap();
        group.start().unwrap();
        add(&mut group, 1);
        assert!(group.submit().err().unwrap().to_string().contains("inside 2 groups"));
        assert!(group.end().unwrap().is_none());
        assert_eq!(worlds(&group.submit().unwrap()), [1]);
        assert_eq!(group.depth, 0);
    }
}
