//! The library that was found: a table of its functions.

use super::types::*;
use crate::error::{Code, Error, Extent, Result};
use crate::sys::dylib::Dylib;
use core::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::path::{Path, PathBuf};

macro_rules! table {
    ($(fn $name:ident($($arg:ident: $type:ty),*) $(-> $ret:ty)?;)*) => {
        /// NCCL's functions by name; `None` for those that the library does not have.
        #[allow(missing_docs, non_snake_case)]
        #[derive(Clone, Copy, Debug)]
        pub struct Functions {
            $(pub $name: Option<unsafe extern "C" fn($($arg: $type),*) $(-> $ret)?>,)*
        }

        impl Functions {
            /// An empty table.
            #[cfg(test)]
            pub fn none() -> Functions {
                Functions { $($name: None,)* }
            }

            /// The functions that a library has.
            pub fn load(dylib: &Dylib) -> Functions {
                Functions {
                    $($name: {
                        const NAME: &CStr = match CStr::from_bytes_with_nul(concat!(stringify!($name), "\0").as_bytes()) {
                            Ok(name) => name,
                            Err(_) => panic!("a name without NUL"),
                        };
                        // SAFETY: NCCL declares the function of this name with this type, and appends to its structs
                        // only; both null and a function's address are valid values of the optional pointer.
                        dylib.symbol(NAME).map(|address| unsafe {
                            core::mem::transmute::<
                                *mut c_void,
                                unsafe extern "C" fn($($type),*) $(-> $ret)?,
                            >(address)
                        })
                    },)*
                }
            }
        }
    };
}
crate::nccl_functions!(table);

/// What is known to go wrong with a version.
fn trouble(version: u32) -> Option<&'static str> {
    match version {
        0..21903 => Some("it is older than 2.19.3, and aborting its communicators is not reliable"),
        22501 => Some("aborting its communicators is known to hang"),
        22600..22700 => Some("its non-blocking communicators are known to hang"),
        _ => None,
    }
}

/// An open NCCL.
#[derive(Clone, Debug)]
pub struct Library {
    /// Where it was found.
    pub path: PathBuf,
    /// As [`NCCL_VERSION_CODE`] counts: 23203 is 2.32.3.
    pub version: u32,
    /// Its functions.
    pub functions: Functions,
    /// None in tests that make a table themselves.
    dylib: Option<Dylib>,
}

impl Library {
    /// Opens the library at `path`. Libraries that are multiworld's own stand-in are refused: it would forward to
    /// itself for ever.
    pub fn open(path: &Path) -> Result<Library> {
        let refused = |why: &str| {
            Error::new(Code::System, Extent::Operation, format!("NCCL at '{}': {why}", path.display()))
        };
        let dylib = Dylib::open(path).map_err(|e| refused(&e))?;
        if dylib.symbol(c"mwGetVersion").is_some() {
            return Err(refused("it is multiworld's own stand-in for NCCL"));
        }
        let functions = Functions::load(&dylib);
        let get_version =
            functions.ncclGetVersion.ok_or_else(|| refused("it has no function ncclGetVersion"))?;
        let mut version = 0;
        // SAFETY: `version` is writable.
        let result = unsafe { get_version(&mut version) };
        if result != ncclSuccess || version <= 0 {
            return Err(refused(&format!("ncclGetVersion failed with result {result}")));
        }
        let library =
            Library { path: path.to_path_buf(), version: version as u32, functions, dylib: Some(dylib) };
        if let Some(why) = trouble(library.version) {
            tracing::warn!("NCCL {} at '{}': {why}", library.version_text(), path.display());
        }
        Ok(library)
    }

    /// A library that is a table made by a test.
    #[cfg(test)]
    pub fn of(version: u32, functions: Functions) -> Library {
        Library { path: PathBuf::from("a test"), version, functions, dylib: None }
    }

    /// The version as people write it.
    pub fn version_text(&self) -> String {
        version_text(self.version)
    }

    /// Address of a symbol that is not in the table.
    pub fn symbol(&self, name: &CStr) -> Option<*mut c_void> {
        self.dylib?.symbol(name)
    }

    /// The error of a call that this version does not know.
    #[cold]
    pub fn missing(&self, name: &str) -> Error {
        let (path, version) = (self.path.display(), self.version_text());
        Error::usage(format!("{name}: NCCL {version} at '{path}' does not have this function"))
    }
}

/// `2.32.3` for 23203; before 2.9, minor versions had one digit only.
pub fn version_text(code: u32) -> String {
    let (major, minor, patch) = match code {
        0..10_000 => (code / 1000, code / 100 % 10, code % 100),
        _ => (code / 10_000, code / 100 % 100, code % 100),
    };
    format!("{major}.{minor}.{patch}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_read_as_people_write_them() {
        assert_eq!(version_text(NCCL_VERSION_CODE), "2.32.3");
        assert_eq!((version_text(21903), version_text(2804)), ("2.19.3".into(), "2.8.4".into()));
    }

    #[test]
    fn what_is_not_nccl_is_refused() {
        let e = Library::open(Path::new("/no/such/libnccl.so.2")).unwrap_err();
        assert!(e.text.contains("/no/such/libnccl.so.2"), "{e}");
        let e = Library::open(Path::new("libc.so.6")).unwrap_err();
        assert!(e.text.contains("ncclGetVersion"), "{e}");
    }
}
