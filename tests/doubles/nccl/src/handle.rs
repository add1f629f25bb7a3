//! Communicator handles. A handle is the address of a shell that is never freed and never used twice, so that
//! a use after destroy is found out rather than undefined, as it is in NCCL.

use crate::abi::CommPointer;
use crate::comm::Comm;
use crate::record::{lock, violation};
use std::sync::atomic::{AtomicU8, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};

/// How many communicators one process can create.
const SHELLS: usize = 1 << 16;

static ALL: OnceLock<Box<[Shell]>> = OnceLock::new();
static NEXT: AtomicUsize = AtomicUsize::new(0);
static THREADS: AtomicU64 = AtomicU64::new(0);

thread_local! {
    static THREAD: u64 = THREADS.fetch_add(1, Ordering::Relaxed) + 1;
}

const LIVE: u8 = 1;
const DYING: u8 = 2;
const DEAD: u8 = 3;

/// What a handle points to.
pub struct Shell {
    state: AtomicU8,
    /// The thread that is inside a call, or zero.
    caller: AtomicU64,
    comm: Mutex<Option<Arc<Comm>>>,
}

fn all() -> &'static [Shell] {
    ALL.get_or_init(|| {
        let empty = || Shell { state: AtomicU8::new(0), caller: AtomicU64::new(0), comm: Mutex::new(None) };
        (0..SHELLS).map(|_| empty()).collect()
    })
}

/// Gives a communicator a handle; none when the process has had too many.
pub fn create(comm: &Arc<Comm>) -> Option<&'static Shell> {
    let shell = all().get(NEXT.fetch_add(1, Ordering::Relaxed))?;
    *lock(&shell.comm) = Some(comm.clone());
    // Release: who finds the shell live finds its communicator.
    shell.state.store(LIVE, Ordering::Release);
    Some(shell)
}

/// The shell of a pointer that came from C, if it is one.
pub fn find(pointer: CommPointer) -> Option<&'static Shell> {
    let all = ALL.get()?;
    let offset = pointer.addr().checked_sub(all.as_ptr().addr())?;
    if !offset.is_multiple_of(size_of::<Shell>()) {
        return None;
    }
    let shell = all.get(offset / size_of::<Shell>())?;
    (shell.state.load(Ordering::Acquire) != 0).then_some(shell)
}

impl Shell {
    /// The handle.
    pub fn pointer(&self) -> CommPointer {
        std::ptr::from_ref(self).cast_mut().cast()
    }

    /// The communicator's number in this process.
    pub fn number(&self) -> i64 {
        let offset = std::ptr::from_ref(self).addr() - all().as_ptr().addr();
        (offset / size_of::<Shell>()) as i64
    }

    /// Whether the communicator has been neither destroyed nor aborted.
    pub fn is_live(&self) -> bool {
        self.state.load(Ordering::Acquire) == LIVE
    }

    /// The communicator, unless it is gone.
    pub fn comm(&self) -> Option<Arc<Comm>> {
        lock(&self.comm).clone()
    }

    /// From now on every use is a misuse. False when that was so already.
    pub fn doom(&self) -> bool {
        self.state.compare_exchange(LIVE, DYING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Lets go of the communicator.
    pub fn bury(&self) {
        self.state.store(DEAD, Ordering::Release);
        lock(&self.comm).take();
    }
}

/// Marks that a thread is inside a call on a communicator, and notices when another one is.
pub struct Inside(Option<&'static Shell>);

impl Inside {
    /// Enters. A thread may enter again what it is inside of.
    pub fn enter(shell: &'static Shell, name: &str) -> Inside {
        let me = THREAD.with(|thread| *thread);
        // Relaxed: this only detects misuse, it protects nothing.
        match shell.caller.compare_exchange(0, me, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => Inside(Some(shell)),
            Err(other) if other == me => Inside(None),
            Err(_) => {
                let number = shell.number();
                violation(&format!("{name}: another thread is inside a call on communicator {number}"));
                Inside(None)
            }
        }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        if let Some(shell) = self.0 {
            shell.caller.store(0, Ordering::Relaxed);
        }
    }
}
