//! Capture, graphs and user objects.

mod api;

use api::*;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

const GLOBAL: c_int = 0;
const THREAD_LOCAL: c_int = 1;
const RELAXED: c_int = 2;

const UNSUPPORTED: c_int = 900;
const INVALIDATED: c_int = 901;
const MERGE: c_int = 902;
const UNMATCHED: c_int = 903;
const UNJOINED: c_int = 904;
const ISOLATION: c_int = 905;
const IMPLICIT: c_int = 906;
const CAPTURED_EVENT: c_int = 907;
const WRONG_THREAD: c_int = 908;

/// A capture in global mode forbids things to all threads, so one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn begin(mode: c_int) -> usize {
    let stream = stream(NON_BLOCKING);
    ok(cudaStreamBeginCapture(stream, mode));
    stream
}

fn end(stream: usize) -> Result<usize, c_int> {
    let mut graph = 1;
    // SAFETY: the result has a place.
    match unsafe { cudaStreamEndCapture(stream, &raw mut graph) } {
        0 => Ok(graph),
        code => {
            assert_eq!(graph, 0);
            Err(code)
        }
    }
}

fn instantiate(graph: usize) -> usize {
    // SAFETY: the result has a place.
    made(|out| unsafe { cudaGraphInstantiate(out, graph, 0) })
}

fn status(stream: usize) -> c_int {
    // SAFETY: the result has a place.
    made(|out| unsafe { cudaStreamIsCapturing(stream, out) })
}

unsafe extern "C" fn increment(counter: *mut c_void) {
    // SAFETY: the tests pass a counter that lives for ever.
    unsafe { &*counter.cast::<AtomicUsize>() }.fetch_add(1, Ordering::SeqCst);
}

fn count(stream: usize, counter: &'static AtomicUsize) -> c_int {
    // SAFETY: `increment` takes a counter.
    unsafe { cudaLaunchHostFunc(stream, Some(increment), (&raw const *counter).cast_mut().cast()) }
}

fn counter() -> &'static AtomicUsize {
    Box::leak(Box::default())
}

#[test]
fn a_graph_repeats_what_was_captured() {
    let _alone = alone();
    let memory = device_memory(8);
    // SAFETY: the result has a place.
    let pinned = made(|out| unsafe { cudaMallocHost(out, 8) });
    let counter = counter();
    let stream = begin(GLOBAL);
    assert_eq!(status(stream), 1);
    ok(count(stream, counter));
    // SAFETY: both live until the end of the test.
    unsafe {
        ok(cudaMemsetAsync(memory, 5, 8, stream));
        ok(cudaMemcpyAsync(pinned, memory, 8, 2, stream));
    }
    let graph = end(stream).expect("a graph");
    assert_eq!(status(stream), 0);
    let executable = instantiate(graph);
    ok(cudaGraphDestroy(graph));
    assert_eq!(counter.load(Ordering::SeqCst), 0, "captured, not run");
    for _ in 0..3 {
        ok(cudaGraphLaunch(executable, stream));
    }
    ok(cudaStreamSynchronize(stream));
    assert_eq!(counter.load(Ordering::SeqCst), 3);
    // SAFETY: eight bytes of pinned memory.
    assert_eq!(unsafe { *(pinned as *const u64) }, 0x0505_0505_0505_0505);
    ok(cudaGraphExecDestroy(executable));
    assert_eq!(cudaGraphLaunch(executable, stream), INVALID_HANDLE);
}

/// Both branches must run at once, or the barrier is never passed.
#[test]
fn branches_fork_and_join() {
    let _alone = alone();
    static MEETING: Barrier = Barrier::new(2);
    unsafe extern "C" fn meet(_: *mut c_void) {
        MEETING.wait();
    }
    let counter = counter();
    let (fork, join) = (event(), event());
    let side = stream(NON_BLOCKING);
    let main = begin(THREAD_LOCAL);
    ok(cudaEventRecord(fork, main));
    ok(cudaStreamWaitEvent(side, fork, 0));
    assert_eq!(status(side), 1);
    // SAFETY: `meet` uses no data.
    unsafe {
        ok(cudaLaunchHostFunc(main, Some(meet), null()));
        ok(cudaLaunchHostFunc(side, Some(meet), null()));
    }
    ok(count(side, counter));
    ok(cudaEventRecord(join, side));
    ok(cudaStreamWaitEvent(main, join, 0));
    ok(count(main, counter));
    assert_eq!(end(side), Err(UNMATCHED), "begun elsewhere");
    assert_eq!(end(main), Err(INVALIDATED), "by the former");

    // The same without the mistake.
    ok(cudaStreamBeginCapture(main, THREAD_LOCAL));
    ok(cudaEventRecord(fork, main));
    ok(cudaStreamWaitEvent(side, fork, 0));
    // SAFETY: `meet` uses no data.
    unsafe {
        ok(cudaLaunchHostFunc(main, Some(meet), null()));
        ok(cudaLaunchHostFunc(side, Some(meet), null()));
    }
    ok(count(side, counter));
    ok(cudaEventRecord(join, side));
    ok(cudaStreamWaitEvent(main, join, 0));
    ok(count(main, counter));
    let executable = instantiate(end(main).expect("a graph"));
    for _ in 0..2 {
        ok(cudaGraphLaunch(executable, main));
    }
    ok(cudaStreamSynchronize(main));
    assert_eq!(counter.load(Ordering::SeqCst), 4);
    assert_eq!(cudaEventQuery(join), CAPTURED_EVENT);
}

#[test]
fn unjoined_work_makes_no_graph() {
    let _alone = alone();
    let (fork, side) = (event(), stream(NON_BLOCKING));
    let main = begin(GLOBAL);
    ok(cudaEventRecord(fork, main));
    ok(cudaStreamWaitEvent(side, fork, 0));
    ok(count(side, counter()));
    assert_eq!(end(main), Err(UNJOINED));
    assert_eq!(status(side), 0, "its streams are free again");
    ok(cudaStreamSynchronize(side));
}

type Mistake<'a> = &'a dyn Fn(usize) -> c_int;

#[test]
fn what_a_graph_cannot_hold_invalidates() {
    let _alone = alone();
    let (event, other) = (event(), stream(NON_BLOCKING));
    ok(cudaEventRecord(event, other));
    let mistakes: [(&str, Mistake, c_int); 5] = [
        ("synchronize", &|stream| cudaStreamSynchronize(stream), UNSUPPORTED),
        ("query", &|stream| cudaStreamQuery(stream), UNSUPPORTED),
        ("device", &|_| cudaDeviceSynchronize(), UNSUPPORTED),
        ("isolation", &|stream| cudaStreamWaitEvent(stream, event, 0), ISOLATION),
        // SAFETY: refused.
        ("malloc", &|_| unsafe { cudaMalloc(&raw mut *Box::leak(Box::new(0)), 4) }, UNSUPPORTED),
    ];
    for (name, mistake, code) in mistakes {
        let stream = begin(GLOBAL);
        assert_eq!(mistake(stream), code, "{name}");
        assert_eq!(status(stream), 2, "{name}");
        assert_eq!(count(stream, counter()), INVALIDATED, "{name}");
        assert_eq!(end(stream), Err(INVALIDATED), "{name}");
        ok(cudaStreamSynchronize(stream));
    }
    assert_eq!(cudaGetLastError(), INVALIDATED);
    assert_eq!(cudaStreamBeginCapture(0, GLOBAL), UNSUPPORTED, "the legacy stream");
    assert_eq!(end(other), Err(401), "not capturing");
}

#[test]
fn two_captures_do_not_merge() {
    let _alone = alone();
    let event = event();
    let (first, second) = (begin(RELAXED), begin(RELAXED));
    ok(cudaEventRecord(event, first));
    assert_eq!(cudaStreamWaitEvent(second, event, 0), MERGE);
    assert_eq!((end(first), end(second)), (Err(INVALIDATED), Err(INVALIDATED)));
}

#[test]
fn the_legacy_stream_would_depend_on_a_blocking_capture() {
    let _alone = alone();
    let stream = stream(0);
    ok(cudaStreamBeginCapture(stream, RELAXED));
    assert_eq!(count(0, counter()), IMPLICIT);
    assert_eq!(end(stream), Err(INVALIDATED));
    ok(count(0, counter()));
}

/// What a watchdog may do while another thread captures depends on the modes of both.
#[test]
fn modes_say_whom_a_capture_forbids_what() {
    let _alone = alone();
    let query = |mode: c_int| {
        std::thread::spawn(move || {
            let mut mode = mode;
            // SAFETY: it goes both ways.
            ok(unsafe { cudaThreadExchangeStreamCaptureMode(&raw mut mode) });
            assert_eq!(mode, GLOBAL, "what a thread begins with");
            cudaEventQuery(event())
        })
        .join()
        .expect("the other thread")
    };
    for (captured, asking, expected) in [
        (THREAD_LOCAL, GLOBAL, 0),
        (RELAXED, GLOBAL, 0),
        (GLOBAL, THREAD_LOCAL, 0),
        (GLOBAL, RELAXED, 0),
        (GLOBAL, GLOBAL, UNSUPPORTED),
    ] {
        let stream = begin(captured);
        assert_eq!(query(asking), expected, "{captured} {asking}");
        assert_eq!(end(stream).is_ok(), expected == 0);
    }
    // In its own thread, too, unless it is relaxed.
    let stream = begin(RELAXED);
    let memory = device_memory(4);
    // SAFETY: nothing uses it.
    ok(unsafe { cudaFree(memory) });
    end(stream).expect("a graph");
    let stream = begin(GLOBAL);
    assert_eq!(std::thread::spawn(move || end(stream)).join().expect("a thread"), Err(WRONG_THREAD));
    end(stream).expect("a graph");
}

#[test]
fn external_events_are_recorded_by_each_launch() {
    let _alone = alone();
    const EXTERNAL: u32 = 1;
    let event = event();
    let stream = begin(GLOBAL);
    ok(cudaEventRecordWithFlags(event, stream, EXTERNAL));
    let executable = instantiate(end(stream).expect("a graph"));
    let gate = Gate::launch(stream);
    ok(cudaGraphLaunch(executable, stream));
    assert_eq!(cudaEventQuery(event), NOT_READY);
    gate.open();
    ok(cudaEventSynchronize(event));
}

#[test]
fn a_user_object_goes_with_the_last_that_refers_to_it() {
    let _alone = alone();
    let gone = counter();
    let data = (&raw const *gone).cast_mut().cast();
    // SAFETY: the result has a place, and the counter lives for ever.
    let object = made(|out| unsafe { cudaUserObjectCreate(out, data, Some(increment), 1, 1) });
    let stream = begin(RELAXED);
    let (mut state, mut id, mut graph, mut nodes, mut nodes_count) = (0, 0, 0, std::ptr::null(), 9);
    // SAFETY: all results have a place.
    ok(unsafe {
        cudaStreamGetCaptureInfo_v2(
            stream,
            &raw mut state,
            &raw mut id,
            &raw mut graph,
            &raw mut nodes,
            &raw mut nodes_count,
        )
    });
    assert_eq!((state, nodes_count), (1, 0));
    assert!(id != 0 && graph != 0);
    assert_eq!(cudaGraphDestroy(graph), 401, "it is being captured");
    const MOVE: u32 = 1;
    ok(cudaGraphRetainUserObject(graph, object, 1, MOVE));
    ok(count(stream, counter()));
    assert_eq!(end(stream), Ok(graph));
    let executable = instantiate(graph);
    ok(cudaGraphDestroy(graph));
    let gate = Gate::launch(stream);
    ok(cudaGraphLaunch(executable, stream));
    ok(cudaGraphExecDestroy(executable));
    std::thread::sleep(SHORT);
    assert_eq!(gone.load(Ordering::SeqCst), 0, "a launch is under way");
    gate.open();
    ok(cudaStreamSynchronize(stream));
    let begun = Instant::now();
    while gone.load(Ordering::SeqCst) == 0 {
        assert!(begun.elapsed() < LONG);
        std::thread::yield_now();
    }
    assert_eq!(cudaUserObjectRelease(object, 1), INVALID_HANDLE);
}
