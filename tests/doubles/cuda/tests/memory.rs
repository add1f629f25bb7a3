//! Memory and copies.

mod api;

use api::*;
use std::sync::mpsc::channel;

const HOST_TO_DEVICE: i32 = 1;
const DEVICE_TO_HOST: i32 = 2;
const DEVICE_TO_DEVICE: i32 = 3;
const ANY: i32 = 4;

fn attributes(address: usize) -> Attributes {
    // SAFETY: the result has a place.
    made(|out| unsafe { cudaPointerGetAttributes(out, address) })
}

fn free(address: usize) -> i32 {
    // SAFETY: the tests use nothing that they freed.
    unsafe { cudaFree(address) }
}

/// The bytes are alive where tests call it, and on the stream until they synchronise.
fn copy(to: usize, from: usize, bytes: usize, kind: i32) -> i32 {
    // SAFETY: see above.
    unsafe { cudaMemcpy(to, from, bytes, kind) }
}

fn copy_async(to: usize, from: usize, bytes: usize, kind: i32, stream: usize) -> i32 {
    // SAFETY: see `copy`.
    unsafe { cudaMemcpyAsync(to, from, bytes, kind, stream) }
}

#[test]
fn memory_knows_its_device() {
    ok(cudaSetDevice(1));
    let memory = device_memory(100);
    assert_eq!(memory % 256, 0);
    let inside = memory + 99;
    let expected = Attributes { kind: 2, device: 1, device_address: inside, host_address: 0 };
    assert_eq!(attributes(inside), expected);
    assert_eq!(attributes(memory + 100).kind, 0);
    assert_eq!(attributes(memory + 100).device, -2);
    assert_eq!(free(memory + 1), INVALID_VALUE);
    ok(cudaSetDevice(0));
    ok(free(memory));
    assert_eq!(free(memory), INVALID_VALUE);
    ok(free(0));
    // SAFETY: the result has a place.
    let pinned = made(|out| unsafe { cudaMallocHost(out, 64) });
    assert_eq!(attributes(pinned).kind, 1);
    assert_eq!(attributes(pinned).host_address, pinned);
    // SAFETY: as above, and nothing uses it afterwards.
    unsafe {
        ok(cudaFreeHost(pinned));
        let managed = made(|out| cudaMallocManaged(out, 64, 1));
        assert_eq!(attributes(managed).kind, 3);
        ok(cudaFree(managed));
    }
}

#[test]
fn the_programs_own_memory_can_be_registered() {
    let own = [0u8; 100];
    let address = own.as_ptr() as usize;
    assert_eq!(attributes(address).kind, 0);
    // SAFETY: it stays where it is.
    unsafe {
        ok(cudaHostRegister(address, 100, 0));
        assert_eq!(cudaHostRegister(address + 50, 100, 0), 712);
        assert_eq!(attributes(address + 99).kind, 1);
        ok(cudaHostUnregister(address));
        assert_eq!(cudaHostUnregister(address), 713);
    }
}

#[test]
fn copies_arrive_and_stay_inside() {
    let (from, mut to) = ([1u8, 2, 3, 4], [0u8; 4]);
    let (first, second) = (device_memory(4), device_memory(4));
    ok(copy(first, from.as_ptr() as usize, 4, HOST_TO_DEVICE));
    ok(copy(second, first, 4, DEVICE_TO_DEVICE));
    // SAFETY: inside.
    ok(unsafe { cudaMemset(second + 1, 0x1ff, 2) });
    ok(copy(to.as_mut_ptr() as usize, second, 4, ANY));
    assert_eq!(to, [1, 255, 255, 4]);
    assert_eq!(copy(first, from.as_ptr() as usize, 5, HOST_TO_DEVICE), INVALID_VALUE);
    assert_eq!(copy(to.as_mut_ptr() as usize, from.as_ptr() as usize, 4, DEVICE_TO_HOST), INVALID_VALUE);
    assert_eq!(copy(first, second, 4, 5), 21);
    assert_eq!(copy(first, 0, 4, ANY), INVALID_VALUE);
    ok(copy(0, 0, 0, ANY));
}

#[test]
fn a_copy_from_pageable_memory_has_read_it() {
    let stream = stream(NON_BLOCKING);
    let memory = device_memory(4);
    let gate = Gate::launch(stream);
    let mut source = [7u8; 4];
    ok(copy_async(memory, source.as_ptr() as usize, 4, HOST_TO_DEVICE, stream));
    source.fill(9);
    gate.open();
    let mut seen = [0u8; 4];
    // Ends in pageable memory, so it is done when the call returns.
    ok(copy_async(seen.as_mut_ptr() as usize, memory, 4, DEVICE_TO_HOST, stream));
    assert_eq!(seen, [7; 4]);
}

#[test]
fn freeing_waits_for_the_device() {
    ok(cudaSetDevice(1));
    let stream = stream(NON_BLOCKING);
    let memory = device_memory(4);
    let gate = Gate::launch(stream);
    assert!(gate.has_begun(LONG));
    let (done, freed) = channel();
    let free = std::thread::spawn(move || done.send(free(memory)).expect("the test waits"));
    assert!(freed.recv_timeout(SHORT).is_err());
    // Nothing to free, nothing to wait for.
    ok(self::free(0));
    gate.open();
    assert_eq!(freed.recv_timeout(LONG), Ok(0));
    free.join().expect("the other thread");
}

#[test]
fn memory_can_be_allocated_and_freed_in_stream_order() {
    let stream = stream(NON_BLOCKING);
    // SAFETY: the result has a place.
    let memory = made(|out| unsafe { cudaMallocAsync(out, 4, stream) });
    let gate = Gate::launch(stream);
    // SAFETY: nothing uses it afterwards.
    ok(unsafe { cudaFreeAsync(memory, stream) });
    assert_eq!(attributes(memory).kind, 2, "the stream is not there yet");
    gate.open();
    ok(cudaStreamSynchronize(stream));
    assert_eq!(attributes(memory).kind, 0);
}

#[test]
fn a_device_has_a_limit() {
    let figures = || {
        let (mut free, mut total) = (0, 0);
        // SAFETY: both results have a place.
        ok(unsafe { cudaMemGetInfo(&raw mut free, &raw mut total) });
        (free, total)
    };
    let (_, total) = figures();
    assert_eq!(total, 16 << 30);
    let mut address = 0;
    // SAFETY: the result has a place.
    assert_eq!(unsafe { cudaMalloc(&raw mut address, total + 1) }, OUT_OF_MEMORY);
    // SAFETY: as above.
    assert_eq!(unsafe { cudaMalloc(&raw mut address, usize::MAX) }, OUT_OF_MEMORY);
    // SAFETY: NULL is refused.
    assert_eq!(unsafe { cudaMalloc(std::ptr::null_mut(), 1) }, INVALID_VALUE);
    assert_eq!(address, 0);
    // A page that is never touched costs nothing.
    let large = device_memory(8 << 30);
    assert!(figures().0 <= 8 << 30);
    ok(free(large));
}
