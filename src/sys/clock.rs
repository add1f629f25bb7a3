//! Time. The only module that reads a clock for anything that is recorded or sent.

/// CLOCK_MONOTONIC in nanoseconds; the same on all processes of a machine.
pub fn monotonic_ns() -> u64 {
    let mut t = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `t` is a valid timespec to write to.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut t) };
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}

/// Microseconds since 1970, by the clock of the wall: it may jump.
pub fn unix_micros() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0, |t| u64::try_from(t.as_micros()).unwrap_or(u64::MAX))
}
