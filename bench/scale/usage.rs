//! What a process uses, as the kernel tells.

use crate::calls::Result;
use std::fs::read_to_string;
use std::mem::size_of;

fn read(path: &str) -> Result<String> {
    read_to_string(path).map_err(|e| format!("{path}: {e}"))
}

/// The number behind the first line that begins with `name:`.
fn number(text: &str, name: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.split_once(':'));
    let value = lines.find(|(key, _)| *key == name).and_then(|(_, value)| value.split_whitespace().next());
    value.and_then(|value| value.parse().ok()).unwrap_or(0)
}

/// KiB of memory, page tables included: this process's share of what it shares. And its threads.
pub fn memory_and_threads() -> Result<(u64, u64)> {
    let (shares, status) = (read("/proc/self/smaps_rollup")?, read("/proc/self/status")?);
    Ok((number(&shares, "Pss") + number(&status, "VmPTE"), number(&status, "Threads")))
}

/// Nanoseconds on a processor so far of all threads whose names begin so.
pub fn thread_time(name: &str) -> Result<u64> {
    let tasks = std::fs::read_dir("/proc/self/task").map_err(|e| format!("/proc/self/task: {e}"))?;
    let mut sum = 0;
    for task in tasks.flatten() {
        // A thread may end while it is looked at.
        let text = |file| read_to_string(task.path().join(file)).unwrap_or_default();
        if text("comm").starts_with(name) {
            sum += text("schedstat").split_whitespace().next().and_then(|ns| ns.parse().ok()).unwrap_or(0);
        }
    }
    Ok(sum)
}

/// Binds the calling thread to one of the processors it may use, by number from 0; not when there are fewer.
pub fn bind(number: usize) -> Result<()> {
    let failed = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    // SAFETY: all zeros is an empty set; both calls get a set and its size, and the macros a set and a number below
    // that of its bits.
    unsafe {
        let mut allowed: libc::cpu_set_t = std::mem::zeroed();
        if libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut allowed) != 0 {
            return Err(failed("sched_getaffinity"));
        }
        let mut all = (0..libc::CPU_SETSIZE as usize).filter(|cpu| libc::CPU_ISSET(*cpu, &allowed));
        let Some(cpu) = all.nth(number) else { return Ok(()) };
        let mut own: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(cpu, &mut own);
        match libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &own) {
            0 => Ok(()),
            _ => Err(failed("sched_setaffinity")),
        }
    }
}

/// Asks to be killed with the process that started this one.
pub fn end_with_parent() {
    // SAFETY: plain system call.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}
