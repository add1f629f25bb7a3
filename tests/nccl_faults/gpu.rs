//! The doubles as a rank steers them: streams and graphs of CUDA, and what only the doubles have.

use multiworld::nccl::{cuda, loader};
use multiworld::sys::dylib::Dylib;
use std::ffi::{CStr, CString, c_char, c_int, c_uint, c_void};
use std::path::Path;
use std::time::{Duration, Instant};

/// A function of the double of CUDA.
///
/// # Safety
/// It has the type `F`, a function pointer.
unsafe fn driver<F: Copy>(name: &CStr) -> F {
    let library = Dylib::open(Path::new("libcuda.so.1")).expect("the double of CUDA");
    let address = library.symbol(name).unwrap_or_else(|| panic!("no {name:?}"));
    assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
    // SAFETY: a function's address, of the type that the caller vouches for.
    unsafe { std::mem::transmute_copy(&address) }
}

/// The same of the double of NCCL.
///
/// # Safety
/// As for [`driver`].
unsafe fn nccl<F: Copy>(name: &CStr) -> F {
    let library = loader::get().expect("the double of NCCL");
    let address = library.symbol(name).unwrap_or_else(|| panic!("no {name:?}"));
    assert_eq!(size_of::<F>(), size_of::<*mut c_void>());
    // SAFETY: as above.
    unsafe { std::mem::transmute_copy(&address) }
}

/// A stream that waits for no other.
#[derive(Clone, Copy, Debug)]
pub struct Stream(pub *mut c_void);

// SAFETY: a token that CUDA takes from any thread.
unsafe impl Send for Stream {}
// SAFETY: as above.
unsafe impl Sync for Stream {}

impl Stream {
    pub fn new() -> Stream {
        cuda::bind(0).expect("a device");
        let mut stream = std::ptr::null_mut();
        // SAFETY: CUDA declares it so; `stream` is writable, and 1 is CU_STREAM_NON_BLOCKING.
        let result = unsafe {
            let create: unsafe extern "C" fn(*mut *mut c_void, c_uint) -> c_int = driver(c"cuStreamCreate");
            create(&mut stream, 1)
        };
        assert_eq!(result, 0);
        Stream(stream)
    }

    /// What CUDA says when all work is done, or `None` when it is not done in so long.
    pub fn idle(self, patience: Duration) -> Option<c_int> {
        // SAFETY: CUDA declares it so.
        let query: unsafe extern "C" fn(*mut c_void) -> c_int = unsafe { driver(c"cuStreamQuery") };
        let until = Instant::now() + patience;
        loop {
            // SAFETY: a live stream.
            match unsafe { query(self.0) } {
                600 if Instant::now() >= until => return None,
                600 => std::thread::sleep(Duration::from_micros(100)),
                result => return Some(result),
            }
        }
    }

    /// Captures what `body` issues; answers the graph.
    pub fn capture(self, body: impl FnOnce()) -> usize {
        cuda::bind(0).expect("a device");
        let mut graph: *mut c_void = std::ptr::null_mut();
        // SAFETY: CUDA declares them so; a live stream, 2 is the relaxed mode, `graph` is writable.
        unsafe {
            let begin: unsafe extern "C" fn(*mut c_void, c_int) -> c_int = driver(c"cuStreamBeginCapture_v2");
            let end: unsafe extern "C" fn(*mut c_void, *mut *mut c_void) -> c_int =
                driver(c"cuStreamEndCapture");
            assert_eq!(begin(self.0, 2), 0);
            body();
            assert_eq!(end(self.0, &mut graph), 0);
        }
        graph as usize
    }
}

pub fn destroy_graph(graph: usize) {
    // SAFETY: CUDA declares it so; a graph from `capture`, destroyed once.
    let result = unsafe {
        let destroy: unsafe extern "C" fn(*mut c_void) -> c_int = driver(c"cuGraphDestroy");
        destroy(graph as *mut c_void)
    };
    assert_eq!(result, 0);
}

/// Breaks device 0 for good.
pub fn poison(error: c_int) {
    // SAFETY: the double declares it so.
    let poison: unsafe extern "C" fn(c_int, c_int) -> c_int = unsafe { driver(c"mwDoubleCudaPoison") };
    // SAFETY: two numbers.
    assert_eq!(unsafe { poison(0, error) }, 0);
}

/// Sets the fault script.
pub fn script(text: &str) {
    let text = CString::new(text).expect("a script");
    // SAFETY: the double declares it so; a C string.
    let result = unsafe {
        let set: unsafe extern "C" fn(*const c_char) -> c_int = nccl(c"mwDoubleNcclScript");
        set(text.as_ptr())
    };
    assert_eq!(result, 0, "a mistake in the script");
}

/// How often a function was called, named without the `nccl`.
pub fn calls(name: &str) -> u64 {
    let name = CString::new(name).expect("a name");
    // SAFETY: the double declares it so; a C string.
    unsafe {
        let calls: unsafe extern "C" fn(*const c_char) -> u64 = nccl(c"mwDoubleNcclCalls");
        calls(name.as_ptr())
    }
}

/// How often NCCL's rules were broken, and how.
pub fn violations() -> (i32, String) {
    let mut text = vec![0u8; 4096];
    // SAFETY: the double declares it so; a buffer of that size.
    let count = unsafe {
        let ask: unsafe extern "C" fn(*mut c_char, usize) -> c_int = nccl(c"mwDoubleNcclViolations");
        ask(text.as_mut_ptr().cast(), text.len())
    };
    let text = CStr::from_bytes_until_nul(&text).map(|t| t.to_string_lossy().replace('\n', "; "));
    (count, text.unwrap_or_default())
}
