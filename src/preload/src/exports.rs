//! The exported symbols. Every function of the list is exported twice, as `ncclX` and `pncclX`, and both are
//! the function `ncclX` of one of this crate's modules inside a panic guard.

use crate::boundary::call;
use core::ffi::{c_char, c_int, c_uint, c_void};
use multiworld::nccl::types::*;

/// Every function by name, wherever it is.
mod by_name {
    pub(super) use crate::create::*;
    pub(super) use crate::device::*;
    pub(super) use crate::end::*;
    pub(super) use crate::group::*;
    pub(super) use crate::library::*;
    pub(super) use crate::memory::*;
    pub(super) use crate::operation::*;
    pub(super) use crate::param::*;
    pub(super) use crate::query::*;
    pub(super) use crate::redop::*;
    pub(super) use crate::reshape::*;
}

macro_rules! export {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        $(
            #[unsafe(no_mangle)]
            unsafe extern "C" fn $name($($arg: $type),*) $(-> $ret)? {
                // SAFETY: what the caller promises is NCCL's contract for the function of this name.
                call(|| unsafe { by_name::$name($($arg),*) })
            }
        )*

        /// For profilers that put themselves in front of `ncclX` and call this.
        mod profiling {
            use super::*;

            $(
                #[unsafe(export_name = concat!("p", stringify!($name)))]
                unsafe extern "C" fn $name($($arg: $type),*) $(-> $ret)? {
                    // SAFETY: what the caller promises is NCCL's contract for the function of this name.
                    call(|| unsafe { by_name::$name($($arg),*) })
                }
            )*
        }
    };
}
multiworld::nccl_functions!(export);
