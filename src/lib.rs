//! Many NCCL-like communicators ("worlds") per process, each its own fault domain.
//!
//! A process joins any number of worlds. When a member of one dies, hangs or is cut off, that world breaks on
//! all survivors within milliseconds, and every other world of the same processes goes on. Applications use
//! the crate through its C interface, `include/multiworld.h`, which is generated from [`capi`]; what is
//! public here besides is public for the tests, not a Rust API.
//!
//! # Three parts
//!
//! The names are those of the MultiWorld paper (arXiv 2407.08980).
//!
//! The **world manager** makes worlds. Members meet in a store ([`store`]), a small key-value server that one
//! of them hosts, or that runs alone (`mw store`) and outlives its process; [`rendezvous`] turns a name, or
//! a unique id, into a list that says how to reach each rank;
//! and [`world`] connects this rank to all others: a control link per process, shared memory per machine, a
//! TCP connection per rank elsewhere. After that the store is not needed any more. Leaving needs nobody's
//! permission: a member says good-bye, or aborts and does not even wait to be heard.
//!
//! The **world communicator** moves data. Every world has an engine ([`progress`]) that knows its unfinished
//! operations and one [`transport::Endpoint`] per peer. A collective is a plan ([`collective`]), pure data,
//! that the engine carries out as sends, receives and local steps. Nothing is shared between the engines of
//! two worlds, so none can wait for another.
//!
//! The **watchdog** ([`watchdog`]) knows who is alive. It has threads of its own, so a process that computes
//! for a minute is alive and one that died is noticed whatever the application is doing. It decides nothing
//! itself: what it hears goes to pure state machines ([`fault`]), and what these answer becomes the state of
//! the world.
//!
//! # Threads
//!
//! The caller's thread does the work. A call that waits drives the engines it waits for ([`progress::wait`]):
//! it spins for some microseconds, yields for some more, and then sleeps on a futex, or in epoll when sockets
//! are involved, until a peer rings its bell ([`sys::bell`]). Several threads may wait in one world; whoever
//! holds the engine's lock drives, and rings the others when something has moved. No thread is ever in a
//! system call that the end of a world could not wake it from.
//!
//! | thread | lives | does |
//! |---|---|---|
//! | `mw-watchdog` | from the first world on | control links, heartbeats, silence |
//! | `mw-sentinel` | from the first world on | waits for the death of processes on this machine; its own end tells of this one's |
//! | `mw-accept` | from the first world on | proof of the secret, from whoever connects |
//! | `mw-progress` | from the first `mwGroupSubmit` on | drives requests that nobody waits for |
//! | `mw-events` | from the first callback on | calls callbacks, one at a time |
//! | `mw-nccl` | from the first NCCL communicator on | their deadlines |
//! | `mw-nccl-poll` | as above | asks NCCL for their asynchronous errors |
//! | `mw-nccl-end` | while one ends | revokes and aborts it |
//! | `mw-store` | from hosting a store on | serves it |
//!
//! They are started once per process and end with it, which is why the library cannot be unloaded. A fork has
//! none of them, and its calls are refused.
//!
//! A world's locks (engine, health, suspects) are never held together, and no lock of the library is held
//! while a callback runs.
//!
//! # The life of a message
//!
//! 1. `mwSend` in [`capi`] looks up the handle, checks the arguments and makes a [`world::Call`] of them. A
//!    wrong one is refused here, before anything has happened. Inside a group the call is put on the thread's
//!    list, and the rest happens when the group ends.
//! 2. The world makes a [`progress::Operation`] and a ticket, on which the caller will wait. The engine
//!    queues it: point-to-point operations run side by side, a collective starts when everything before it is
//!    done.
//! 3. The endpoint puts a header in front: the [`types::Fingerprint`] of the call and its length. Shared
//!    memory ([`transport::shm`]) copies a short message into a ring, and of a long one announces only where
//!    it is, for the receiver to read it once, straight from the sender's memory (where the kernel does not
//!    allow that, long messages take the ring in pieces). Memory from `mwMemAlloc` is mapped by the peers that
//!    messages from it go to: they read it where it is ([`transport::shm::region`]). TCP ([`transport::tcp`]) writes from the caller's
//!    buffer.
//! 4. On the other side the endpoint compares the header with the receive that comes next. Both sides call in
//!    the same order, so there are no tags and nothing is ever received before it was asked for; a header
//!    that does not match is a mistake of the program, and breaks the world with both calls named. Otherwise
//!    the bytes go into the caller's buffer, or through a reduction kernel into it.
//! 5. When the last message of an operation is done, its ticket is, and the call returns.
//!
//! # The life of a failure
//!
//! 1. A process is killed. The first thing that the kernel does is to mark the robust futexes that its
//!    sentinel holds ([`sys::robust`]), long before it has freed its memory and closes its sockets. Every
//!    peer on the machine has one of these words to itself and its sentinel asleep on it. Peers on other
//!    machines are told by those, or see the control link close, whichever comes first. Of a process that is
//!    stopped or cut off nothing comes at all, and its heartbeats are missed.
//! 2. The watchdog hands "this process is gone" to every world that the process has members in, and to no
//!    other.
//! 3. The world asks [`fault::health`] what follows. The first failure ends an active world: from now on its
//!    state is broken, its error names the rank, and an event is published. Members who leave because of it
//!    are not taken for further culprits.
//! 4. The world's bell is rung. Whoever waits there finds the state changed, ends all unfinished operations
//!    with the world's error, and with that gives the callers their buffers back. Later calls get the same
//!    error.
//! 5. What only one member can have noticed (silence, a deadline, a mismatch, a revocation) it tells the
//!    others over the control links, so that all of them answer alike.
//!
//! An abort is the same from step 3 on, decided by the caller. If a thread cannot be brought to let go of a
//! world within a second, the world's memory is leaked and logged: the process is never ended, and never
//! hangs.
//!
//! # Trust
//!
//! Pointers from C are checked as far as that is possible, and handles are numbers that are looked up, never
//! followed ([`sync::slab`]). Every connection proves that it knows the world's secret before it is heard
//! ([`auth`]). What peers write, to a socket or into shared memory, is data: out of range, it is an error of
//! that world. A panic is caught at the C boundary and breaks the world it happened in.
//!
//! # Modules
//!
//! | module | does | I/O |
//! |---|---|---|
//! | [`capi`] | the C interface: checks, conversions, handles, groups | none |
//! | [`world`] | worlds, requests: joining, running, leaving, breaking | through the layers below |
//! | [`watchdog`] | control links, signs of life, the door for connections | own threads |
//! | [`rendezvous`] | from a name or an id to the list of members | through the store |
//! | [`backend`] | operations on device memory: a trait, and NCCL behind it | calls into NCCL |
//! | [`progress`] | the engine of a world, and waiting | through endpoints |
//! | [`collective`] | plans of the collectives, reduction kernels | none, pure |
//! | [`store`] | the key-value store where members meet: server, client, codec | sockets |
//! | [`transport`] | endpoints: shared memory, TCP, a scripted one for tests | sockets, memory |
//! | [`nccl`] | the genuine NCCL, loaded at run time, and its communicators' care | calls into NCCL and CUDA |
//! | [`fault`] | who has failed, and what follows | none, pure |
//! | [`observe`] | events, callbacks, log lines | stderr, one eventfd |
//! | [`sys`] | everything that is a system call | all of it |
//! | [`config`] | settings: the caller's, the environment's, defaults | environment |
//! | [`auth`] | challenge and response of every connection | a given stream |
//! | [`error`], [`types`], [`sync`] | the words that all of them share; locks, atomics and the handle table | none |
//!
//! Imports go downwards only, and modules on one line do not import each other:
//!
//! ```text
//! cli
//! capi | preload
//! world
//! watchdog | rendezvous
//! backend
//! progress
//! collective
//! store | transport | nccl | fault | observe
//! sys | config | auth
//! error | types | sync
//! ```
//!
//! `preload` and `cli` are packages of their own. Only [`sys`] names libc.
//! `tests/layers.rs` reads these lines, checks every import against them, and knows where unsafe code may be.
#![allow(non_camel_case_types)]

pub mod auth;
pub mod backend;
pub mod capi;
pub mod collective;
pub mod config;
pub mod error;
pub mod fault;
pub mod nccl;
pub mod observe;
pub mod progress;
pub mod rendezvous;
pub mod store;
pub mod sync;
pub mod sys;
pub mod transport;
pub mod types;
pub mod watchdog;
pub mod world;
