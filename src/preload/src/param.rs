//! Parameters. On host memory they are the NCCL_* variables of the environment: a key is the name of one that
//! is set.

use crate::arg::{self, Out};
use crate::genuine::forward;
use crate::handle;
use crate::mode::{self, Mode};
use core::ffi::{c_char, c_int, c_void};
use multiworld::error::{Error, Result};
use multiworld::nccl::types::*;
use multiworld::sync::Mutex;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::CString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::ptr;

/// A parameter that somebody has asked for.
pub struct Param {
    key: String,
}

/// Handles by key: they belong to the library, and a key has one.
static HANDLES: Mutex<BTreeMap<String, usize>> = Mutex::new(BTreeMap::new());

/// The keys that were given out last: the strings, and the table of their addresses.
type Keys = (Vec<CString>, Vec<*const c_char>);

thread_local! {
    /// Kept for the caller until its thread asks for the next one.
    static STRING: RefCell<CString> = RefCell::new(CString::default());
    static VALUE: RefCell<CString> = RefCell::new(CString::default());
    static KEYS: RefCell<Keys> = const { RefCell::new((Vec::new(), Vec::new())) };
}

fn value(key: &str) -> Result<CString> {
    let value = if key.starts_with("NCCL_") { std::env::var_os(key) } else { None };
    let value = value.ok_or_else(|| {
        Error::argument(format!("key: '{key}' is not the name of an NCCL_* variable that is set"))
    })?;
    // The environment holds C strings.
    CString::new(value.into_vec()).map_err(|_| Error::internal("a variable with a NUL in it"))
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclParamBind(out: *mut ncclParamHandle_t, key: *const c_char) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclParamBind(library, out, key) };
    }
    // SAFETY: writable, and a C string or NULL, by NCCL's contract.
    let (out, key) = unsafe { (Out::new(out, "out")?, arg::text(key, "key")?) };
    value(key)?;
    let mut handles = HANDLES.lock();
    let token = match handles.get(key) {
        Some(token) => *token,
        None => {
            let token = handle::issue_param(Param { key: key.to_owned() })?;
            handles.insert(key.to_owned(), token);
            token
        }
    };
    out.set(ptr::without_provenance_mut(token));
    Ok(ncclSuccess)
}

/// The number that a parameter is.
fn number<T: TryFrom<i128>>(h: ncclParamHandle_t) -> Result<T> {
    let param = handle::param(h)?;
    let value = value(&param.key)?;
    let text = value.to_string_lossy();
    let number = text.trim().parse::<i128>().ok().and_then(|n| T::try_from(n).ok());
    number.ok_or_else(|| {
        Error::argument(format!("h: {} is '{text}', which is no number of this type", param.key))
    })
}

macro_rules! numbers {
    ($($name:ident: $type:ty),*) => {$(
        /// # Safety
        /// As NCCL's function.
        pub unsafe fn $name(h: ncclParamHandle_t, out: *mut $type) -> Result<ncclResult_t> {
            if let Mode::Genuine(library) = mode::get()? {
                // SAFETY: this function's contract is that of the forwarded one.
                return unsafe { forward::$name(library, h, out) };
            }
            // SAFETY: writable by NCCL's contract.
            unsafe { Out::new(out, "out") }?.set(number(h)?);
            Ok(ncclSuccess)
        }
    )*};
}
numbers!(
    ncclParamGetI8: i8,
    ncclParamGetI16: i16,
    ncclParamGetI32: i32,
    ncclParamGetI64: i64,
    ncclParamGetU8: u8,
    ncclParamGetU16: u16,
    ncclParamGetU32: u32,
    ncclParamGetU64: u64
);

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclParamGetStr(h: ncclParamHandle_t, out: *mut *const c_char) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclParamGetStr(library, h, out) };
    }
    // SAFETY: writable by NCCL's contract.
    let out = unsafe { Out::new(out, "out") }?;
    let value = value(&handle::param(h)?.key)?;
    STRING.with_borrow_mut(|kept| {
        *kept = value;
        out.set(kept.as_ptr());
    });
    Ok(ncclSuccess)
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclParamGet(
    h: ncclParamHandle_t,
    out: *mut c_void,
    maxLen: c_int,
    len: *mut c_int,
) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclParamGet(library, h, out, maxLen, len) };
    }
    // SAFETY: writable by NCCL's contract.
    let (to, len) = unsafe { (Out::new(out.cast::<u8>(), "out"), Out::new(len, "len")?) };
    to?;
    let value = value(&handle::param(h)?.key)?;
    let bytes = value.as_bytes_with_nul();
    let room = usize::try_from(maxLen).unwrap_or(0);
    if room < bytes.len() {
        return Err(Error::argument(format!("maxLen: {maxLen} bytes cannot hold {}", bytes.len())));
    }
    // SAFETY: `maxLen` bytes may be written by NCCL's contract, and these are not more.
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), bytes.len()) };
    len.set(length(bytes.len())?);
    Ok(ncclSuccess)
}

fn length(n: usize) -> Result<c_int> {
    c_int::try_from(n).map_err(|_| Error::internal("longer than an int can say"))
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclParamGetParameter(
    key: *const c_char,
    value: *mut *const c_char,
    valueLen: *mut c_int,
) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclParamGetParameter(library, key, value, valueLen) };
    }
    // SAFETY: a C string or NULL, and writable, by NCCL's contract.
    let (key, out) = unsafe { (arg::text(key, "key")?, Out::new(value, "value")?) };
    let found = self::value(key)?;
    let len = length(found.as_bytes().len())?;
    VALUE.with_borrow_mut(|kept| {
        *kept = found;
        out.set(kept.as_ptr());
    });
    if !valueLen.is_null() {
        // SAFETY: writable by NCCL's contract.
        unsafe { Out::new(valueLen, "valueLen") }?.set(len);
    }
    Ok(ncclSuccess)
}

/// The variables that are set, by name.
fn keys() -> Vec<CString> {
    let names = std::env::vars_os().map(|(name, _)| name);
    let ours = names.filter(|name| name.as_bytes().starts_with(b"NCCL_"));
    let mut keys: Vec<CString> = ours.filter_map(|name| CString::new(name.into_vec()).ok()).collect();
    keys.sort();
    keys
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclParamGetAllParameterKeys(
    table: *mut *mut *const c_char,
    tableLen: *mut c_int,
) -> Result<ncclResult_t> {
    if let Mode::Genuine(library) = mode::get()? {
        // SAFETY: this function's contract is that of the forwarded one.
        return unsafe { forward::ncclParamGetAllParameterKeys(library, table, tableLen) };
    }
    // SAFETY: writable by NCCL's contract.
    let (table, len) = unsafe { (Out::new(table, "table")?, Out::new(tableLen, "tableLen")?) };
    KEYS.with_borrow_mut(|kept| {
        kept.0 = keys();
        kept.1 = kept.0.iter().map(|key| key.as_ptr()).collect();
        len.set(length(kept.1.len())?);
        table.set(kept.1.as_mut_ptr());
        Ok(ncclSuccess)
    })
}

/// # Safety
/// As NCCL's function.
pub unsafe fn ncclParamDumpAll() {
    if let Ok(Mode::Genuine(library)) = mode::get() {
        // SAFETY: no arguments. That an older library has no such function leaves nothing to print.
        let _ = unsafe { forward::ncclParamDumpAll(library) };
        return;
    }
    for key in keys() {
        let key = key.to_string_lossy();
        if let Ok(value) = value(&key) {
            tracing::info!("{key}={}", value.to_string_lossy());
        }
    }
}
