//! The recipe carried out on a table of functions that do as a test says.

use super::*;
use crate::sync::atomic::{AtomicBool, AtomicU32};
use core::ffi::c_int;

/// What stands behind a handle.
#[derive(Default)]
struct Script {
    asynchronous: AtomicU32,
    hang_in_asking: AtomicBool,
    hang_in_abort: AtomicBool,
    hang_in_revoke: AtomicBool,
    revoked: AtomicU32,
    aborted: AtomicU32,
    destroyed: AtomicU32,
    finalized: AtomicU32,
}

thread_local! {
    /// Aborts of this thread's open group.
    static GROUP: core::cell::Cell<Option<u32>> = const { core::cell::Cell::new(None) };
}

static LARGEST_GROUP: AtomicU32 = AtomicU32::new(0);

fn script(comm: ncclComm_t) -> &'static Script {
    // SAFETY: every handle of these tests is a leaked script.
    unsafe { &*comm.cast::<Script>() }
}

fn wait_while(flag: &AtomicBool) {
    while flag.load(Ordering::Acquire) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

unsafe extern "C" fn get_async_error(comm: ncclComm_t, error: *mut ncclResult_t) -> ncclResult_t {
    wait_while(&script(comm).hang_in_asking);
    // SAFETY: the caller's variable.
    unsafe { *error = script(comm).asynchronous.load(Ordering::Relaxed) };
    ncclSuccess
}

unsafe extern "C" fn revoke(comm: ncclComm_t, _flags: c_int) -> ncclResult_t {
    script(comm).revoked.fetch_add(1, Ordering::Relaxed);
    wait_while(&script(comm).hang_in_revoke);
    ncclSuccess
}

unsafe extern "C" fn abort(comm: ncclComm_t) -> ncclResult_t {
    if let Some(n) = GROUP.get() {
        GROUP.set(Some(n + 1));
    }
    wait_while(&script(comm).hang_in_abort);
    script(comm).aborted.fetch_add(1, Ordering::Relaxed);
    ncclSuccess
}

unsafe extern "C" fn destroy(comm: ncclComm_t) -> ncclResult_t {
    script(comm).destroyed.fetch_add(1, Ordering::Relaxed);
    ncclSuccess
}

unsafe extern "C" fn finalize(comm: ncclComm_t) -> ncclResult_t {
    script(comm).finalized.fetch_add(1, Ordering::Relaxed);
    ncclInProgress
}

unsafe extern "C" fn group_start() -> ncclResult_t {
    GROUP.set(Some(0));
    ncclSuccess
}

unsafe extern "C" fn group_end() -> ncclResult_t {
    LARGEST_GROUP.fetch_max(GROUP.take().unwrap_or(0), Ordering::Relaxed);
    ncclSuccess
}

fn functions() -> Functions {
    Functions {
        ncclCommGetAsyncError: Some(get_async_error),
        ncclCommRevoke: Some(revoke),
        ncclCommAbort: Some(abort),
        ncclCommDestroy: Some(destroy),
        ncclCommFinalize: Some(finalize),
        ncclGroupStart: Some(group_start),
        ncclGroupEnd: Some(group_end),
        ..Functions::none()
    }
}

fn impatient() -> Options {
    let limit = Duration::from_millis(50);
    Options {
        name: "test".into(),
        timeout: None,
        limits: Limits { call: limit, revoke: limit, abort: limit, destroy: limit },
    }
}

fn comm_of(library: Library) -> (Arc<Comm>, &'static Script) {
    let script: &'static Script = Box::leak(Box::default());
    let handle = (script as *const Script).cast_mut().cast();
    (Comm::adopt(Arc::new(library), handle, impatient()).unwrap(), script)
}

fn comm() -> (Arc<Comm>, &'static Script) {
    comm_of(Library::of(23203, functions()))
}

fn death() -> Error {
    Error::new(Code::Remote, Extent::World, "rank 1 died").by(1)
}

#[test]
fn a_broken_one_is_revoked_and_aborted_once_and_never_destroyed() {
    let (c, s) = comm();
    c.end(&death());
    c.end(&death());
    c.wait_over().unwrap();
    assert!(!c.is_open());
    c.destroy(Instant::now()).unwrap();
    let count = |n: &AtomicU32| n.load(Ordering::Relaxed);
    assert_eq!((count(&s.revoked), count(&s.aborted), count(&s.destroyed)), (1, 1, 0));
    let e = c.call("ncclSend", |_, _| Some(ncclSuccess)).unwrap_err();
    assert_eq!((e.code, e.culprit), (Code::Remote, Some(1)));
}

#[test]
fn an_older_library_is_aborted_without_revoking() {
    let (c, s) = comm_of(Library::of(21903, Functions { ncclCommRevoke: None, ..functions() }));
    c.end(&death());
    c.wait_over().unwrap();
    assert_eq!(s.aborted.load(Ordering::Relaxed), 1);
}

#[test]
fn an_asynchronous_error_reaches_the_listener_once() {
    let (c, s) = comm();
    let (tell, told) = std::sync::mpsc::channel();
    c.listen(move |e| tell.send(e.clone()).unwrap());
    s.asynchronous.store(ncclRemoteError, Ordering::Relaxed);
    let e = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!((e.code, e.extent), (Code::Remote, Extent::World));
    std::thread::sleep(Duration::from_millis(60));
    assert!(told.try_recv().is_err());
    assert!(c.is_open(), "what follows is the listener's choice");
    c.end(&e);
    c.wait_over().unwrap();
}

#[test]
fn whoever_hangs_in_asking_hides_nothing_about_the_others() {
    let (hangs, h) = comm();
    h.hang_in_asking.store(true, Ordering::Release);
    std::thread::sleep(Duration::from_millis(60));
    let (c, s) = comm();
    let (tell, told) = std::sync::mpsc::channel();
    c.listen(move |e| tell.send(e.clone()).unwrap());
    s.asynchronous.store(ncclRemoteError, Ordering::Relaxed);
    let e = told.recv_timeout(Duration::from_secs(60)).unwrap();
    assert_eq!(e.code, Code::Remote);
    c.end(&e);
    c.wait_over().unwrap();
    // It comes back, and is asked again.
    let (tell, told) = std::sync::mpsc::channel();
    hangs.listen(move |e| tell.send(e.clone()).unwrap());
    h.asynchronous.store(ncclSystemError, Ordering::Relaxed);
    h.hang_in_asking.store(false, Ordering::Release);
    assert_eq!(told.recv_timeout(Duration::from_secs(60)).unwrap().code, Code::System);
    hangs.end(&death());
    hangs.wait_over().unwrap();
}

#[test]
fn without_a_listener_it_is_aborted() {
    let (c, s) = comm();
    let e = c.call("ncclAllReduce", |_, _| Some(ncclInvalidUsage)).unwrap_err();
    assert_eq!((e.code, e.extent), (Code::InvalidUsage, Extent::World));
    c.wait_over().unwrap();
    assert_eq!(s.aborted.load(Ordering::Relaxed), 1);
}

#[test]
fn a_wrong_argument_ends_nothing() {
    let (c, _) = comm();
    let e = c.call("ncclAllReduce", |_, _| Some(ncclInvalidArgument)).unwrap_err();
    assert_eq!((e.code, e.extent, c.is_open()), (Code::InvalidArgument, Extent::Argument, true));
    let e = c.call("ncclAlltoAll", |f, _| f.ncclAlltoAll.map(|_| ncclSuccess)).unwrap_err();
    assert!(e.text.contains("ncclAlltoAll") && c.is_open(), "{e}");
    c.destroy(Instant::now() + Duration::from_secs(60)).unwrap();
}

#[test]
fn what_hangs_is_leaked_reported_and_taken_back() {
    for (which, leak) in [("abort", Leak::Abort), ("revoke", Leak::Revoke), ("call", Leak::InCall)] {
        let (c, s) = comm();
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let (inside, is_inside) = std::sync::mpsc::channel();
        let caller = (which == "call").then(|| {
            let c = c.clone();
            std::thread::spawn(move || {
                c.call("ncclSend", |_, _| {
                    inside.send(()).unwrap();
                    let _ = gone.recv();
                    Some(ncclSuccess)
                })
            })
        });
        if caller.is_some() {
            is_inside.recv().unwrap();
        }
        s.hang_in_abort.store(which == "abort", Ordering::Release);
        s.hang_in_revoke.store(which == "revoke", Ordering::Release);
        c.end(&death());
        let e = c.wait_over().unwrap_err();
        assert!(e.text.contains(leak.reason()), "{e}");
        assert!(janitor::leaked() >= 1);
        // It comes back.
        s.hang_in_abort.store(false, Ordering::Release);
        s.hang_in_revoke.store(false, Ordering::Release);
        drop(go);
        let start = Instant::now();
        while c.wait_over().is_err() {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(s.aborted.load(Ordering::Relaxed), 1);
        if let Some(caller) = caller {
            caller.join().unwrap().unwrap();
        }
    }
}

#[test]
fn those_that_break_together_are_aborted_in_one_group() {
    let all: Vec<_> = (0..4).map(|_| comm()).collect();
    // The first keeps the device's thread busy until all have broken.
    all[0].1.hang_in_revoke.store(true, Ordering::Release);
    all[0].0.end(&death());
    while all[0].1.revoked.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    all[1..].iter().for_each(|(c, _)| c.end(&death()));
    all[0].1.hang_in_revoke.store(false, Ordering::Release);
    let start = Instant::now();
    for (c, s) in &all {
        while s.aborted.load(Ordering::Relaxed) == 0 || c.recipe.lock().stage() != Stage::Gone {
            assert!(start.elapsed() < Duration::from_secs(60));
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    assert!(LARGEST_GROUP.load(Ordering::Relaxed) >= 3);
}

#[test]
fn destroying_waits_for_the_end_of_finalizing() {
    let (c, s) = comm();
    // Joining is over.
    assert_eq!(c.poll().unwrap(), Outcome::Done);
    s.asynchronous.store(ncclInProgress, Ordering::Relaxed);
    let other = {
        let c = c.clone();
        std::thread::spawn(move || c.destroy(Instant::now() + Duration::from_secs(60)))
    };
    while s.finalized.load(Ordering::Relaxed) == 0 {
        std::thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(s.destroyed.load(Ordering::Relaxed), 0);
    s.asynchronous.store(ncclSuccess, Ordering::Relaxed);
    other.join().unwrap().unwrap();
    assert_eq!((s.destroyed.load(Ordering::Relaxed), s.aborted.load(Ordering::Relaxed)), (1, 0));
}

#[test]
fn a_wait_ends_when_it_breaks_and_when_the_time_is_up() {
    let (c, s) = comm();
    s.asynchronous.store(ncclInProgress, Ordering::Relaxed);
    let e = c.settle(Outcome::Pending, Instant::now() + Duration::from_millis(20)).unwrap_err();
    assert_eq!((e.code, c.is_open()), (Code::Timeout, true));
    let other = {
        let c = c.clone();
        std::thread::spawn(move || c.settle(Outcome::Pending, Instant::now() + Duration::from_secs(600)))
    };
    c.end(&death());
    assert_eq!(other.join().unwrap().unwrap_err().code, Code::Remote);
    c.wait_over().unwrap();
}

#[test]
fn a_gate_lets_in_who_names_its_number_while_nothing_stands_in_the_way() {
    let (c, s) = comm();
    let gate = c.offer(7, (1, 2)).unwrap();
    assert!(gate.enter(7).is_none(), "NCCL is still making it");
    c.settle(Outcome::Pending, Instant::now() + Duration::from_secs(60)).unwrap();
    assert!(gate.enter(8).is_none());
    let before = c.operations();
    // The janitor may be looking just now.
    let enter = || {
        (0..10_000).find_map(|_| {
            std::thread::sleep(POLL[0]);
            gate.enter(7)
        })
    };
    let mut pass = enter().unwrap();
    assert_eq!((pass.place(), pass.library().map(|l| l.version)), ((1, 2), Some(23203)));
    assert!(std::ptr::eq(pass.real().cast::<Script>(), s));
    assert!(gate.enter(7).is_none(), "one at a time");
    pass.leave(ncclInProgress);
    drop(pass);
    assert_eq!(c.operations(), before + 1);
    assert!(gate.enter(7).is_none(), "NCCL is at work on it");
    c.settle(Outcome::Pending, Instant::now() + Duration::from_secs(60)).unwrap();
    drop(enter().unwrap());
    gate.withdraw(8);
    drop(enter().unwrap());
    gate.withdraw(7);
    assert!(gate.enter(7).is_none());
    c.offer(7, (1, 2)).unwrap();
    drop(enter().unwrap());
    c.end(&death());
    assert!(gate.enter(7).is_none(), "broken");
    c.wait_over().unwrap();
}

#[test]
fn a_gate_that_another_communicator_got_refuses_the_old_number() {
    let (c, _) = comm();
    let gate = c.offer(11, (0, 1)).unwrap();
    c.end(&death());
    c.wait_over().unwrap();
    // Gone when the janitor has let go of it, too.
    let gone = Arc::downgrade(&c);
    drop(c);
    while gone.strong_count() > 0 {
        std::thread::sleep(POLL[2]);
    }
    // Whoever gets it next: its own number, and not the old one.
    let (c, _) = comm();
    c.settle(Outcome::Pending, Instant::now() + Duration::from_secs(60)).unwrap();
    c.offer(12, (0, 1)).unwrap();
    assert!(gate.enter(11).is_none());
    c.end(&death());
    c.wait_over().unwrap();
}

#[test]
fn whoever_hangs_inside_keeps_the_gate_and_the_others_go_on() {
    let (c, _) = comm();
    c.settle(Outcome::Pending, Instant::now() + Duration::from_secs(60)).unwrap();
    let pass = loop {
        // Refused while the janitor has the lock.
        let gate = c.offer(13, (0, 1)).unwrap();
        if let Some(pass) = gate.enter(13) {
            break pass;
        }
    };
    c.end(&death());
    let e = c.wait_over().unwrap_err();
    assert_eq!(e.code, Code::System, "{e}");
    let (other, _) = comm();
    other.settle(Outcome::Pending, Instant::now() + Duration::from_secs(60)).unwrap();
    other.end(&death());
    other.wait_over().unwrap();
    // It comes back after all.
    drop(pass);
}
