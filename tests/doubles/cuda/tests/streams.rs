//! Streams, events and host functions.

mod api;

use api::*;
use std::ffi::c_int;
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier, Mutex};

#[test]
fn a_stream_is_in_order_and_not_the_callers_thread() {
    let stream = stream(NON_BLOCKING);
    let seen = Arc::new(Mutex::new(Vec::new()));
    for i in 0..100 {
        let seen = seen.clone();
        ok(launch(stream, move || seen.lock().expect("seen").push((i, std::thread::current().id()))));
    }
    ok(cudaStreamSynchronize(stream));
    let seen = seen.lock().expect("seen");
    assert!(seen.iter().map(|(i, _)| *i).eq(0..100));
    let thread = seen[0].1;
    assert!(seen.iter().all(|(_, at)| *at == thread) && thread != std::thread::current().id());
    ok(cudaStreamDestroy(stream));
}

/// One thread drives two devices: their streams must meet.
#[test]
fn streams_of_all_devices_run_concurrently() {
    let meeting = Arc::new(Barrier::new(4));
    let mut streams = Vec::new();
    for device in [0, 1] {
        ok(cudaSetDevice(device));
        streams.extend([stream(0), stream(NON_BLOCKING)]);
    }
    for &stream in &streams {
        let meeting = meeting.clone();
        ok(launch(stream, move || {
            meeting.wait();
        }));
    }
    for stream in streams {
        ok(cudaStreamSynchronize(stream));
        ok(cudaStreamDestroy(stream));
    }
}

#[test]
fn an_event_is_ready_when_its_newest_record_is() {
    let (stream, event) = (stream(NON_BLOCKING), event());
    assert_eq!(cudaEventQuery(event), 0, "never recorded");
    ok(cudaEventRecord(event, stream));
    ok(cudaEventSynchronize(event));
    let gate = Gate::launch(stream);
    assert_eq!(cudaEventQuery(event), 0);
    ok(cudaEventRecord(event, stream));
    assert_eq!(cudaEventQuery(event), NOT_READY);
    assert_eq!(cudaStreamQuery(stream), NOT_READY);
    gate.open();
    ok(cudaEventSynchronize(event));
    ok(cudaStreamSynchronize(stream));
    ok(cudaStreamQuery(stream));
}

#[test]
fn a_wait_is_for_the_record_of_its_time() {
    let (first, second, third) = (stream(NON_BLOCKING), stream(NON_BLOCKING), stream(NON_BLOCKING));
    let event = event();
    ok(cudaEventRecord(event, first));
    ok(cudaStreamWaitEvent(second, event, 0));
    let gate = Gate::launch(first);
    ok(cudaEventRecord(event, first));
    ok(cudaStreamWaitEvent(third, event, 0));
    // The second waits for the record before the gate, the third for the one behind it.
    ok(cudaStreamSynchronize(second));
    let late = Gate::launch(third);
    assert!(!late.has_begun(SHORT));
    // Its waiters keep what they wait for.
    ok(cudaEventDestroy(event));
    gate.open();
    assert!(late.has_begun(LONG));
    late.open();
    ok(cudaStreamSynchronize(third));
}

#[test]
fn a_stream_waits_for_another_device() {
    ok(cudaSetDevice(1));
    let (there, event) = (stream(NON_BLOCKING), event());
    ok(cudaSetDevice(0));
    let here = stream(NON_BLOCKING);
    assert_eq!(cudaEventRecord(event, here), INVALID_HANDLE, "the event is another device's");
    let gate = Gate::launch(there);
    ok(cudaEventRecord(event, there));
    ok(cudaStreamWaitEvent(here, event, 0));
    let late = Gate::launch(here);
    assert!(!late.has_begun(SHORT));
    gate.open();
    assert!(late.has_begun(LONG));
    late.open();
    ok(cudaStreamSynchronize(here));
}

#[test]
fn events_tell_time() {
    let (stream, start, end) = (stream(NON_BLOCKING), event(), event());
    ok(cudaEventRecord(start, stream));
    ok(launch(stream, || std::thread::sleep(SHORT)));
    ok(cudaEventRecord(end, stream));
    // SAFETY: the result has a place.
    let elapsed = |start, end| unsafe {
        let mut time = 0.0;
        (cudaEventElapsedTime(&raw mut time, start, end), time)
    };
    assert_eq!(elapsed(start, end).0, NOT_READY);
    ok(cudaEventSynchronize(end));
    let (code, time) = elapsed(start, end);
    assert_eq!(code, 0);
    assert!((SHORT.as_secs_f32() * 1e3..LONG.as_secs_f32() * 1e3).contains(&time), "{time}");
    assert!(elapsed(end, start).1 < 0.0);
    assert_eq!(elapsed(start, event()).0, INVALID_HANDLE, "never recorded");
    // SAFETY: the result has a place.
    let untimed = made(|out| unsafe { cudaEventCreateWithFlags(out, 2) });
    ok(cudaEventRecord(untimed, stream));
    ok(cudaEventSynchronize(untimed));
    assert_eq!(elapsed(start, untimed).0, INVALID_HANDLE, "keeps no time");
}

#[test]
fn a_parked_stream_takes_up_nothing() {
    let stream = stream(NON_BLOCKING);
    ok(mwDoubleCudaPark(stream));
    let gate = Gate::launch(stream);
    assert!(!gate.has_begun(SHORT));
    ok(mwDoubleCudaUnpark(stream));
    assert!(gate.has_begun(LONG));
    gate.open();
    ok(cudaStreamSynchronize(stream));
}

#[test]
fn the_legacy_stream_and_blocking_streams_wait_for_each_other() {
    ok(cudaSetDevice(0));
    let (blocking, free) = (stream(0), stream(NON_BLOCKING));
    let gate = Gate::launch(blocking);
    let other = Gate::launch(free);
    let legacy = Gate::launch(0);
    let behind = Gate::launch(blocking);
    assert!(gate.has_begun(LONG) && other.has_begun(LONG));
    assert!(!legacy.has_begun(SHORT));
    gate.open();
    // The non-blocking stream is still busy.
    assert!(legacy.has_begun(LONG));
    assert!(!behind.has_begun(SHORT));
    // Another name of the legacy stream.
    assert_eq!(cudaStreamQuery(1), NOT_READY);
    legacy.open();
    assert!(behind.has_begun(LONG));
    behind.open();
    other.open();
    ok(cudaDeviceSynchronize());
}

#[test]
fn every_thread_has_a_default_stream() {
    const PER_THREAD: usize = 2;
    // Not the device whose legacy stream another test uses.
    ok(cudaSetDevice(1));
    let here = Gate::launch(PER_THREAD);
    let there = std::thread::spawn(|| {
        ok(cudaSetDevice(1));
        ok(cudaStreamSynchronize(PER_THREAD));
        ok(launch(PER_THREAD, || {}));
        cudaStreamSynchronize(PER_THREAD)
    });
    ok(there.join().expect("the other thread"));
    assert_eq!(cudaStreamQuery(PER_THREAD), NOT_READY);
    here.open();
    ok(cudaStreamSynchronize(PER_THREAD));
}

#[test]
fn a_destroyed_stream_finishes_and_its_handle_is_stale() {
    ok(cudaSetDevice(1));
    let stream = stream(NON_BLOCKING);
    let gate = Gate::launch(stream);
    let (done, finished) = channel();
    ok(launch(stream, move || done.send(()).expect("the test waits")));
    ok(cudaStreamDestroy(stream));
    assert_eq!(cudaStreamDestroy(stream), INVALID_HANDLE);
    assert_eq!(cudaGetLastError(), INVALID_HANDLE);
    assert_eq!(cudaGetLastError(), 0);
    assert_eq!(launch(stream, || {}), INVALID_HANDLE);
    gate.open();
    ok(cudaDeviceSynchronize());
    finished.try_recv().expect("done before the device is idle");
}

#[test]
fn callbacks_must_not_call() {
    let stream = stream(NON_BLOCKING);
    let (tell, told) = channel();
    ok(launch(stream, move || tell.send(cudaDeviceSynchronize()).expect("the test waits")));
    assert_eq!(told.recv_timeout(LONG), Ok(NOT_PERMITTED));
}

#[test]
fn a_callback_learns_its_stream() {
    static SEEN: Mutex<Option<(usize, c_int)>> = Mutex::new(None);
    unsafe extern "C" fn see(stream: usize, status: c_int, _data: *mut std::ffi::c_void) {
        *SEEN.lock().expect("seen") = Some((stream, status));
    }
    let stream = stream(NON_BLOCKING);
    // SAFETY: the callback uses no data.
    ok(unsafe { cudaStreamAddCallback(stream, Some(see), null(), 0) });
    ok(cudaStreamSynchronize(stream));
    assert_eq!(*SEEN.lock().expect("seen"), Some((stream, 0)));
}

#[test]
fn calls_are_counted_by_name() {
    let before = calls("cudaEventRecordWithFlags");
    let (stream, event) = (stream(NON_BLOCKING), event());
    ok(cudaEventRecordWithFlags(event, stream, 0));
    assert_eq!(cudaEventRecordWithFlags(event, stream, 7), INVALID_VALUE);
    assert_eq!(calls("cudaEventRecordWithFlags"), before + 2);
    assert_eq!(calls("cudaNoSuchThing"), 0);
}

/// Many threads, streams and devices at once, all of it ordered by events.
#[test]
fn a_chain_over_many_streams_stays_in_order() {
    const LINKS: usize = 200;
    let threads: Vec<_> = (0..4)
        .map(|thread| {
            std::thread::spawn(move || {
                let streams: Vec<usize> = (0..6)
                    .map(|i| {
                        ok(cudaSetDevice(i % 2));
                        stream(if i % 3 == 0 { 0 } else { NON_BLOCKING })
                    })
                    .collect();
                let counter = Arc::new(Mutex::new(0));
                for link in 0..LINKS {
                    let at = (link * 7 + thread) % streams.len();
                    let next = ((link + 1) * 7 + thread) % streams.len();
                    let counter = counter.clone();
                    ok(launch(streams[at], move || {
                        let mut counter = counter.lock().expect("the counter");
                        assert_eq!(*counter, link);
                        *counter += 1;
                    }));
                    ok(cudaSetDevice((at % 2) as c_int));
                    let event = event();
                    ok(cudaEventRecord(event, streams[at]));
                    ok(cudaStreamWaitEvent(streams[next], event, 0));
                    ok(cudaEventDestroy(event));
                }
                streams.iter().for_each(|&stream| ok(cudaStreamSynchronize(stream)));
                assert_eq!(*counter.lock().expect("the counter"), LINKS);
                streams.iter().for_each(|&stream| ok(cudaStreamDestroy(stream)));
            })
        })
        .collect();
    threads.into_iter().for_each(|thread| thread.join().expect("a chain"));
}
