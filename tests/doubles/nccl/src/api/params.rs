//! The `ncclParam...` family, over a small table of variables whose values come from the environment.

use crate::abi::{Code, SUCCESS};
use crate::entry::Call;
use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};

/// The variables that the double knows, as C strings since callers get pointers to them.
const KEYS: [&CStr; 10] = [
    c"NCCL_DEBUG",
    c"NCCL_DEBUG_FILE",
    c"NCCL_DEBUG_SUBSYS",
    c"NCCL_SET_THREAD_NAME",
    c"NCCL_SOCKET_IFNAME",
    c"NCCL_COMM_BLOCKING",
    c"NCCL_MAX_CTAS",
    c"NCCL_MIN_CTAS",
    c"NCCL_LAUNCH_ORDER_IMPLICIT",
    c"NCCL_MULTI_RANK_GPU_ENABLE",
];

thread_local! {
    static STRING: RefCell<CString> = RefCell::default();
    static PARAMETER: RefCell<CString> = RefCell::default();
    static TABLE: RefCell<Vec<*const c_char>> = const { RefCell::new(Vec::new()) };
}

fn find(key: &CStr) -> Option<&'static CStr> {
    KEYS.into_iter().find(|known| *known == key)
}

fn value(key: &CStr) -> CString {
    let name = key.to_str().unwrap_or_default();
    let value = std::env::var(name).unwrap_or_default();
    CString::new(value).unwrap_or_default()
}

/// A handle is the address of a known key.
fn by_handle(handle: *const c_void) -> Option<&'static CStr> {
    KEYS.into_iter().find(|known| known.as_ptr().addr() == handle.addr())
}

/// # Safety
/// `key` is NULL or a C string.
unsafe fn by_name(key: *const c_char) -> Option<&'static CStr> {
    // SAFETY: not NULL, and the caller's promise.
    (!key.is_null()).then(|| unsafe { CStr::from_ptr(key) }).and_then(find)
}

/// `ncclParamBind`.
///
/// # Safety
/// `out` is NULL or writable, `key` is NULL or a C string.
pub unsafe fn bind(call: &Call, out: *mut *const c_void, key: *const c_char) -> Code {
    // SAFETY: the caller's promise.
    match unsafe { by_name(key) } {
        Some(known) if !out.is_null() => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { out.write(known.as_ptr().cast()) };
            SUCCESS
        }
        _ => call.invalid("no such parameter"),
    }
}

/// `ncclParamGetI8` to `ncclParamGetU64`: the value must be a number that fits.
///
/// # Safety
/// `out` is NULL or writable.
pub unsafe fn get_number<T: std::str::FromStr>(call: &Call, handle: *const c_void, out: *mut T) -> Code {
    let parsed =
        by_handle(handle).and_then(|key| value(key).to_str().ok().and_then(|text| text.parse().ok()));
    match parsed {
        Some(number) if !out.is_null() => {
            // SAFETY: not NULL, and the caller's promise.
            unsafe { out.write(number) };
            SUCCESS
        }
        _ => call.invalid("the parameter is no number that fits"),
    }
}

/// `ncclParamGetStr`.
///
/// # Safety
/// `out` is NULL or writable.
pub unsafe fn get_string(call: &Call, handle: *const c_void, out: *mut *const c_char) -> Code {
    let Some(key) = by_handle(handle).filter(|_| !out.is_null()) else {
        return call.invalid("no such parameter");
    };
    STRING.with_borrow_mut(|string| {
        *string = value(key);
        // SAFETY: not NULL, and the caller's promise.
        unsafe { out.write(string.as_ptr()) };
    });
    SUCCESS
}

/// `ncclParamGet`: the bytes of the value and its NUL.
///
/// # Safety
/// `out` has room for `room` bytes, `length` is NULL or writable.
pub unsafe fn get_raw(
    call: &Call,
    handle: *const c_void,
    out: *mut c_void,
    room: c_int,
    length: *mut c_int,
) -> Code {
    let Some(key) = by_handle(handle).filter(|_| !out.is_null()) else {
        return call.invalid("no such parameter");
    };
    let value = value(key);
    let bytes = value.as_bytes_with_nul();
    if usize::try_from(room).is_ok_and(|room| room < bytes.len()) || room < 0 {
        return call.invalid("the value does not fit");
    }
    // SAFETY: the caller's room was just found to be enough.
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), out.cast(), bytes.len());
        if !length.is_null() {
            length.write(bytes.len() as c_int);
        }
    }
    SUCCESS
}

/// `ncclParamGetParameter`.
///
/// # Safety
/// `key` is NULL or a C string, the places are NULL or writable.
pub unsafe fn get_by_name(
    call: &Call,
    key: *const c_char,
    out: *mut *const c_char,
    length: *mut c_int,
) -> Code {
    // SAFETY: the caller's promise.
    let Some(key) = unsafe { by_name(key) }.filter(|_| !out.is_null()) else {
        return call.invalid("no such parameter");
    };
    PARAMETER.with_borrow_mut(|string| {
        *string = value(key);
        // SAFETY: not NULL, and the caller's promise.
        unsafe {
            out.write(string.as_ptr());
            if !length.is_null() {
                length.write(string.as_bytes().len() as c_int);
            }
        }
    });
    SUCCESS
}

/// `ncclParamGetAllParameterKeys`.
///
/// # Safety
/// The places are NULL or writable.
pub unsafe fn all_keys(call: &Call, table: *mut *mut *const c_char, length: *mut c_int) -> Code {
    if table.is_null() || length.is_null() {
        return call.invalid("no place for the table");
    }
    TABLE.with_borrow_mut(|keys| {
        *keys = KEYS.iter().map(|key| key.as_ptr()).collect();
        // SAFETY: not NULL, and the caller's promise.
        unsafe {
            table.write(keys.as_mut_ptr());
            length.write(keys.len() as c_int);
        }
    });
    SUCCESS
}

/// `ncclParamDumpAll`.
pub fn dump_all(_: &Call) {
    for key in KEYS {
        eprintln!("mwdouble nccl: {}={}", key.to_string_lossy(), value(key).to_string_lossy());
    }
}
