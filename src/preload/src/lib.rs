//! A drop-in `libnccl.so.2` whose communicators are watched worlds.
//!
//! It exports every function of NCCL 2.32.3, each also under its `pnccl` name, and the `mw*` functions of the
//! library it is made of: one process has one watchdog, whichever of the two interfaces it uses.
//!
//! Which NCCL is behind the functions is decided by the first call that needs to know (`mode`): the genuine
//! one, or worlds on host memory. What an application holds as `ncclComm_t` is a number from a table
//! (`handle`) in both cases, so a stale one is an error and never a crash.
//!
//! | module | does |
//! |---|---|
//! | `exports` | the exported symbols: one panic guard each, then one call into a module below |
//! | `boundary`, `arg`, `handle`, `config`, `result` | what all functions share: the guard, checks, handles, codes |
//! | `mode` | genuine NCCL or host memory |
//! | `comm` | a communicator: of the host or genuine. Each family of functions decides in one place |
//! | `library`, `create`, `reshape`, `end`, `query`, `operation`, `redop`, `group`, `memory`, `param`, `device` | the functions, by family |
//! | `id` | what a unique id holds |
//! | `lanes` | making several communicators at once |
//! | `host` | communicators on host memory |
//! | `cuda` | the CUDA runtime that the program brings, if it does |
//! | `genuine` | communicators of the genuine NCCL |
// The contract of each function is NCCL's, and so are the names and the arguments.
#![allow(non_snake_case, non_upper_case_globals, clippy::too_many_arguments)]

mod arg;
mod boundary;
mod comm;
mod config;
mod create;
mod cuda;
mod device;
mod end;
mod exports;
mod genuine;
mod group;
mod handle;
mod host;
mod id;
mod lanes;
mod library;
mod memory;
mod mode;
mod operation;
mod param;
mod query;
mod redop;
mod reshape;
mod result;
