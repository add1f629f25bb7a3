//! Memory and streams of a device, for tests and benchmarks that bring their own: applications come with
//! theirs.
//!
//! Nothing here waits for more than the stream that it is given, so that a kernel which is parked on another
//! stream stands in nobody's way; only giving memory back waits for the whole device.

use super::{Stream, check, context, error, on, present};
use crate::error::{Error, Result};
use core::ffi::{c_char, c_void};
use cudarc::driver::sys::{self, CUdeviceptr, CUresult, CUstream};
use std::ffi::CStr;

/// A block of device memory.
#[derive(Debug)]
pub struct Buffer {
    device: i32,
    address: CUdeviceptr,
    len: usize,
}

impl Buffer {
    /// So many bytes, which hold anything.
    pub fn new(device: i32, len: usize) -> Result<Buffer> {
        on(device, || {
            let mut address = 0;
            // SAFETY: a context is current; `address` is writable.
            check("cuMemAlloc", unsafe { sys::cuMemAlloc_v2(&mut address, len.max(1)) })?;
            Ok(Buffer { device, address, len })
        })
    }

    /// Its size in bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it begins, as operations take it. Not to be read or written on the host.
    pub fn address(&self) -> *mut u8 {
        self.address as *mut u8
    }

    /// That `len` bytes from `at` on are inside.
    fn inside(&self, at: usize, len: usize) -> Result<()> {
        match at.checked_add(len) {
            Some(end) if end <= self.len => Ok(()),
            _ => Err(Error::usage(format!("{len} bytes from {at} on are not in a buffer of {}", self.len))),
        }
    }

    /// Copies bytes to `at`, behind what the stream has been given so far; they are there on return.
    pub fn write(&self, at: usize, bytes: &[u8], stream: &OwnStream) -> Result<()> {
        self.inside(at, bytes.len())?;
        on(self.device, || {
            let to = self.address + at as CUdeviceptr;
            // SAFETY: `to` has that many bytes, as was checked; `bytes` outlives the copy, which is waited
            // for.
            check("cuMemcpyHtoDAsync", unsafe {
                sys::cuMemcpyHtoDAsync_v2(to, bytes.as_ptr().cast::<c_void>(), bytes.len(), stream.0)
            })
        })?;
        stream.synchronize()
    }

    /// Copies bytes from `at` on, behind what the stream has been given so far; they are there on return.
    pub fn read(&self, at: usize, bytes: &mut [u8], stream: &OwnStream) -> Result<()> {
        self.inside(at, bytes.len())?;
        on(self.device, || {
            let from = self.address + at as CUdeviceptr;
            // SAFETY: `from` has that many bytes, as was checked; `bytes` is writable and borrowed until the
            // copy, which is waited for, is over.
            check("cuMemcpyDtoHAsync", unsafe {
                sys::cuMemcpyDtoHAsync_v2(bytes.as_mut_ptr().cast::<c_void>(), from, bytes.len(), stream.0)
            })
        })?;
        stream.synchronize()
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let freed = on(self.device, || {
            // SAFETY: our memory, freed once; the driver waits for work that uses it.
            check("cuMemFree", unsafe { sys::cuMemFree_v2(self.address) })
        });
        if let Err(e) = freed {
            tracing::debug!("{e}");
        }
    }
}

/// A stream of our own, which does not wait for the default stream.
#[derive(Debug)]
pub struct OwnStream(CUstream, i32);

// SAFETY: streams may be used from any thread.
unsafe impl Send for OwnStream {}
// SAFETY: as above.
unsafe impl Sync for OwnStream {}

impl OwnStream {
    /// A new stream of a device.
    pub fn new(device: i32) -> Result<OwnStream> {
        on(device, || {
            let mut stream: CUstream = core::ptr::null_mut();
            let flags = sys::CUstream_flags::CU_STREAM_NON_BLOCKING as u32;
            // SAFETY: a context is current; `stream` is writable.
            check("cuStreamCreate", unsafe { sys::cuStreamCreate(&mut stream, flags) })?;
            Ok(OwnStream(stream, device))
        })
    }

    /// As operations take it.
    pub fn raw(&self) -> Stream {
        self.0.cast()
    }

    /// Waits, without a limit, until everything that it has been given is done.
    pub fn synchronize(&self) -> Result<()> {
        on(self.1, || {
            // SAFETY: our stream.
            check("cuStreamSynchronize", unsafe { sys::cuStreamSynchronize(self.0) })
        })
    }

    /// Whether everything that it has been given is done.
    pub fn is_idle(&self) -> Result<bool> {
        on(self.1, || {
            // SAFETY: our stream.
            match unsafe { sys::cuStreamQuery(self.0) } {
                CUresult::CUDA_SUCCESS => Ok(true),
                CUresult::CUDA_ERROR_NOT_READY => Ok(false),
                e => Err(error("cuStreamQuery", e)),
            }
        })
    }
}

impl Drop for OwnStream {
    fn drop(&mut self) {
        let destroyed = on(self.1, || {
            // SAFETY: our stream, destroyed once; the driver finishes what it has been given.
            check("cuStreamDestroy", unsafe { sys::cuStreamDestroy_v2(self.0) })
        });
        if let Err(e) = destroyed {
            tracing::debug!("{e}");
        }
    }
}

/// Bytes of a device's memory that are free, and all that it has.
pub fn memory(device: i32) -> Result<(usize, usize)> {
    on(device, || {
        let (mut free, mut total) = (0, 0);
        // SAFETY: a context is current; both numbers are writable.
        check("cuMemGetInfo", unsafe { sys::cuMemGetInfo_v2(&mut free, &mut total) })?;
        Ok((free, total))
    })
}

/// What a device calls itself.
pub fn name(device: i32) -> Result<String> {
    present()?;
    // The context keeps the driver initialised; a device without one has no name to tell either.
    context(device)?;
    let (mut handle, mut text) = (0, [0 as c_char; 256]);
    // SAFETY: the driver is initialised; `handle` is writable.
    check("cuDeviceGet", unsafe { sys::cuDeviceGet(&mut handle, device) })?;
    // SAFETY: a device of the driver; the text has that many bytes, of which the last stays NUL.
    check("cuDeviceGetName", unsafe { sys::cuDeviceGetName(text.as_mut_ptr(), 255, handle) })?;
    // SAFETY: NUL-terminated, since the last byte was never written.
    Ok(unsafe { CStr::from_ptr(text.as_ptr()) }.to_string_lossy().into_owned())
}

/// The CUDA version that the driver is made for: 13000 is 13.0.
pub fn driver_version() -> Result<i32> {
    present()?;
    let mut version = 0;
    // SAFETY: the driver is initialised; `version` is writable.
    check("cuDriverGetVersion", unsafe { sys::cuDriverGetVersion(&mut version) })?;
    Ok(version)
}
