//! A double of libnccl 2.32.3 for tests on machines without a GPU. It carries data through host memory, keeps
//! NCCL's rules where they are awkward, notices when they are broken, and fails where a script says so.
//!
//! It is independent of the library that it tests, for which it is the oracle.
//!
//! # What it does
//!
//! Ranks are processes or threads of this machine; those of one communicator meet on abstract Unix sockets
//! whose names are a hash of all 128 bytes of the unique id. Nobody notices a peer's death: what waits for it
//! waits for ever, until the communicator is aborted or revoked.
//!
//! With a CUDA runtime or driver in the process (a double of it, or the genuine one with host memory) a
//! launch is a host function on the caller's stream. Without one an operation is carried out in the call, a
//! group in `ncclGroupEnd`; on a communicator that does not block both happen in the background, so
//! `ncclInProgress` covers the operation itself.
//!
//! Nothing completes without its peer: a send waits for its receive, whatever its size.
//!
//! Where NCCL is awkward, so is this:
//! - a communicator that does not block is in progress after init, finalize, revoke, group ends and single
//!   operations, until `ncclCommGetAsyncError` has said otherwise; used before, it answers
//!   `ncclInvalidArgument` (and that becomes its asynchronous error, as after any bad argument);
//! - split, shrink and grow return `ncclSuccess` even so, and the new handle of split and shrink appears when
//!   the parent is no longer in progress;
//! - an error in a group fails the group and drops what was in it;
//! - abort and destroy block, also inside a group (then at its end); abort hits every communicator of a
//!   pending group, waits for kernels to leave and for graphs that captured the communicator to be destroyed;
//! - destroy waits for the other processes, unless the version is below 2.31 or the communicator was revoked;
//! - shared resources (`splitShare`, `shrinkShare`) share the abort flag.
//!
//! # The script
//!
//! `MW_DOUBLE_NCCL`, read at the first call, or `mwDoubleNcclScript` at any time. Rules and words are
//! separated by semicolons. With a mistake in it, which is printed, every call returns `ncclInternalError`.
//!
//! A rule is `FUNCTION[/RANK]@WHEN=ACTION[+ACTION...]`.
//! - FUNCTION: a name without `nccl`, with `*` for any characters; `Comm` may be left out
//!   (`Abort@1=block:5000`).
//! - RANK: only calls on a communicator where the caller is that rank.
//! - WHEN: `3` (the third call that function and rank match, counted since the script was set), `3+` (it and
//!   all later ones), `3-5`, `*`.
//! - ACTION:
//!   - `error:CODE`: the call returns CODE and does nothing (`GroupEnd`: the group is dropped);
//!   - `async:CODE`: the call succeeds and the communicator's asynchronous error becomes CODE. For init,
//!     finalize, revoke, split, shrink, grow and destroy it is the result of the job (so of the call, if it
//!     blocks); for `CommGetAsyncError` it is set before it is read;
//!   - `hang`: an operation's kernel, or the job of init and the others above, never completes until the
//!     communicator is aborted (a revoke also frees kernels); abort hangs after its kernels have left; any
//!     other function does not return. Hanging calls go on when another script is set;
//!   - `block:MS`: the caller is held that long (in abort: after its kernels have left);
//!   - `slow:MS`: the kernel or job starts that much later.
//!
//! A word is one of
//! - `abort-syncs-device`: abort waits for the whole device, behind whatever is parked there;
//! - `no-destroy-barrier`: destroy does not wait for the other processes;
//! - `reshape-in-progress`: split, shrink and grow return `ncclInProgress` when they are;
//! - `slow-jobs:MS`: every background job starts that much later;
//! - `version=N`, `count=N`: what `ncclGetVersion` and `ncclCommCount` say;
//! - `null-ops`, `busy-ops:NS`: operations return at once, or spin that long, and do nothing. Nothing is
//!   logged.
//!
//! # What a test can ask
//!
//! - `int mwDoubleNcclViolations(char *buffer, size_t size)`: how often NCCL's rules were broken, and how:
//!   two threads inside one communicator, use after destroy or abort, a second abort, blocking and
//!   non-blocking communicators in one group, init or abort in one group with operations, use while in
//!   progress, use after an error that only abort may follow, a unique id used twice, collectives that do not
//!   match. Each is printed to standard error too.
//! - `uint64_t mwDoubleNcclCalls(const char *name)`: calls so far of a function, named without `nccl`.
//! - `size_t mwDoubleNcclLog(char *buffer, size_t size)`: the last 4096 calls, `NAME COMM RANK` per line, the
//!   communicator numbered by its creation in this process; `-1 -1` for none. `CommGetAsyncError` is left
//!   out.
//! - `int mwDoubleNcclScript(const char *script)`, `void mwDoubleNcclReset(void)`: set the script; forget the
//!   records.

// The signatures are NCCL's.
#![allow(clippy::too_many_arguments)]

mod abi;
mod api;
mod comm;
mod config;
mod control;
mod cuda;
mod entry;
mod exports;
mod group;
mod handle;
mod job;
mod kernel;
mod kernels;
mod key;
mod launch;
mod mesh;
mod numeric;
mod operation;
mod record;
mod script;
mod small_float;
mod stop;
mod wireup;
