//! Reductions that programs make: sums of what is multiplied first.
//!
//! Their numbers are given out once per process and not reused, so one that was destroyed, or belongs to
//! another communicator, is an error and never somebody else's.

use crate::arg::{self, Out};
use crate::comm::Comm;
use crate::handle;
use core::ffi::c_void;
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;
use multiworld::sync::RwLock;
use multiworld::sync::atomic::{AtomicU32, Ordering};
use multiworld::types::{DataType, Reduction};
use std::collections::BTreeMap;
use std::ptr;

/// A multiplier in memory that the operations reach.
#[derive(Clone, Copy)]
pub struct Scalar {
    at: *const u8,
    dtype: DataType,
}

// SAFETY: the caller promised with ncclScalarDevice that the pointer may be read, from any thread, until the
// operations that use it are done; the address itself is only a number.
unsafe impl Send for Scalar {}
// SAFETY: as above; it is only read through.
unsafe impl Sync for Scalar {}

impl Scalar {
    /// The reduction with what is there now.
    pub fn reduction(&self) -> Reduction {
        // SAFETY: valid by the promise above.
        Reduction::PreMulSum(unsafe { read(self.at, self.dtype) })
    }
}

#[derive(Clone, Copy)]
enum Made {
    Value([u8; 8], DataType),
    At(Scalar),
}

/// Those of one communicator.
pub struct Redops(RwLock<BTreeMap<ncclRedOp_t, Made>>);

impl Redops {
    /// None yet.
    pub fn new() -> Redops {
        Redops(RwLock::new(BTreeMap::new()))
    }

    /// The reduction with this number, or where to find its multiplier when the operation runs.
    pub fn find(&self, op: ncclRedOp_t, dtype: DataType) -> Result<(Reduction, Option<Scalar>)> {
        let made = *self.0.read().get(&op).ok_or_else(|| unknown(op))?;
        let had = match made {
            Made::Value(_, dtype) => dtype,
            Made::At(scalar) => scalar.dtype,
        };
        if had != dtype {
            let (had, wanted) = (had.name(), dtype.name());
            return Err(Error::argument(format!("op: {op} was made for {had}, not for {wanted}")));
        }
        Ok(match made {
            Made::Value(bytes, _) => (Reduction::PreMulSum(bytes), None),
            Made::At(scalar) => (Reduction::PreMulSum([0; 8]), Some(scalar)),
        })
    }

    fn insert(&self, made: Made) -> Result<ncclRedOp_t> {
        static NEXT: AtomicU32 = AtomicU32::new(ncclNumOps);
        let next = |op: u32| (op < ncclMaxRedOp).then_some(op + 1);
        let op = NEXT
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, next)
            .map_err(|_| Error::usage("op: this process has used up the numbers for operators"))?;
        self.0.write().insert(op, made);
        Ok(op)
    }

    fn remove(&self, op: ncclRedOp_t) -> Result<()> {
        if op < ncclNumOps {
            return Err(Error::argument(format!("op: {op} is built in and cannot be destroyed")));
        }
        self.0.write().remove(&op).map(drop).ok_or_else(|| unknown(op))
    }
}

#[cold]
fn unknown(op: ncclRedOp_t) -> Error {
    Error::argument(format!("op: {op} is neither built in nor an operator made for this communicator"))
}

/// # Safety
/// `at` points to one element; no alignment is assumed.
unsafe fn read(at: *const u8, dtype: DataType) -> [u8; 8] {
    let mut bytes = [0; 8];
    // SAFETY: an element has at most eight bytes, and they may be read by this function's contract.
    unsafe { ptr::copy_nonoverlapping(at, bytes.as_mut_ptr(), dtype.size()) };
    bytes
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclRedOpCreatePreMulSum(
    op: *mut ncclRedOp_t,
    scalar: *mut c_void,
    datatype: ncclDataType_t,
    residence: ncclScalarResidence_t,
    comm: ncclComm_t,
) -> Result<ncclResult_t> {
    let owner = handle::comm(comm)?;
    let host = match &**owner {
        Comm::Host(host) => host,
        Comm::Genuine(g) => {
            // SAFETY: this function's contract.
            return unsafe { g.create_operator(op, scalar, datatype, residence) };
        }
    };
    // SAFETY: writable by NCCL's contract.
    let out = unsafe { Out::new(op, "op") }?;
    let dtype = arg::datatype(datatype)?;
    if scalar.is_null() {
        return Err(Error::argument("scalar: NULL"));
    }
    host.world()?;
    let at = scalar.cast_const().cast();
    out.set(host.redops.insert(match residence {
        ncclScalarDevice => Made::At(Scalar { at, dtype }),
        // SAFETY: one element may be read by NCCL's contract.
        ncclScalarHostImmediate => Made::Value(unsafe { read(at, dtype) }, dtype),
        _ => return Err(Error::argument(format!("residence: {residence} is no ncclScalarResidence_t"))),
    })?);
    Ok(ncclSuccess)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclRedOpDestroy(op: ncclRedOp_t, comm: ncclComm_t) -> Result<ncclResult_t> {
    match &**handle::comm(comm)? {
        Comm::Host(host) => host.redops.remove(op).map(|()| ncclSuccess),
        Comm::Genuine(g) => g.destroy_operator(op),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operator_belongs_to_its_type_and_is_gone_once() {
        let table = Redops::new();
        let mut scalar = 0.5f32;
        let bytes = |x: f32| {
            let mut b = [0; 8];
            b[..4].copy_from_slice(&x.to_ne_bytes());
            Reduction::PreMulSum(b)
        };
        let at = (&raw mut scalar).cast::<u8>().cast_const();
        // SAFETY: one float.
        let value = unsafe { read(at, DataType::Float32) };
        let fixed = table.insert(Made::Value(value, DataType::Float32)).unwrap();
        let later = table.insert(Made::At(Scalar { at, dtype: DataType::Float32 })).unwrap();
        // SAFETY: a local variable, which is written through its pointer for the operator to read.
        unsafe { (&raw mut scalar).write(3.0) };
        let (reduction, none) = table.find(fixed, DataType::Float32).unwrap();
        assert!(reduction == bytes(0.5) && none.is_none());
        let (_, scalar) = table.find(later, DataType::Float32).unwrap();
        assert_eq!(scalar.unwrap().reduction(), bytes(3.0));
        assert!(table.find(fixed, DataType::Float64).err().unwrap().text.contains("was made for float32"));
        table.remove(fixed).unwrap();
        assert!(table.remove(fixed).is_err() && table.find(fixed, DataType::Float32).is_err());
        assert!(table.remove(ncclSum).unwrap_err().text.contains("built in"));
    }
}
