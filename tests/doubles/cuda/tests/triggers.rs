//! Settings: devices, and faults that the environment sets off.

mod api;

use api::*;

#[test]
fn the_nth_call_breaks_its_device() {
    let settings =
        "devices=3,memory=1000,version=12090,poison=719@cudaLaunchHostFunc:5,poison=3@cudaGetDeviceCount:2";
    // SAFETY: no other thread of this process uses the environment.
    unsafe { std::env::set_var("MW_DOUBLE_CUDA", settings) };
    // SAFETY: the results have a place.
    unsafe {
        assert_eq!(made(|out| cudaGetDeviceCount(out)), 3);
        assert_eq!(made(|out| cudaRuntimeGetVersion(out)), 12090);
        assert_eq!(cudaMalloc(&raw mut *Box::leak(Box::new(0)), 1001), OUT_OF_MEMORY);
    }
    ok(cudaSetDevice(2));
    let stream = stream(NON_BLOCKING);
    for _ in 0..4 {
        ok(launch(stream, || {}));
    }
    ok(cudaSetDevice(1));
    assert_eq!(launch(stream, || {}), 719);
    assert_eq!(cudaStreamSynchronize(stream), 719);
    ok(cudaDeviceSynchronize());
    // A call that touches no device of its own breaks the current one.
    let mut count = 0;
    // SAFETY: the result has a place.
    assert_eq!(unsafe { cudaGetDeviceCount(&raw mut count) }, 3);
    assert_eq!(cudaDeviceSynchronize(), 3);
    ok(cudaSetDevice(0));
}
