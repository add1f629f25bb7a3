//! A double of CUDA for machines without a GPU: one shared library that is both `libcuda.so.1` and
//! `libcudart.so.12` or `.13`. Tests link it under these names in one folder; being one file, it is one
//! instance in a process whatever it was opened as.
//!
//! A test builds this package (`cargo build -p multiworld-double-cuda`), links `libmwdouble_cuda.so` under
//! the names it needs and sets `LD_LIBRARY_PATH`. Programs that were linked to the genuine runtime run, too;
//! the loader says "no version information available", since genuine symbols have versions.
//!
//! Device memory is host memory, a stream is a queue with a thread of its own, an event is a point in a
//! queue. So a program that was compiled against the genuine headers and uses memory, copies, streams,
//! events, host functions and graphs runs on the CPU. There are no kernels.
//!
//! # What it keeps
//! - Each stream is in order and all streams run concurrently, whatever their device. An event waits for the
//!   record that was its newest at the time of the call. Host functions run on their stream's thread; a call
//!   of CUDA from inside one gives `cudaErrorNotPermitted`.
//! - `cudaFree`, `cudaDeviceSynchronize` and the like wait for all work of the device. `cudaMemcpy` is a copy
//!   on the legacy default stream that the caller waits for, whatever the kinds of memory.
//! - The legacy default stream (0 and 1) waits for the work that blocking streams of its device hold, and
//!   work submitted to these later waits for it; non-blocking streams are left alone. It has a thread like
//!   others. Every thread has a per-thread default stream (2) per device, a blocking one. The `_ptsz` and
//!   `_ptds` twins do not exist, so programs compiled for the per-thread default do not link.
//! - A copy that starts in pageable memory has read it when the call returns; one that ends there is done
//!   when the call returns.
//! - Errors of a call are kept per thread until `cudaGetLastError`; sticky errors stay with the device.
//! - Handles are never used twice: a stale or foreign one gives an error.
//! - Capture follows event forks and joins, and a graph's branches run concurrently again when it is
//!   launched. What is forbidden while somebody captures depends on modes, as it does in CUDA: allocating,
//!   freeing, synchronising, queries of events and streams. Not captured: stream-ordered allocations,
//!   callbacks, launches of other graphs (all refuse and invalidate). The dependencies that a capture tells
//!   are opaque and at most one.
//!
//! # Settings
//! `MW_DOUBLE_CUDA`, read once, a list separated by commas: `devices=N` (default 2; 0 gives
//! `cudaErrorNoDevice` everywhere), `memory=BYTES` per device (default 16 GiB), `version=13000`, and any
//! number of `poison=ERROR@FUNCTION:N`: the Nth call of this function finds that the device it touches has
//! broken with this sticky error.
//!
//! # Control from inside the process
//! [`control`] exports `mwDoubleCudaPoison`, `mwDoubleCudaHeal`, `mwDoubleCudaCalls`, `mwDoubleCudaPark` and
//! `mwDoubleCudaUnpark`.
//!
//! # How it is made
//! `runtime` and `driver` are thin faces, one function per function of CUDA, over one `model`, which is where
//! streams, memory and graphs live. No panic leaves a face.

pub mod control;
mod driver;
mod face;
mod model;
mod runtime;
