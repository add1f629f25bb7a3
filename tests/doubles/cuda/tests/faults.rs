//! Sticky errors.

mod api;

use api::*;
use std::sync::mpsc::channel;

type Wait = Box<dyn FnOnce() -> i32 + Send>;

/// All in one: a broken device is the whole process's.
#[test]
fn a_broken_device_says_so_until_it_is_healed() {
    assert_eq!(mwDoubleCudaPoison(2, ILLEGAL_ADDRESS), INVALID_DEVICE);
    assert_eq!(mwDoubleCudaPoison(0, 0), INVALID_VALUE);
    ok(cudaSetDevice(1));
    let healthy = stream(NON_BLOCKING);
    ok(cudaSetDevice(0));
    let (stuck, parked, waiting) = (stream(NON_BLOCKING), stream(NON_BLOCKING), stream(0));
    let (event, behind) = (event(), event());
    let memory = device_memory(4);

    // Work that runs, work that is held, work that waits for the former, and threads that wait for all of it.
    let gate = Gate::launch(stuck);
    assert!(gate.has_begun(LONG));
    ok(cudaEventRecord(event, stuck));
    ok(cudaStreamWaitEvent(waiting, event, 0));
    ok(cudaStreamWaitEvent(healthy, event, 0));
    ok(cudaEventRecord(behind, waiting));
    ok(mwDoubleCudaPark(parked));
    let (ran, dropped) = channel();
    for stream in [parked, waiting, stuck] {
        let ran = ran.clone();
        ok(launch(stream, move || ran.send(()).expect("the test waits")));
    }
    let waits: [(&str, Wait); 6] = [
        ("stuck stream", Box::new(move || cudaStreamSynchronize(stuck))),
        ("parked stream", Box::new(move || cudaStreamSynchronize(parked))),
        ("waiting stream", Box::new(move || cudaStreamSynchronize(waiting))),
        ("event", Box::new(move || cudaEventSynchronize(behind))),
        ("device", Box::new(|| cudaDeviceSynchronize())),
        // SAFETY: nothing uses it.
        ("free", Box::new(move || unsafe { cudaFree(memory) })),
    ];
    let waits = waits.map(|(name, wait)| {
        let (tell, told) = channel();
        std::thread::spawn(move || tell.send(wait()).expect("the test waits"));
        assert!(told.recv_timeout(SHORT).is_err(), "{name}");
        (name, told)
    });
    ok(mwDoubleCudaPoison(0, ILLEGAL_ADDRESS));
    for (name, told) in waits {
        assert_eq!(told.recv_timeout(LONG), Ok(ILLEGAL_ADDRESS), "{name}");
    }
    // A healthy stream is released.
    ok(cudaStreamSynchronize(healthy));

    // Whatever touches it.
    assert_eq!(launch(stuck, || {}), ILLEGAL_ADDRESS);
    assert_eq!(cudaStreamQuery(parked), ILLEGAL_ADDRESS);
    assert_eq!(cudaEventQuery(event), ILLEGAL_ADDRESS);
    assert_eq!(cudaDeviceReset(), ILLEGAL_ADDRESS);
    assert_eq!(cudaStreamWaitEvent(healthy, event, 0), ILLEGAL_ADDRESS);
    let mut address = 0;
    // SAFETY: the result has a place.
    assert_eq!(unsafe { cudaMalloc(&raw mut address, 4) }, ILLEGAL_ADDRESS);
    assert_eq!((cudaGetLastError(), cudaGetLastError()), (ILLEGAL_ADDRESS, ILLEGAL_ADDRESS), "sticky");

    // The other device does not care.
    ok(cudaSetDevice(1));
    assert_eq!(cudaPeekAtLastError(), 0);
    ok(launch(healthy, || {}));
    ok(cudaDeviceSynchronize());
    assert_eq!(cudaSetDevice(0), ILLEGAL_ADDRESS);

    ok(mwDoubleCudaHeal(0));
    ok(mwDoubleCudaUnpark(parked));
    gate.open();
    assert!(dropped.recv_timeout(SHORT).is_err(), "what was dropped stays dropped");
    for stream in [stuck, parked, waiting] {
        let ran = ran.clone();
        ok(launch(stream, move || ran.send(()).expect("the test waits")));
    }
    ok(cudaDeviceSynchronize());
    assert_eq!(dropped.try_iter().count(), 3);
    assert_eq!(error_name(ILLEGAL_ADDRESS), "cudaErrorIllegalAddress");
}
