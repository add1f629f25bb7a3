//! Identities of processes and machines, reading a peer's memory, noticing a fork.

use crate::error::{Error, Result};
use crate::sync::OnceLock;
use crate::sync::atomic::{AtomicBool, Ordering};
use std::io;
use std::thread::JoinHandle;

/// This process's id, as seen in its own namespace.
pub fn pid() -> u32 {
    std::process::id()
}

/// The calling thread's id, as the kernel writes it into robust futexes.
pub fn tid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::gettid() as u32 }
}

/// The effective user.
pub fn euid() -> u32 {
    // SAFETY: no arguments, cannot fail.
    unsafe { libc::geteuid() }
}

/// What is the same for processes that can share memory and abstract sockets, and different for others: the
/// booted kernel, the network namespace, the user.
pub fn host_identity() -> Vec<u8> {
    let boot = std::fs::read("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let net = std::fs::read_link("/proc/self/ns/net").map(|p| p.into_os_string().into_encoded_bytes());
    let mut out = boot;
    out.extend(net.unwrap_or_default());
    out.extend(euid().to_le_bytes());
    out
}

/// Copies `len` bytes from address `from` of process `pid` to `to`. Answers how many bytes came.
///
/// # Safety
/// `to` is valid for writing `len` bytes.
pub unsafe fn read_memory(pid: u32, from: u64, to: *mut u8, len: usize) -> io::Result<usize> {
    let local = libc::iovec { iov_base: to.cast(), iov_len: len };
    let remote = libc::iovec { iov_base: from as usize as *mut libc::c_void, iov_len: len };
    // SAFETY: `local` is writable by this function's contract; the kernel checks `remote` in the other process.
    let n = unsafe { libc::process_vm_readv(pid as libc::pid_t, &local, 1, &remote, 1, 0) };
    if n < 0 { Err(io::Error::last_os_error()) } else { Ok(n as usize) }
}

static FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn mark_forked() {
    FORKED.store(true, Ordering::Relaxed);
}

/// Starts noticing forks: from now on [`is_forked`] is true in every child of this process.
pub fn watch_forks() {
    static ONCE: OnceLock<()> = OnceLock::new();
    ONCE.get_or_init(|| {
        // SAFETY: the handler only stores to an atomic, which is allowed between fork and exec. A failure
        // (out of memory) only loses the friendly error.
        unsafe { libc::pthread_atfork(None, None, Some(mark_forked)) };
    });
}

/// Whether this process is a fork of one that used the library: threads, links and memory are the parent's.
pub fn is_forked() -> bool {
    FORKED.load(Ordering::Relaxed)
}

/// Starts a thread of the library: named, and deaf to signals, whose handlers belong on the application's threads.
pub fn spawn(name: &str, body: impl FnOnce() + Send + 'static) -> Result<JoinHandle<()>> {
    let deaf = move || {
        // SAFETY: an all-zero set is valid to fill; changing this thread's own mask has no other effect.
        unsafe {
            let mut all: libc::sigset_t = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &all, std::ptr::null_mut());
        }
        body();
    };
    let thread = std::thread::Builder::new().name(name.into()).spawn(deaf);
    thread.map_err(|e| Error::system(&format!("starting the thread {name}"), &e))
}

/// Lets the calling thread run before busy ones of the same process; without the right to, nothing changes.
pub fn raise_thread_priority() {
    // SAFETY: plain system calls; 0 means the calling thread, on Linux for PRIO_PROCESS, too. `param` is valid to read
    // and to write.
    unsafe {
        libc::setpriority(libc::PRIO_PROCESS, 0, -10);
        // Niceness says nothing to the real-time classes, where a thread that spins keeps its processor for itself.
        let policy = libc::sched_getscheduler(0);
        let class = policy & !libc::SCHED_RESET_ON_FORK;
        let mut param: libc::sched_param = std::mem::zeroed();
        if (class == libc::SCHED_FIFO || class == libc::SCHED_RR) && libc::sched_getparam(0, &mut param) == 0
        {
            param.sched_priority = (param.sched_priority + 1).min(libc::sched_get_priority_max(class));
            libc::sched_setscheduler(0, policy, &param);
        }
    }
}

/// Processors this process may run on.
pub fn processors() -> usize {
    static N: OnceLock<usize> = OnceLock::new();
    *N.get_or_init(|| std::thread::available_parallelism().map_or(1, |n| n.get()))
}

/// The same as far as this process can tell for its neighbours, too: who has been bound to a single one was bound by a
/// launcher, which has others for the others.
pub fn processors_of_all() -> usize {
    match processors() {
        // SAFETY: no pointers.
        1 => usize::try_from(unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) }).unwrap_or(1),
        n => n,
    }
}

/// Processors' worth of time that this process's group may use, where that is less than it may run on.
pub fn quota() -> Option<usize> {
    let own: u32 = processor_set().iter().map(|word| word.count_ones()).sum();
    Some(processors()).filter(|n| *n < own as usize)
}

/// Words of a [`ProcessorSet`].
pub const SET_WORDS: usize = 12;
/// A bit for each processor; of machines with very many some share one.
pub type ProcessorSet = [u64; SET_WORDS];

/// Which processors the calling thread may run on. Empty where the kernel does not say.
pub fn processor_set() -> ProcessorSet {
    let mut set = [0; SET_WORDS];
    // SAFETY: a plain structure for which zero is valid.
    let mut all: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: `all` is writable and of the size that is given.
    if unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut all) } == 0 {
        for cpu in 0..libc::CPU_SETSIZE as usize {
            // SAFETY: below the size of the set.
            if unsafe { libc::CPU_ISSET(cpu, &all) } {
                let at = cpu % (64 * SET_WORDS);
                set[at / 64] |= 1 << (at % 64);
            }
        }
    }
    set
}

/// Gives the processor to whoever waits for it.
pub fn yield_now() {
    // SAFETY: no arguments.
    unsafe { libc::sched_yield() };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_of_the_real_time_class_is_raised_in_it() {
        let priority = std::thread::spawn(|| {
            let mut param = libc::sched_param { sched_priority: 7 };
            // SAFETY: plain system calls with a valid place.
            unsafe {
                if libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &param) != 0 {
                    println!("skipped: the real-time class is not allowed here");
                    return 8;
                }
                raise_thread_priority();
                assert_eq!(libc::sched_getparam(0, &mut param), 0);
                param.sched_priority
            }
        });
        assert_eq!(priority.join().expect("no panic"), 8);
    }

    #[test]
    fn a_bound_thread_has_one_processor() {
        let count = |set: ProcessorSet| set.iter().map(|word| word.count_ones()).sum::<u32>();
        let all = processor_set();
        assert!(count(all) >= 1);
        let bound = std::thread::spawn(move || {
            let cpu = all
                .iter()
                .enumerate()
                .find(|(_, w)| **w != 0)
                .map(|(at, w)| at * 64 + w.trailing_zeros() as usize);
            // SAFETY: a plain structure for which zero is valid, and a processor below its size.
            unsafe {
                let mut one: libc::cpu_set_t = std::mem::zeroed();
                libc::CPU_SET(cpu.unwrap(), &mut one);
                assert_eq!(libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &one), 0);
            }
            processor_set()
        });
        assert_eq!(count(bound.join().unwrap()), 1);
    }

    #[test]
    fn reads_its_own_memory_and_refuses_a_wild_address() {
        let secret = [1u8, 2, 3, 4];
        let mut out = [0u8; 4];
        // SAFETY: `out` is four bytes.
        match unsafe { read_memory(pid(), secret.as_ptr() as u64, out.as_mut_ptr(), 4) } {
            Ok(n) => assert_eq!((n, out), (4, secret)),
            Err(e) => eprintln!("skipped: process_vm_readv: {e}"),
        }
        // SAFETY: `out` is four bytes.
        assert!(unsafe { read_memory(pid(), 8, out.as_mut_ptr(), 4) }.is_err());
    }

    #[test]
    fn processes_of_one_machine_agree_on_it() {
        assert!(!host_identity().is_empty());
        assert_eq!(host_identity(), host_identity());
    }
}
