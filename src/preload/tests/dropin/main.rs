//! The drop-in as programs meet it: plain C programs (tests/nccl) that know nothing of it, as real processes.
//!
//! | module | does |
//! |---|---|
//! | `artifacts` | builds the library and compiles the programs, once |
//! | `launch` | starts ranks and waits for them |
//! | `host` | communicators on host memory |
//! | `doubles` | communicators of a genuine NCCL, which is a double |
//! | `scripts` | the same for programs with streams, failing by script |
//! | `faults` | ranks that are killed |
//! | `genuine` | against the genuine NCCL, where `MW_NCCL_LIB` names one |
//! | `symbols` | what the library exports |

mod artifacts;
mod doubles;
mod faults;
mod genuine;
mod host;
mod launch;
mod scripts;
mod symbols;
