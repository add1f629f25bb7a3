//! Shared libraries, opened at run time.

use std::ffi::{CStr, CString, OsString, c_void};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// An open shared library. It stays open for the rest of the process: code of it may be running.
#[derive(Clone, Copy, Debug)]
pub struct Dylib(*mut c_void);

// SAFETY: the handle is a token for dlsym, which may be called from any thread; it is never closed.
unsafe impl Send for Dylib {}
// SAFETY: as above.
unsafe impl Sync for Dylib {}

/// Why the last dl call of this thread failed.
fn last_error() -> String {
    // SAFETY: dlerror answers null or a string that is valid until this thread's next dl call.
    unsafe {
        let text = libc::dlerror();
        if text.is_null() {
            return "unknown error".into();
        }
        CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

impl Dylib {
    /// Opens a library by path or, without a slash, as the loader finds it. Its symbols are nobody else's, and it
    /// prefers its own: a program may hold another library with the same ones.
    pub fn open(name: &Path) -> Result<Dylib, String> {
        let name =
            CString::new(name.as_os_str().as_bytes()).map_err(|_| "its path holds a NUL".to_string())?;
        // SAFETY: a C string; running a library's constructors is what the caller asks for.
        let handle =
            unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL | libc::RTLD_DEEPBIND) };
        if handle.is_null() { Err(last_error()) } else { Ok(Dylib(handle)) }
    }

    /// A library that the program has opened already, by the name that it was opened with or its soname; opens
    /// nothing.
    pub fn loaded(name: &CStr) -> Option<Dylib> {
        // SAFETY: a C string; with RTLD_NOLOAD no code runs.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_NOLOAD) };
        (!handle.is_null()).then_some(Dylib(handle))
    }

    /// Address of a symbol of the library or of what it depends on.
    pub fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        // SAFETY: the handle is open, for ever.
        let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
        (!address.is_null()).then_some(address)
    }
}

/// Address of a symbol that the program itself brings, by whatever library.
pub fn global(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: RTLD_DEFAULT needs no handle.
    let address = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!address.is_null()).then_some(address)
}

/// The file that an address of loaded code belongs to.
pub fn file_of(address: usize) -> Option<PathBuf> {
    // SAFETY: all zeros is a valid Dl_info.
    let mut info: libc::Dl_info = unsafe { std::mem::zeroed() };
    // SAFETY: dladdr looks the address up and does not dereference it; `info` is writable.
    let found = unsafe { libc::dladdr(address as *const c_void, &mut info) } != 0;
    if !found || info.dli_fname.is_null() {
        return None;
    }
    // SAFETY: a C string that lives as long as the library is loaded.
    let name = unsafe { CStr::from_ptr(info.dli_fname) };
    Some(PathBuf::from(OsString::from_vec(name.to_bytes().to_vec())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_open_and_those_that_are_missing_say_so() {
        let c = Dylib::open(Path::new("libc.so.6")).unwrap();
        let address = c.symbol(c"getpid").unwrap();
        assert!(file_of(address as usize).unwrap().to_string_lossy().contains("libc"));
        assert_eq!(c.symbol(c"no_such_symbol_anywhere"), None);
        assert!(Dylib::loaded(c"libc.so.6").is_some() && Dylib::loaded(c"libno_such.so.1").is_none());
        assert!(global(c"getpid").is_some() && global(c"no_such_symbol_anywhere").is_none());
        let e = Dylib::open(Path::new("/no/such/library.so")).unwrap_err();
        assert!(e.contains("/no/such/library.so"), "{e}");
    }
}
