//! The memory that operations work on: pages of the host, the library's, or a device's.

use crate::api::{self, Failure, Result};
use multiworld::nccl::cuda::memory::{Buffer, OwnStream};
use std::alloc::{Layout, alloc, dealloc};
use std::ptr::NonNull;
use std::sync::Arc;

/// Buffers begin at a page.
const PAGE: usize = 4096;

/// Where memory comes from.
#[derive(Clone)]
pub enum Source {
    Host,
    /// mwMemAlloc.
    Registered,
    Device {
        device: i32,
        stream: Arc<OwnStream>,
    },
}

/// A buffer, all of it touched.
pub enum Memory {
    Host(Pages),
    Device { buffer: Buffer, stream: Arc<OwnStream> },
}

/// Whole pages.
pub struct Pages {
    start: NonNull<u8>,
    /// How the allocator was asked; `None` when they are mwMemAlloc's.
    layout: Option<Layout>,
    len: usize,
}

impl Pages {
    fn new(len: usize) -> Result<Pages> {
        let none = || Failure::new(format!("there are no {len} bytes of memory for a buffer"));
        let room = len.max(1).checked_next_multiple_of(PAGE).ok_or_else(none)?;
        let layout = Layout::from_size_align(room, PAGE).map_err(|_| none())?;
        // SAFETY: the size is not zero.
        let start = NonNull::new(unsafe { alloc(layout) }).ok_or_else(none)?;
        // SAFETY: `room` bytes that are nobody else's.
        unsafe { start.as_ptr().write_bytes(1, room) };
        Ok(Pages { start, layout: Some(layout), len })
    }

    fn registered(len: usize) -> Result<Pages> {
        let start = api::allocate(len)?;
        // SAFETY: so many bytes that are nobody else's.
        unsafe { start.as_ptr().write_bytes(1, len) };
        Ok(Pages { start, layout: None, len })
    }

    fn bytes(&mut self) -> &mut [u8] {
        // SAFETY: `len` bytes, initialised by `new`; borrowed as this is, and operations on them are over before
        // anybody asks for the contents.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        match self.layout {
            // SAFETY: from `alloc` with this layout.
            Some(layout) => unsafe { dealloc(self.start.as_ptr(), layout) },
            // SAFETY: from mwMemAlloc, and no operation uses it any more.
            None => unsafe { api::release(self.start) },
        }
    }
}

impl Source {
    /// A buffer of so many bytes.
    pub fn take(&self, len: usize) -> Result<Memory> {
        match self {
            Source::Host => Pages::new(len).map(Memory::Host),
            Source::Registered => Pages::registered(len).map(Memory::Host),
            Source::Device { device, stream } => {
                Ok(Memory::Device { buffer: Buffer::new(*device, len)?, stream: Arc::clone(stream) })
            }
        }
    }

    /// Waits for what operations have put on the stream; on the host they are over when they return.
    pub fn settle(&self) -> Result<()> {
        match self {
            Source::Host | Source::Registered => Ok(()),
            Source::Device { stream, .. } => Ok(stream.synchronize()?),
        }
    }
}

impl Memory {
    /// Where it begins, as operations take it.
    pub fn start(&self) -> *mut u8 {
        match self {
            Memory::Host(pages) => pages.start.as_ptr(),
            Memory::Device { buffer, .. } => buffer.address(),
        }
    }

    /// Changes its contents, while no operation uses it.
    pub fn change(&mut self, body: impl FnOnce(&mut [u8])) -> Result<()> {
        match self {
            Memory::Host(pages) => body(pages.bytes()),
            Memory::Device { buffer, stream } => {
                let mut staged = vec![0; buffer.len()];
                body(&mut staged);
                buffer.write(0, &staged, stream)?;
            }
        }
        Ok(())
    }

    /// Looks at its contents, while no operation uses it.
    pub fn look<R>(&mut self, body: impl FnOnce(&[u8]) -> R) -> Result<R> {
        match self {
            Memory::Host(pages) => Ok(body(pages.bytes())),
            Memory::Device { buffer, stream } => {
                let mut staged = vec![0; buffer.len()];
                buffer.read(0, &mut staged, stream)?;
                Ok(body(&staged))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_begin_at_a_page_and_keep_what_is_written() {
        for source in [Source::Host, Source::Registered] {
            let mut memory = source.take(5000).unwrap();
            assert_eq!(memory.start().addr() % PAGE, 0);
            memory.change(|bytes| bytes.fill(7)).unwrap();
            assert_eq!(memory.look(|bytes| bytes.to_vec()).unwrap(), [7; 5000]);
            assert!(source.take(0).is_ok());
            assert!(source.take(usize::MAX).is_err());
        }
    }
}
