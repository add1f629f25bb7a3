//! Private files, locks on their bytes that end with their holder, and news of them.

use std::ffi::CString;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

/// How to open a file of our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Open {
    /// One that exists, to read and to append.
    Append,
    /// To read and to write; it is made if it does not exist.
    Shared,
    /// To write; it must not exist.
    New,
}

/// Opens a file that nobody but its owner may read. A link in its place is refused.
pub fn open_private(path: &Path, how: Open) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC);
    match how {
        Open::Append => options.read(true).append(true),
        Open::Shared => options.read(true).write(true).create(true).truncate(false),
        Open::New => options.write(true).create_new(true),
    };
    options.open(path)
}

/// Makes a folder that nobody but its owner may look into.
pub fn make_private_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(path)
}

/// Takes the lock on the byte at `at`, which needs no data there, for this opening of the file: the kernel gives
/// it back when the last descriptor of it is closed, however its process ends. False when another has it.
pub fn lock_byte(file: &File, at: u64) -> io::Result<bool> {
    match control(file, libc::F_OFD_SETLK, libc::F_WRLCK, at) {
        Ok(_) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Gives back the lock on the byte at `at`.
pub fn unlock_byte(file: &File, at: u64) -> io::Result<()> {
    control(file, libc::F_OFD_SETLK, libc::F_UNLCK, at).map(drop)
}

/// Whether another opening of the file holds the lock on the byte at `at`.
pub fn is_locked(file: &File, at: u64) -> io::Result<bool> {
    Ok(control(file, libc::F_OFD_GETLK, libc::F_WRLCK, at)? != libc::F_UNLCK)
}

fn control(file: &File, command: i32, kind: i32, at: u64) -> io::Result<i32> {
    let at = i64::try_from(at).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: all zeroes is a valid flock; the kernel wants l_pid to be zero.
    let mut lock: libc::flock = unsafe { MaybeUninit::zeroed().assume_init() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = at;
    lock.l_len = 1;
    // SAFETY: `lock` outlives the call; the descriptor is open while it is borrowed.
    let rc = unsafe { libc::fcntl(file.as_raw_fd(), command, &raw mut lock) };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(i32::from(lock.l_type)) }
}

/// Whether the file lies on a file system of another machine, where appending and news do not work as here.
pub fn is_remote(file: &File) -> io::Result<bool> {
    let mut about = MaybeUninit::<libc::statfs>::zeroed();
    // SAFETY: `about` has room for the answer; the descriptor is open while it is borrowed.
    if unsafe { libc::fstatfs(file.as_raw_fd(), about.as_mut_ptr()) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: filled by the call above, and valid as zeroes, too.
    let kind = unsafe { about.assume_init() }.f_type as u32;
    // NFS, SMB, SMB2, CIFS, AFS, Ceph, Coda, Lustre, GPFS.
    const REMOTE: [u32; 9] = [
        0x6969,
        0x517B,
        0xFE53_4D42,
        0xFF53_4D42,
        0x5346_414F,
        0x00C3_6400,
        0x7375_7245,
        0x0BD0_0BD0,
        0x4750_4653,
    ];
    Ok(REMOTE.contains(&kind))
}

/// What [`News`] tells of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum About {
    /// Somebody has written to it.
    Written,
    /// Somebody who could write to it has closed it.
    Closed,
}

/// A descriptor that is readable after something has happened to one of some files.
#[derive(Debug)]
pub struct News {
    fd: OwnedFd,
}

impl News {
    /// Of no file yet. The system allows a user only so many.
    pub fn new() -> io::Result<News> {
        // SAFETY: takes no pointers.
        let fd = unsafe { libc::inotify_init1(libc::IN_CLOEXEC | libc::IN_NONBLOCK) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the call above has just opened it; nobody else owns it.
        Ok(News { fd: unsafe { OwnedFd::from_raw_fd(fd) } })
    }

    /// Begins to tell of a file.
    pub fn of(&self, path: &Path, about: About) -> io::Result<()> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mask = match about {
            About::Written => libc::IN_MODIFY,
            About::Closed => libc::IN_CLOSE_WRITE,
        };
        // SAFETY: `path` is a string with its end, and outlives the call.
        let rc = unsafe { libc::inotify_add_watch(self.fd.as_raw_fd(), path.as_ptr(), mask) };
        if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Takes what there is; answers whether somebody has closed a file.
    pub fn take(&self) -> io::Result<bool> {
        const HEADER: usize = size_of::<libc::inotify_event>();
        let mut closed = false;
        let mut buffer = [0u8; 4096];
        loop {
            // SAFETY: `buffer` is writable for its length during the call.
            let n = unsafe { libc::read(self.fd.as_raw_fd(), buffer.as_mut_ptr().cast(), buffer.len()) };
            let Ok(n) = usize::try_from(n) else {
                match io::Error::last_os_error() {
                    e if e.kind() == io::ErrorKind::WouldBlock => return Ok(closed),
                    e if e.kind() == io::ErrorKind::Interrupted => continue,
                    e => return Err(e),
                }
            };
            let mut rest = buffer.get(..n).unwrap_or_default();
            while let Some(header) = rest.get(..HEADER) {
                let word =
                    |at| header.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_ne_bytes);
                let mask = word(std::mem::offset_of!(libc::inotify_event, mask)).unwrap_or(0);
                let name = word(std::mem::offset_of!(libc::inotify_event, len)).unwrap_or(0);
                // News that were too many for the kernel to keep may have been of anything.
                closed |= mask & (libc::IN_CLOSE_WRITE | libc::IN_Q_OVERFLOW) != 0;
                rest = rest.get(HEADER + name as usize..).unwrap_or_default();
            }
        }
    }
}

impl AsFd for News {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poll::{Interest, wait_fd};
    use std::io::Write;
    use std::time::{Duration, Instant};

    #[test]
    fn locks_end_with_their_opening_and_news_come() {
        let folder = std::env::temp_dir().join(format!("mw-file-{}", std::process::id()));
        make_private_folder(&folder).unwrap();
        let path = folder.join("a");
        let (mut one, two) =
            (open_private(&path, Open::Shared).unwrap(), open_private(&path, Open::Shared).unwrap());
        let far = 1 << 62;
        assert!(lock_byte(&one, far).unwrap());
        assert!(!lock_byte(&two, far).unwrap() && is_locked(&two, far).unwrap());
        assert!(!is_locked(&one, far).unwrap(), "one's own lock is no other's");
        assert!(!is_locked(&two, far + 1).unwrap());
        assert!(lock_byte(&two, u64::MAX).is_err());

        let news = News::new().unwrap();
        news.of(&path, About::Written).unwrap();
        assert!(!news.take().unwrap());
        one.write_all(b"x").unwrap();
        assert!(wait_fd(&news, Interest::READ, Instant::now() + Duration::from_secs(5)).unwrap());
        assert!(!news.take().unwrap());
        news.of(&path, About::Closed).unwrap();
        drop(one);
        assert!(news.take().unwrap());
        assert!(!is_locked(&two, far).unwrap());
        assert!(!is_remote(&two).unwrap());
        assert!(open_private(&path, Open::New).is_err());
        std::os::unix::fs::symlink(&path, folder.join("b")).unwrap();
        assert!(open_private(&folder.join("b"), Open::Shared).is_err());
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
