//! `mwRedOp_t`: the built-in reductions, and sums of what is multiplied first.
//!
//! Numbers of made operators are given out once per process and not reused, so one that was destroyed, or
//! belongs to another world, is an error and never somebody else's operator.

use super::arg::Out;
use super::boundary::guard;
use super::datatype::{RawDataType, datatype};
use super::handle::{self, mwWorld_t};
use super::result::mwResult_t;
use crate::error::{Error, Result};
use crate::sync::RwLock;
use crate::types::{DataType, RedOp, Reduction};
use std::collections::BTreeMap;
use std::ffi::{c_int, c_void};
use std::ptr;

/// Reductions, with the values of ncclRedOp_t. mwRedOpCreatePreMulSum makes further ones, numbered from
/// mwNumOps.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mwRedOp_t {
    /// The sum.
    mwSum = 0,
    /// The product.
    mwProd = 1,
    /// The largest.
    mwMax = 2,
    /// The smallest.
    mwMin = 3,
    /// The sum divided by the number of ranks.
    mwAvg = 4,
    /// The number of built-in reductions; not one of them.
    mwNumOps = 5,
    /// No operator has a number above this one.
    mwMaxRedOp = 0x7fff_ffff,
}

/// A reduction as C passes it: shown as `mwRedOp_t` in the header.
pub type RawRedOp = c_int;

/// Where the scalar of mwRedOpCreatePreMulSum lies, and when it is read.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum mwScalarResidence_t {
    /// In memory that the operations reach (host memory on the host backend): read by every operation that
    /// uses it when that is posted, so it must stay valid until the operator is destroyed.
    mwScalarDevice = 0,
    /// In host memory: read by mwRedOpCreatePreMulSum itself.
    mwScalarHostImmediate = 1,
}

/// A residence as C passes it: shown as `mwScalarResidence_t` in the header.
pub type RawScalarResidence = c_int;

#[derive(Clone, Copy)]
enum Scalar {
    Value([u8; 8]),
    At(*const u8),
}

// SAFETY: the caller promised with mwScalarDevice that the pointer may be read, from any thread, while the
// operator exists; the address itself is only a number.
unsafe impl Send for Scalar {}
// SAFETY: as above; it is only read through.
unsafe impl Sync for Scalar {}

struct Made {
    dtype: DataType,
    scalar: Scalar,
}

/// The made operators, by world and number.
struct Table {
    next: c_int,
    made: BTreeMap<(usize, c_int), Made>,
}

static MADE: RwLock<Table> = RwLock::new(Table::new());

impl Table {
    const fn new() -> Table {
        Table { next: mwRedOp_t::mwNumOps as c_int, made: BTreeMap::new() }
    }

    fn insert(&mut self, world: usize, made: Made) -> Result<c_int> {
        if self.next == mwRedOp_t::mwMaxRedOp as c_int {
            return Err(Error::usage("op: this process has used up the numbers for operators"));
        }
        let op = self.next;
        self.next += 1;
        self.made.insert((world, op), made);
        Ok(op)
    }

    fn remove(&mut self, world: usize, op: c_int) -> Result<()> {
        if RedOp::from_raw(op).is_some() {
            return Err(Error::argument(format!("op: {op} is built in and cannot be destroyed")));
        }
        self.made.remove(&(world, op)).map(drop).ok_or_else(|| unknown(op))
    }

    fn reduction(
        &self,
        world: usize,
        op: c_int,
        dtype: DataType,
        on_device: bool,
    ) -> Result<(Reduction, bool)> {
        let made = self.made.get(&(world, op)).ok_or_else(|| unknown(op))?;
        if made.dtype != dtype {
            let (had, wanted) = (made.dtype.name(), dtype.name());
            return Err(Error::argument(format!("op: {op} was made for {had}, not for {wanted}")));
        }
        match made.scalar {
            Scalar::Value(bytes) => Ok((Reduction::PreMulSum(bytes), false)),
            Scalar::At(ptr) if on_device => Ok((Reduction::PreMulSum(ptr.addr().to_ne_bytes()), true)),
            // SAFETY: valid while the operator exists, as mwScalarDevice demands; we hold the table's lock,
            // so it does.
            Scalar::At(ptr) => Ok((Reduction::PreMulSum(unsafe { read(ptr, dtype) }), false)),
        }
    }
}

fn unknown(op: c_int) -> Error {
    Error::argument(format!("op: {op} is neither built in nor an operator made for this world"))
}

/// # Safety
/// `ptr` points to one element; no alignment is assumed.
unsafe fn read(ptr: *const u8, dtype: DataType) -> [u8; 8] {
    let mut bytes = [0; 8];
    // SAFETY: an element has at most eight bytes, and they may be read by this function's contract.
    unsafe { ptr::copy_nonoverlapping(ptr, bytes.as_mut_ptr(), dtype.size()) };
    bytes
}

/// The reduction that an operation of a world uses, and whether its scalar is the address of one in device memory, where
/// only the operation itself can read it.
pub(super) fn reduction(
    world: mwWorld_t,
    op: RawRedOp,
    dtype: DataType,
    on_device: bool,
) -> Result<(Reduction, bool)> {
    match RedOp::from_raw(op) {
        Some(builtin) => Ok((Reduction::Builtin(builtin), false)),
        None => MADE.read().reduction(world.addr(), op, dtype, on_device),
    }
}

/// Forgets the operators of a world that is gone.
pub(super) fn forget(world: mwWorld_t) {
    MADE.write().made.retain(|&(owner, _), _| owner != world.addr());
}

/// Makes an operator for one world and one data type: every rank's input is multiplied by that rank's
/// `scalar`, one element of the type, and the products are summed. `residence` says where the scalar lies and
/// when it is read. Each rank makes its own; the numbers need not agree. Freed with mwRedOpDestroy or with
/// the world.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mwRedOpCreatePreMulSum(
    op: *mut RawRedOp,
    scalar: *const c_void,
    datatype: RawDataType,
    residence: RawScalarResidence,
    world: mwWorld_t,
) -> mwResult_t {
    guard(|| {
        // SAFETY: writable by the contract of every output argument; the scalar is this function's contract.
        unsafe {
            let out = Out::new(op, "op")?;
            let made = made(scalar, datatype, residence)?;
            let mut table = MADE.write();
            // Under the lock: a world that ends now is found here or forgets the new operator, too.
            handle::world(world)?;
            out.set(table.insert(world.addr(), made)?);
        }
        Ok(())
    })
}

/// # Safety
/// `scalar` is NULL or points to one element of the type.
unsafe fn made(scalar: *const c_void, raw: RawDataType, residence: RawScalarResidence) -> Result<Made> {
    let dtype = datatype(raw)?;
    if scalar.is_null() {
        return Err(Error::argument("scalar: NULL"));
    }
    let at = scalar.cast();
    let scalar = match residence {
        0 => Scalar::At(at),
        // SAFETY: by this function's contract.
        1 => Scalar::Value(unsafe { read(at, dtype) }),
        _ => return Err(Error::argument(format!("residence: {residence} is no mwScalarResidence_t"))),
    };
    Ok(Made { dtype, scalar })
}

/// Destroys an operator of a world. Operations that were posted with it are not affected.
#[unsafe(no_mangle)]
pub extern "C" fn mwRedOpDestroy(op: RawRedOp, world: mwWorld_t) -> mwResult_t {
    guard(|| {
        handle::world(world)?;
        MADE.write().remove(world.addr(), op)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn float(value: &f32, residence: mwScalarResidence_t) -> Result<Made> {
        // SAFETY: one element, which outlives the table of each test.
        unsafe { made(ptr::from_ref(value).cast(), DataType::Float32 as c_int, residence as c_int) }
    }

    fn bytes(value: f32) -> Reduction {
        let mut bytes = [0; 8];
        bytes[..4].copy_from_slice(&value.to_ne_bytes());
        Reduction::PreMulSum(bytes)
    }

    #[test]
    fn an_operator_belongs_to_its_world_and_type() {
        let mut table = Table::new();
        let op = table.insert(1, float(&0.5, mwScalarResidence_t::mwScalarHostImmediate).unwrap()).unwrap();
        assert_eq!(op, 5);
        assert_eq!(table.reduction(1, op, DataType::Float32, false), Ok((bytes(0.5), false)));
        assert_eq!(
            table.reduction(1, op, DataType::Float64, false).unwrap_err().to_string(),
            "op: 5 was made for float32, not for float64"
        );
        let elsewhere = table.reduction(2, op, DataType::Float32, false).unwrap_err().to_string();
        assert_eq!(elsewhere, "op: 5 is neither built in nor an operator made for this world");
        table.remove(2, op).unwrap_err();
        table.remove(1, op).unwrap();
        table.remove(1, op).unwrap_err();
        table.reduction(1, op, DataType::Float32, false).unwrap_err();
        let next = table.insert(1, float(&1.0, mwScalarResidence_t::mwScalarHostImmediate).unwrap());
        assert_eq!(next, Ok(6));
        assert!(table.remove(1, 0).unwrap_err().to_string().contains("built in"));
        table.next = c_int::MAX;
        let full = table.insert(1, float(&1.0, mwScalarResidence_t::mwScalarHostImmediate).unwrap());
        assert_eq!(full.unwrap_err().code, crate::error::Code::InvalidUsage);
    }

    #[test]
    fn a_device_scalar_is_read_when_it_is_used() {
        let mut scalar = 2.0f32;
        let mut table = Table::new();
        let at = (&raw mut scalar).cast_const().cast();
        // SAFETY: one element that outlives the table.
        let made = unsafe { made(at, DataType::Float32 as c_int, 0) }.unwrap();
        let op = table.insert(1, made).unwrap();
        // SAFETY: as above.
        unsafe { (&raw mut scalar).write(3.0) };
        assert_eq!(table.reduction(1, op, DataType::Float32, false), Ok((bytes(3.0), false)));
    }

    #[test]
    fn wrong_arguments_are_named() {
        let text = |scalar: *const c_void, dtype, residence| {
            // SAFETY: refused before anything is read.
            unsafe { made(scalar, dtype, residence) }.err().unwrap().to_string()
        };
        let one = 1.0f32;
        let at = ptr::from_ref(&one).cast();
        assert_eq!(text(ptr::null(), 7, 1), "scalar: NULL");
        assert_eq!(text(at, 12, 1), "datatype: 12 is no mwDataType_t");
        assert_eq!(text(at, 7, 2), "residence: 2 is no mwScalarResidence_t");
    }
}
