//! The C interface, as far as this program calls it.

use multiworld::capi::*;
use std::ffi::{CStr, CString, c_int};
use std::hint::black_box;
use std::ptr;

/// Why a measurement failed, in one line.
pub type Result<T> = std::result::Result<T, String>;

/// What everything is made of.
const TYPE: c_int = mwDataType_t::mwFloat32 as c_int;
const ELEMENT: usize = 4;

/// A world of this process; whoever leaves it is the last to use it.
#[derive(Clone, Copy)]
pub struct World(mwWorld_t);

// SAFETY: handles may be used by any thread.
unsafe impl Send for World {}
// SAFETY: as above, by several at a time.
unsafe impl Sync for World {}

#[inline]
fn check(call: &str, result: mwResult_t) -> Result<()> {
    if result == mwResult_t::mwSuccess {
        return Ok(());
    }
    // SAFETY: a C string that is never NULL and stays until this thread's next call.
    let text = unsafe { CStr::from_ptr(mwGetLastError(ptr::null_mut())) };
    Err(format!("{call}: {result:?}: {}", text.to_string_lossy()))
}

impl World {
    /// Joins with the rank and number of ranks of the environment.
    pub fn join(name: &str) -> Result<World> {
        World::join_as(name, -1, -1)
    }

    /// Joins with this rank and number of ranks.
    pub fn join_as(name: &str, nranks: c_int, rank: c_int) -> Result<World> {
        let name = CString::new(name).map_err(|e| e.to_string())?;
        let mut world = ptr::null_mut();
        // SAFETY: `world` is writable, the name is a C string, and a configuration is not needed.
        check("mwWorldInit", unsafe { mwWorldInit(&mut world, name.as_ptr(), nranks, rank, ptr::null()) })?;
        Ok(World(world))
    }

    pub fn leave(self) -> Result<()> {
        check("mwWorldDestroy", mwWorldDestroy(self.0))
    }

    /// Called through pointers that the compiler cannot see through, as a C program would.
    #[inline]
    pub fn send(self, bytes: &[u8], peer: c_int) -> Result<()> {
        let call = black_box(mwSend as unsafe extern "C" fn(_, _, _, _, _, _) -> _);
        let count = bytes.len() / ELEMENT;
        // SAFETY: the buffer has so many elements.
        check("mwSend", unsafe { call(bytes.as_ptr().cast(), count, TYPE, peer, self.0, ptr::null_mut()) })
    }

    #[inline]
    pub fn recv(self, bytes: &mut [u8], peer: c_int) -> Result<()> {
        let call = black_box(mwRecv as unsafe extern "C" fn(_, _, _, _, _, _) -> _);
        let count = bytes.len() / ELEMENT;
        // SAFETY: the buffer has room for so many elements.
        check("mwRecv", unsafe {
            call(bytes.as_mut_ptr().cast(), count, TYPE, peer, self.0, ptr::null_mut())
        })
    }

    #[inline]
    pub fn barrier(self) -> Result<()> {
        let call = black_box(mwBarrier as extern "C" fn(_, _) -> _);
        check("mwBarrier", call(self.0, ptr::null_mut()))
    }

    /// The sum over all ranks, in `to`.
    #[inline]
    pub fn all_reduce(self, from: &[u8], to: &mut [u8]) -> Result<()> {
        let call = black_box(mwAllReduce as unsafe extern "C" fn(_, _, _, _, _, _, _) -> _);
        let count = from.len().min(to.len()) / ELEMENT;
        let (from, to) = (from.as_ptr().cast(), to.as_mut_ptr().cast());
        let sum = mwRedOp_t::mwSum as c_int;
        // SAFETY: both buffers have so many elements.
        check("mwAllReduce", unsafe { call(from, to, count, TYPE, sum, self.0, ptr::null_mut()) })
    }
}
