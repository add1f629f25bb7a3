//! A machine without a device.

mod api;

use api::*;

#[test]
fn everything_says_that_there_is_no_device() {
    // SAFETY: no other thread of this process uses the environment.
    unsafe { std::env::set_var("MW_DOUBLE_CUDA", "devices=0") };
    let mut count = 7;
    // SAFETY: the results have a place.
    unsafe {
        assert_eq!(cudaGetDeviceCount(&raw mut count), NO_DEVICE);
        assert_eq!(count, 0);
        assert_eq!(cudaMalloc(&raw mut *Box::leak(Box::new(0)), 4), NO_DEVICE);
        assert_eq!(cudaStreamCreateWithFlags(&raw mut *Box::leak(Box::new(0)), 0), NO_DEVICE);
        assert_eq!(cudaGetDevice(&raw mut count), NO_DEVICE);
        assert_eq!(cudaFree(0), NO_DEVICE);
    }
    assert_eq!(cudaSetDevice(0), NO_DEVICE);
    assert_eq!(cudaDeviceSynchronize(), NO_DEVICE);
    assert_eq!(cudaGetLastError(), NO_DEVICE);
    assert_eq!(cuInit(0), NO_DEVICE);
    assert_eq!(mwDoubleCudaPoison(0, 700), NO_DEVICE);
    assert_eq!(error_name(NO_DEVICE), "cudaErrorNoDevice");
    // SAFETY: the result has a place.
    assert_eq!(made(|out| unsafe { cudaRuntimeGetVersion(out) }), 13000);
}
