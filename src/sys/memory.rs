//! Shared memory without a name: nothing is left behind by any kind of death.

use super::socket;
use crate::error::{Error, Result};
use crate::sync::atomic::{AtomicBool, Ordering};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

/// A mapping shared between processes. Zeroed when created; its size can never change. It keeps no descriptor: a
/// process in hundreds of worlds has hundreds of mappings.
#[derive(Debug)]
pub struct SharedMemory {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping stays where it is until drop; what users do with the bytes is their own affair.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

fn check(rc: libc::c_int) -> io::Result<libc::c_int> {
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(rc) }
}

fn memfd(name: &CStr) -> io::Result<OwnedFd> {
    // SAFETY: `name` is a C string; the descriptor that comes back is ours alone.
    unsafe {
        let fd = check(libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// A file in /dev/shm that never had a name, for kernels and sandboxes without memfd_create.
fn unnamed_file() -> io::Result<OwnedFd> {
    // SAFETY: the path is a C string; the descriptor that comes back is ours alone.
    unsafe {
        let flags = libc::O_TMPFILE | libc::O_RDWR | libc::O_EXCL | libc::O_CLOEXEC;
        Ok(OwnedFd::from_raw_fd(check(libc::open(c"/dev/shm".as_ptr(), flags, 0o600))?))
    }
}

/// Which file a descriptor is of. No two that exist at the same time are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Its device.
    pub device: u64,
    /// Its number there.
    pub inode: u64,
}

fn stat(fd: BorrowedFd<'_>) -> Result<libc::stat> {
    // SAFETY: an all-zero stat is a valid value to write to, and the descriptor is open.
    unsafe {
        let mut st: libc::stat = std::mem::zeroed();
        check(libc::fstat(fd.as_raw_fd(), &mut st))
            .map_err(|e| Error::system("fstat of shared memory", &e))?;
        Ok(st)
    }
}

/// Which file a descriptor is of.
pub fn identity(fd: BorrowedFd<'_>) -> Result<Identity> {
    stat(fd).map(|st| Identity { device: st.st_dev, inode: st.st_ino })
}

/// How memory that others map is mapped.
const SHARED: libc::c_int = libc::MAP_SHARED | libc::MAP_NORESERVE;

impl SharedMemory {
    /// New zeroed memory of `len` bytes (pages are taken when they are touched), and the descriptor to send to
    /// the peers that will map it. With `use_memfd` false, or where
    /// memfd_create does not work, an unnamed file in /dev/shm serves.
    pub fn create(name: &CStr, len: usize, use_memfd: bool) -> Result<(SharedMemory, OwnedFd)> {
        SharedMemory::create_reserved(name, len, use_memfd, false)
    }

    /// As [`SharedMemory::create`], for as much as a caller asks for: what has to come from /dev/shm, whose room is
    /// limited, is taken at once, since it would be missed with a fatal signal later.
    pub fn create_large(name: &CStr, len: usize, use_memfd: bool) -> Result<(SharedMemory, OwnedFd)> {
        SharedMemory::create_reserved(name, len, use_memfd, true)
    }

    fn create_reserved(
        name: &CStr,
        len: usize,
        use_memfd: bool,
        reserve: bool,
    ) -> Result<(SharedMemory, OwnedFd)> {
        static SAID: AtomicBool = AtomicBool::new(false);
        let (fd, limited) = match if use_memfd { memfd(name) } else { Err(io::ErrorKind::Unsupported.into()) }
        {
            Ok(fd) => (fd, false),
            // A file would need a descriptor, too.
            Err(why) if socket::is_exhausted(&why) => return Err(Error::system("memfd_create", &why)),
            Err(why) => {
                if !SAID.swap(true, Ordering::Relaxed) {
                    tracing::warn!("memfd_create: {why}; using unnamed files in /dev/shm");
                }
                (unnamed_file().map_err(|e| Error::system("open(/dev/shm, O_TMPFILE)", &e))?, true)
            }
        };
        let size = libc::off_t::try_from(len).map_err(|_| Error::internal("shared memory too large"))?;
        // SAFETY: plain system call on our own descriptor.
        check(unsafe { libc::ftruncate(fd.as_raw_fd(), size) })
            .map_err(|e| Error::system("ftruncate of shared memory", &e))?;
        if reserve && limited {
            // SAFETY: as above.
            let rc = unsafe { libc::posix_fallocate(fd.as_raw_fd(), 0, size) };
            if rc != 0 {
                return Err(Error::system("room in /dev/shm", &io::Error::from_raw_os_error(rc)));
            }
        }
        // A peer that shrank the file would turn our next access into SIGBUS. Unnamed files cannot be sealed;
        // there the peer is trusted as far as the shared secret goes.
        // SAFETY: plain system call on our own descriptor; failure is tolerated as said.
        unsafe {
            libc::fcntl(
                fd.as_raw_fd(),
                libc::F_ADD_SEALS,
                libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL,
            );
        }
        let access = libc::PROT_READ | libc::PROT_WRITE;
        Ok((SharedMemory::map_as(access, SHARED, fd.as_raw_fd(), len)?, fd))
    }

    /// Maps memory that a peer sent. Fails when it is not exactly `len` bytes.
    pub fn open(fd: OwnedFd, len: usize) -> Result<SharedMemory> {
        SharedMemory::open_as(libc::PROT_READ | libc::PROT_WRITE, &fd, len)
    }

    /// The same for memory that is only read.
    pub fn open_to_read(fd: OwnedFd, len: usize) -> Result<SharedMemory> {
        SharedMemory::open_as(libc::PROT_READ, &fd, len)
    }

    fn open_as(access: libc::c_int, fd: &OwnedFd, len: usize) -> Result<SharedMemory> {
        let size = stat(fd.as_fd())?.st_size;
        if u64::try_from(size).ok() != Some(len as u64) {
            return Err(Error::internal(format!(
                "a peer sent {size} bytes of shared memory instead of {len}"
            )));
        }
        SharedMemory::map_as(access, SHARED, fd.as_raw_fd(), len)
    }

    /// New zeroed memory of `len` bytes that no other process can map, with all that is said of a mapping otherwise.
    pub fn private(len: usize) -> Result<SharedMemory> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        SharedMemory::map_as(libc::PROT_READ | libc::PROT_WRITE, flags, -1, len)
    }

    /// Asks for huge pages, where the system gives them to who asks. Elsewhere nothing changes.
    pub fn prefer_huge_pages(&self) {
        // SAFETY: exactly the mapping made in `map_as`; advice changes no contents.
        unsafe { libc::madvise(self.base.as_ptr().cast(), self.len, libc::MADV_HUGEPAGE) };
    }

    fn map_as(access: libc::c_int, flags: libc::c_int, fd: libc::c_int, len: usize) -> Result<SharedMemory> {
        // SAFETY: a fresh mapping chosen by the kernel.
        let p = unsafe { libc::mmap(std::ptr::null_mut(), len, access, flags, fd, 0) };
        if p == libc::MAP_FAILED {
            return Err(Error::system("mmap of shared memory", &io::Error::last_os_error()));
        }
        let base = NonNull::new(p.cast()).ok_or_else(|| Error::internal("mmap returned NULL"))?;
        // A forked child must not be able to disturb the parent's worlds.
        // SAFETY: exactly the mapping just made.
        unsafe { libc::madvise(p, len, libc::MADV_DONTFORK) };
        Ok(SharedMemory { base, len })
    }

    /// First byte; page-aligned.
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Never: the size is at least one byte.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `map_as`; whoever holds references into it holds this value too.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_are_shared_and_checked_for_size() {
        for use_memfd in [true, false] {
            let (a, fd) = SharedMemory::create(c"mw-test", 8192, use_memfd).unwrap();
            assert!(SharedMemory::open(fd.try_clone().unwrap(), 4096).is_err());
            let b = SharedMemory::open(fd, 8192).unwrap();
            // SAFETY: both mappings are 8192 bytes long and only this thread uses them.
            unsafe {
                a.base().as_ptr().add(8191).write_volatile(42);
                assert_eq!(b.base().as_ptr().add(8191).read_volatile(), 42);
            }
        }
    }
}
