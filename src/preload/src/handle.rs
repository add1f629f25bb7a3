//! What C holds in place of communicators, registered buffers and parameters: numbers from tables, in the
//! shape of pointers; never followed.

use crate::comm::Comm;
use crate::genuine::express;
use crate::memory::Registration;
use crate::param::Param;
use multiworld::error::{Error, Result};
use multiworld::nccl::types::{ncclComm_t, ncclParamHandle_t};
use multiworld::sync::Arc;
use multiworld::sync::slab::{Guard, Slab, kind_of};
use std::ptr;

const COMM: u16 = 0x3c1;
const REGISTRATION: u16 = 0x51d;
const PARAM: u16 = 0x65b;

static COMMS: Slab<Comm> = Slab::new(COMM);
static REGISTRATIONS: Slab<Registration> = Slab::new(REGISTRATION);
static PARAMS: Slab<Param> = Slab::new(PARAM);

/// The communicator of a handle.
#[inline]
pub fn comm(handle: ncclComm_t) -> Result<Guard<'static, Comm>> {
    COMMS.get(handle.addr()).ok_or_else(|| bad("comm", "communicator", COMM, handle.addr()))
}

/// Whether a handle is still good.
pub fn is_live(handle: ncclComm_t) -> bool {
    COMMS.is_live(handle.addr())
}

/// A handle for a communicator.
pub fn issue_comm(comm: Comm) -> Result<ncclComm_t> {
    let token = COMMS.insert(Arc::new(comm)).ok_or_else(|| full("communicators"))?;
    Ok(ptr::without_provenance_mut(token))
}

/// Takes the handle away from everybody; once per handle.
pub fn remove_comm(handle: ncclComm_t) -> Result<Arc<Comm>> {
    express::withdraw(handle);
    COMMS.remove(handle.addr()).ok_or_else(|| bad("comm", "communicator", COMM, handle.addr()))
}

/// A token for a registered buffer.
pub fn issue_registration(registration: Registration) -> Result<usize> {
    REGISTRATIONS.insert(Arc::new(registration)).ok_or_else(|| full("registered buffers"))
}

/// The registered buffer of a token.
pub fn registration(token: usize, argument: &str) -> Result<Guard<'static, Registration>> {
    REGISTRATIONS.get(token).ok_or_else(|| bad(argument, "registered buffer", REGISTRATION, token))
}

/// Takes the token away from everybody; once per token.
pub fn remove_registration(token: usize, argument: &str) -> Result<Arc<Registration>> {
    REGISTRATIONS.remove(token).ok_or_else(|| bad(argument, "registered buffer", REGISTRATION, token))
}

/// A handle for a parameter.
pub fn issue_param(param: Param) -> Result<usize> {
    PARAMS.insert(Arc::new(param)).ok_or_else(|| full("parameters"))
}

/// The parameter of a handle.
pub fn param(handle: ncclParamHandle_t) -> Result<Guard<'static, Param>> {
    PARAMS.get(handle.addr()).ok_or_else(|| bad("h", "parameter", PARAM, handle.addr()))
}

#[cold]
fn full(what: &str) -> Error {
    Error::usage(format!("this process has as many {what} as there are handles; free some"))
}

#[cold]
fn bad(argument: &str, wanted: &str, kind: u16, handle: usize) -> Error {
    let what = match kind_of(handle) {
        _ if handle == 0 => return Error::argument(format!("{argument}: NULL")),
        Some(k) if k == kind => {
            return Error::argument(format!("{argument}: {handle:#x} is no {wanted} any more"));
        }
        Some(COMM) => "a communicator",
        Some(REGISTRATION) => "a registered buffer",
        Some(PARAM) => "a parameter",
        _ => "no handle of this library",
    };
    Error::argument(format!("{argument}: {handle:#x} is {what}, not a {wanted}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_handles_are_told_apart() {
        let text = |handle| comm(ptr::without_provenance_mut(handle)).err().map(|e| e.to_string());
        assert_eq!(text(0).as_deref(), Some("comm: NULL"));
        assert_eq!(
            text(0x10).as_deref(),
            Some("comm: 0x10 is no handle of this library, not a communicator")
        );
        let token = Slab::new(REGISTRATION).insert(Arc::new(())).unwrap();
        assert!(text(token).unwrap().ends_with("is a registered buffer, not a communicator"));
        let token = Slab::new(COMM).insert(Arc::new(())).unwrap();
        assert!(text(token).unwrap().ends_with("is no communicator any more"));
    }
}
