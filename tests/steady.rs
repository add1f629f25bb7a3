//! What a small operation asks of the kernel and of the allocator once it has been called before: nothing.
//!
//! Both ranks of a world belong to one thread, which sends and then receives: nothing is ever waited for, so that the
//! counts do not depend on the machine. A message between two regions of memory from mwMemAlloc is not over when it has
//! been sent, so there the thread has the two endpoints themselves.

use multiworld::config::{Config, TransportChoice};
use multiworld::transport::shm::endpoint::Wiring;
use multiworld::transport::shm::{Neighbour, Segment, ShmEndpoint, region};
use multiworld::transport::{Endpoint, Progress, RecvMsg, SendMsg, Sink};
use multiworld::types::{DataType, Fingerprint, OpKind, RedOp, Reduction};
use multiworld::world::{Call, World};
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

const ROUNDS: usize = 1000;

thread_local! {
    static COUNTED: Cell<bool> = const { Cell::new(false) };
}
static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static SYSTEM_CALLS: AtomicU64 = AtomicU64::new(0);
static LAST_SYSTEM_CALL: AtomicU64 = AtomicU64::new(0);

/// Counts what the thread that is looked at asks for.
struct Counting;

// SAFETY: the system's allocator does the work.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if COUNTED.try_with(Cell::get).unwrap_or(false) {
            ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        }
        // SAFETY: the caller's contract.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract.
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn message(buffer: &mut [u8], send: bool) -> Call {
    Call {
        kind: OpKind::PointToPoint,
        send,
        sendbuf: buffer.as_ptr(),
        recvbuf: buffer.as_mut_ptr(),
        count: buffer.len(),
        dtype: DataType::Uint8,
        reduction: Reduction::Builtin(RedOp::Sum),
        peer: i32::from(send),
        stream: std::ptr::null_mut(),
        scalar_on_device: false,
    }
}

fn exchange(worlds: &[Arc<World>], buffers: &mut [Vec<u8>; 2]) {
    let [from, to] = buffers;
    worlds[0].run(&message(from, true)).unwrap();
    worlds[1].run(&message(to, false)).unwrap();
    assert_eq!(from, to);
    from[0] = from[0].wrapping_add(1);
}

extern "C" fn count_system_call(_signal: i32, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    SYSTEM_CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the kernel's description of the signal. For SIGSYS the number of the call is an int behind the address.
    let number = unsafe { *info.cast::<i32>().add(6) };
    LAST_SYSTEM_CALL.store(number as u64, Ordering::Relaxed);
}

/// From here on every system call of this thread is a signal instead, its last one included: it cannot even end.
fn trap_system_calls() {
    let statement = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut filter = [
        // The number of the call; the way back from a signal handler is one, too.
        statement(0x20, 0, 0, 0),
        statement(0x15, 1, 0, libc::SYS_rt_sigreturn as u32),
        statement(0x06, 0, 0, libc::SECCOMP_RET_TRAP),
        statement(0x06, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the handler only touches atomics; the program is valid while the call lasts.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = count_system_call as *const () as usize;
        action.sa_flags = libc::SA_SIGINFO;
        assert_eq!(libc::sigaction(libc::SIGSYS, &action, std::ptr::null_mut()), 0);
        assert_eq!(libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), 0);
        let set = libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program);
        assert_eq!(set, 0, "{}", std::io::Error::last_os_error());
    }
}

/// Runs `round` until all is settled, and then once more in a thread that is looked at.
fn expect_nothing(mut round: impl FnMut() + Send + 'static) {
    let done = Arc::new(AtomicBool::new(false));
    let tell = done.clone();
    std::thread::spawn(move || {
        round();
        trap_system_calls();
        COUNTED.set(true);
        round();
        COUNTED.set(false);
        tell.store(true, Ordering::Release);
        loop {
            std::hint::spin_loop();
        }
    });
    let until = Instant::now() + Duration::from_secs(60);
    while !done.load(Ordering::Acquire) {
        assert!(Instant::now() < until, "the thread hangs, or has panicked");
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), 0, "allocations");
    let last = LAST_SYSTEM_CALL.load(Ordering::Relaxed);
    assert_eq!(SYSTEM_CALLS.load(Ordering::Relaxed), 0, "system calls, the last one number {last}");
}

#[test]
fn a_small_message_allocates_nothing_and_makes_no_system_call() {
    let config =
        Config { transport: TransportChoice::Shm, ifname: Some("lo".into()), ..Config::from_env().unwrap() };
    let worlds = World::init_all(2, &config).unwrap();
    let mut sizes: Vec<[Vec<u8>; 2]> =
        [8, 100, 4096, 16 << 10].iter().map(|n| [vec![7; *n], vec![0; *n]]).collect();
    expect_nothing(move || {
        for buffers in &mut sizes {
            (0..ROUNDS).for_each(|_| exchange(&worlds, buffers));
        }
    });
}

#[test]
fn a_message_between_regions_allocates_nothing_and_makes_no_system_call() {
    const LONGEST: usize = 9 << 20;
    let (segment, _) = Segment::create(2, true).unwrap();
    let wiring = |me, peer| {
        let (segment, neighbour) = (segment.clone(), Neighbour::own());
        Wiring { segment, me, peer, direct: true, doorbell: None, neighbour }
    };
    segment.introduce(0);
    segment.introduce(1);
    let (mut a, mut b) = (ShmEndpoint::new(wiring(0, 1)), ShmEndpoint::new(wiring(1, 0)));
    // Addresses are numbers, so that the thread can have them; the memory is never freed.
    let sizes = [1024, 5000, 40_000, 400_000, LONGEST];
    let [from, to] = [(); 2].map(|()| region::allocate(LONGEST, true).unwrap().as_ptr().expose_provenance());
    let fp = Fingerprint {
        kind: OpKind::PointToPoint,
        dtype: 1,
        redop: Fingerprint::NO_REDOP,
        root: -1,
        seq: 0,
        count: 1,
    };
    expect_nothing(move || {
        for len in sizes {
            for round in 0..ROUNDS / 20 {
                let (from, to) = (
                    std::ptr::with_exposed_provenance_mut::<u8>(from),
                    std::ptr::with_exposed_provenance_mut::<u8>(to),
                );
                let mut out = SendMsg::new(fp, from, len);
                let mut inn = RecvMsg::new(fp, Sink::Copy(to), len);
                // SAFETY: both are as long as the longest message and live for ever.
                unsafe {
                    from.add(len - 1).write(round as u8);
                    assert!(matches!(a.send(&mut out), Ok(Progress::Posted)));
                    while !matches!(b.recv(&mut inn), Ok(Progress::Done)) {
                        assert!(matches!(a.reap(), Ok(0)));
                    }
                    assert!(matches!(a.reap(), Ok(1)));
                    a.flush();
                    b.flush();
                    assert_eq!(to.add(len - 1).read(), round as u8);
                }
            }
        }
    });
}
