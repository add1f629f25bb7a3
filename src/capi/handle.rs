//! What C holds in place of worlds and requests.

use crate::error::{Error, Result};
use crate::sync::Arc;
use crate::sync::slab::{Guard, Slab, kind_of};
use crate::world::{Request, World};
use std::ptr;

/// Behind [`mwWorld_t`]; C never sees what is in it, and there is nothing.
pub struct mwWorld {
    _nothing: [u8; 0],
}

/// Behind [`mwRequest_t`].
pub struct mwRequest {
    _nothing: [u8; 0],
}

/// Handle of a world. A number from the handle table in the shape of a pointer; never dereferenced.
pub type mwWorld_t = *mut mwWorld;
/// Handle of a request.
pub type mwRequest_t = *mut mwRequest;

const WORLD: u16 = 0x2d7;
const REQUEST: u16 = 0x4a9;

static WORLDS: Slab<World> = Slab::new(WORLD);
static REQUESTS: Slab<Request> = Slab::new(REQUEST);

pub(super) fn world(handle: mwWorld_t) -> Result<Guard<'static, World>> {
    WORLDS.get(handle.addr()).ok_or_else(|| bad("world", "world", handle.addr()))
}

/// Whether the handle of a world is still good.
pub(super) fn is_live(handle: mwWorld_t) -> bool {
    WORLDS.is_live(handle.addr())
}

pub(super) fn request(handle: mwRequest_t) -> Result<Guard<'static, Request>> {
    REQUESTS.get(handle.addr()).ok_or_else(|| bad("request", "request", handle.addr()))
}

/// As [`request`], for an element of an array.
pub(super) fn request_at(handle: mwRequest_t, index: usize) -> Result<Guard<'static, Request>> {
    REQUESTS.get(handle.addr()).ok_or_else(|| bad(&format!("requests[{index}]"), "request", handle.addr()))
}

/// Takes the handle away from everybody; once per handle.
pub(super) fn remove_world(handle: mwWorld_t) -> Result<Arc<World>> {
    WORLDS.remove(handle.addr()).ok_or_else(|| bad("world", "world", handle.addr()))
}

/// Takes the handle away from everybody; once per handle.
pub(super) fn remove_request(handle: mwRequest_t) -> Result<Arc<Request>> {
    REQUESTS.remove(handle.addr()).ok_or_else(|| bad("request", "request", handle.addr()))
}

/// A handle for a new world, which learns what C calls it. A world that cannot get one is aborted.
pub(super) fn issue_world(world: Arc<World>) -> Result<mwWorld_t> {
    issue_world_with(world, |_| ())
}

/// As [`issue_world`]; `prepare` is called with the handle before there can be events that name it.
pub(super) fn issue_world_with(world: Arc<World>, prepare: impl FnOnce(mwWorld_t)) -> Result<mwWorld_t> {
    match WORLDS.insert(Arc::clone(&world)) {
        Some(token) => {
            prepare(ptr::without_provenance_mut(token));
            world.set_token(token);
            Ok(ptr::without_provenance_mut(token))
        }
        None => {
            world.abort();
            Err(Error::usage("world: this process has as many worlds as there are handles; destroy some"))
        }
    }
}

/// A handle for a request that has been submitted.
pub(super) fn issue_request(request: Arc<Request>) -> Result<mwRequest_t> {
    let token = REQUESTS.insert(request).ok_or_else(|| {
        Error::usage(
            "request: there are as many requests as there are handles; the operations go on unwatched",
        )
    })?;
    Ok(ptr::without_provenance_mut(token))
}

#[cold]
fn bad(argument: &str, wanted: &str, handle: usize) -> Error {
    let what = match kind_of(handle) {
        _ if handle == 0 => return Error::argument(format!("{argument}: NULL")),
        Some(WORLD) if wanted != "world" => "a world",
        Some(REQUEST) if wanted != "request" => "a request",
        Some(WORLD | REQUEST) => {
            return Error::argument(format!("{argument}: {handle:#x} is no {wanted} any more"));
        }
        _ => "no handle of this library",
    };
    Error::argument(format!("{argument}: {handle:#x} is {what}, not a {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_handles_are_told_apart() {
        let world_like = Slab::new(WORLD).insert(Arc::new(())).unwrap();
        let request_like = Slab::new(REQUEST).insert(Arc::new(())).unwrap();
        assert_eq!(bad("world", "world", 0).to_string(), "world: NULL");
        assert_eq!(
            bad("world", "world", 0x10).to_string(),
            "world: 0x10 is no handle of this library, not a world"
        );
        assert_eq!(
            bad("world", "world", request_like).to_string(),
            format!("world: {request_like:#x} is a request, not a world")
        );
        assert_eq!(
            bad("requests[2]", "request", world_like).to_string(),
            format!("requests[2]: {world_like:#x} is a world, not a request")
        );
        assert_eq!(
            bad("world", "world", world_like).to_string(),
            format!("world: {world_like:#x} is no world any more")
        );
    }
}
