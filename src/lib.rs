//! Many NCCL-like communicators ("worlds") per process, each its own fault domain.
#![allow(non_camel_case_types)]

pub mod auth;
pub mod capi;
pub mod collective;
pub mod config;
pub mod error;
pub mod fault;
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
