//! A cable between two machines that delays, loses and holds back what passes through it, as netem and tbf would where the
//! kernel has them: two tap devices, and a thread per direction that carries frames from one to the other.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// What a direction does to frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct Quality {
    /// Nothing comes through.
    pub is_cut: bool,
    /// On the way.
    pub delay: Duration,
    /// Of a thousand frames so many are lost.
    pub loss: u64,
    /// Bytes per second and bytes that may wait for their turn.
    pub rate: Option<(u64, u64)>,
}

/// Both directions. The second one leads away from the machine.
pub struct Cable {
    qualities: [Arc<Mutex<Quality>>; 2],
    dropped: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

/// A direction of a cable.
#[derive(Clone, Copy)]
pub enum To {
    Machine,
    Others,
}

/// A tap device in the namespace of the calling thread. What the kernel sends through it has its checksums and is no
/// longer than a frame: nobody has asked for more.
pub fn tap(name: &str) -> io::Result<OwnedFd> {
    let path = CString::new("/dev/net/tun").expect("no NUL");
    // SAFETY: the path ends with a NUL.
    let fd = unsafe { libc::open(path.as_ptr(), libc::O_RDWR | libc::O_CLOEXEC | libc::O_NONBLOCK) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call above has just opened it.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all zeroes is a valid ifreq; its name is shorter than its place; the kernel reads and writes an ifreq.
    let rc = unsafe {
        let mut request: libc::ifreq = std::mem::zeroed();
        for (to, from) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
        libc::ioctl(fd.as_raw_fd(), libc::TUNSETIFF, &raw mut request)
    };
    if rc < 0 { Err(io::Error::last_os_error()) } else { Ok(fd) }
}

impl Cable {
    pub fn new(machine: OwnedFd, others: OwnedFd) -> Cable {
        let (machine, others) = (Arc::new(File::from(machine)), Arc::new(File::from(others)));
        let cable = Cable { qualities: Default::default(), dropped: Arc::default(), over: Arc::default() };
        for (to, from, into) in [(0, &others, &machine), (1, &machine, &others)] {
            let (from, into) = (from.clone(), into.clone());
            let quality = cable.qualities[to].clone();
            let (dropped, over) = (cable.dropped.clone(), cable.over.clone());
            std::thread::spawn(move || {
                multiworld::sys::process::raise_thread_priority();
                carry(&from, &into, &quality, &dropped, &over);
            });
        }
        cable
    }

    pub fn set(&self, to: To, quality: Quality) {
        *self.qualities[to as usize].lock().expect("the quality") = quality;
    }

    pub fn set_both(&self, quality: Quality) {
        self.set(To::Machine, quality);
        self.set(To::Others, quality);
    }

    pub fn cut(&self, to: To) {
        self.set(to, Quality { is_cut: true, ..Quality::default() });
    }

    /// Frames that did not come through.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }
}

impl Drop for Cable {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
    }
}

fn carry(mut from: &File, mut into: &File, quality: &Mutex<Quality>, dropped: &AtomicU64, over: &AtomicBool) {
    let mut queue: VecDeque<(Instant, Vec<u8>)> = VecDeque::new();
    let mut frame = [0; 1 << 16];
    // When the last frame that was taken in has passed the narrowest place.
    let mut free = Instant::now();
    let mut dice = 0x9e37_79b9_7f4a_7c15_u64;
    while !over.load(Ordering::Relaxed) {
        let now = Instant::now();
        while queue.front().is_some_and(|(due, _)| *due <= now)
            && let Some((_, frame)) = queue.pop_front()
        {
            // A device that is down takes nothing.
            if into.write(&frame).is_err() {
                dropped.fetch_add(1, Ordering::Relaxed);
            }
        }
        match from.read(&mut frame) {
            Ok(n) => {
                let q = *quality.lock().expect("the quality");
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                free = free.max(now);
                let waits = free - now;
                let is_full =
                    q.rate.is_some_and(|(rate, room)| waits.as_secs_f64() * rate as f64 > room as f64);
                if q.is_cut || is_full || (dice >> 16) % 1000 < q.loss {
                    dropped.fetch_add(1, Ordering::Relaxed);
                    continue;
                }
                if let Some((rate, _)) = q.rate {
                    free += Duration::from_secs_f64(n as f64 / rate as f64);
                }
                queue.push_back((free + q.delay, frame[..n].to_vec()));
            }
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                let until = queue.front().map_or(now + Duration::from_millis(50), |(due, _)| *due);
                sleep(from, until.saturating_duration_since(Instant::now()));
            }
            // Down; it may come up again.
            Err(_) => std::thread::sleep(Duration::from_millis(1)),
        }
    }
}

/// Until a frame has come, or for so long.
fn sleep(from: &File, left: Duration) {
    let mut poll = libc::pollfd { fd: from.as_raw_fd(), events: libc::POLLIN, revents: 0 };
    let left = libc::timespec { tv_sec: left.as_secs() as _, tv_nsec: left.subsec_nanos() as _ };
    // SAFETY: one pollfd and a timespec, both live; no signal mask.
    unsafe { libc::ppoll(&raw mut poll, 1, &raw const left, std::ptr::null()) };
}
