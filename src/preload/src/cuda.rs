//! The CUDA runtime that the program brings, if it does: a communicator on host memory keeps the order of its
//! streams.
//!
//! It is looked for among what the program has loaded, and never loaded by us. One that has no device, as on
//! a machine where a program for GPUs runs without any, is as good as none.

use core::ffi::{CStr, c_int, c_uint, c_void};
use multiworld::error::{Code, Error, Extent, Result};
use multiworld::sync::OnceLock;
use multiworld::sys::dylib::{self, Dylib};

/// A cudaStream_t.
pub type Stream = *mut c_void;

/// cudaEventDisableTiming.
const DISABLE_TIMING: c_uint = 2;
/// Names under which programs open the runtime for themselves.
const NAMES: [&CStr; 4] = [c"libcudart.so.13", c"libcudart.so.12", c"libcudart.so.11.0", c"libcudart.so"];

macro_rules! runtime {
    ($($field:ident = $name:literal: fn($($type:ty),*);)*) => {
        /// Functions of the CUDA runtime.
        pub struct Runtime {
            $($field: unsafe extern "C" fn($($type),*) -> c_int,)*
        }

        impl Runtime {
            fn load(symbol: &dyn Fn(&CStr) -> Option<*mut c_void>) -> Option<Runtime> {
                Some(Runtime {
                    $($field: {
                        let address = symbol($name)?;
                        // SAFETY: the CUDA runtime declares the function of this name with this type.
                        unsafe {
                            std::mem::transmute::<*mut c_void, unsafe extern "C" fn($($type),*) -> c_int>(address)
                        }
                    },)*
                })
            }
        }
    };
}
runtime! {
    launch_host_func = c"cudaLaunchHostFunc": fn(Stream, unsafe extern "C" fn(*mut c_void), *mut c_void);
    event_create = c"cudaEventCreateWithFlags": fn(*mut *mut c_void, c_uint);
    event_record = c"cudaEventRecord": fn(*mut c_void, Stream);
    event_destroy = c"cudaEventDestroy": fn(*mut c_void);
    stream_wait_event = c"cudaStreamWaitEvent": fn(Stream, *mut c_void, c_uint);
    get_device = c"cudaGetDevice": fn(*mut c_int);
    set_device = c"cudaSetDevice": fn(c_int);
    get_device_count = c"cudaGetDeviceCount": fn(*mut c_int);
}

/// The program's CUDA runtime. A program may load one later, so that not having found it is not remembered.
pub fn runtime() -> Option<&'static Runtime> {
    static FOUND: OnceLock<Runtime> = OnceLock::new();
    if let Some(found) = FOUND.get() {
        return Some(found);
    }
    let loaded = || NAMES.iter().find_map(|name| Dylib::loaded(name));
    let runtime =
        Runtime::load(&dylib::global).or_else(|| loaded().and_then(|l| Runtime::load(&|n| l.symbol(n))))?;
    runtime.devices().filter(|n| *n > 0)?;
    Some(FOUND.get_or_init(|| runtime))
}

fn check(result: c_int, what: &str) -> Result<()> {
    if result == 0 {
        return Ok(());
    }
    Err(Error::new(Code::UnhandledCuda, Extent::Operation, format!("{what} failed with CUDA error {result}")))
}

impl Runtime {
    /// Devices; `None` where even asking fails.
    pub fn devices(&self) -> Option<c_int> {
        let mut count = 0;
        // SAFETY: `count` is writable.
        let result = unsafe { (self.get_device_count)(&mut count) };
        (result == 0).then_some(count)
    }

    /// This thread's device.
    pub fn device(&self) -> Result<c_int> {
        let mut device = 0;
        // SAFETY: `device` is writable.
        check(unsafe { (self.get_device)(&mut device) }, "cudaGetDevice")?;
        Ok(device)
    }

    /// Runs `body` with another device: a stream that is NULL, and events, are of the current one.
    pub fn on_device<T>(&self, device: c_int, body: impl FnOnce() -> Result<T>) -> Result<T> {
        let before = self.device()?;
        if before == device {
            return body();
        }
        // SAFETY: no pointers.
        check(unsafe { (self.set_device)(device) }, "cudaSetDevice")?;
        let result = body();
        // SAFETY: as above.
        check(unsafe { (self.set_device)(before) }, "cudaSetDevice")?;
        result
    }

    /// Runs `function(data)` when everything before it on the stream is done; what follows waits for it.
    ///
    /// # Safety
    /// `stream` is one of the runtime; `function` may be called once with `data` on any thread.
    pub unsafe fn launch(
        &self,
        stream: Stream,
        function: unsafe extern "C" fn(*mut c_void),
        data: *mut c_void,
    ) -> Result<()> {
        // SAFETY: by this function's contract.
        check(unsafe { (self.launch_host_func)(stream, function, data) }, "cudaLaunchHostFunc")
    }

    /// Everything on the stream up to now.
    pub fn mark(&'static self, stream: Stream) -> Result<Event> {
        let mut event = std::ptr::null_mut();
        // SAFETY: `event` is writable.
        check(unsafe { (self.event_create)(&mut event, DISABLE_TIMING) }, "cudaEventCreateWithFlags")?;
        let event = Event { runtime: self, event };
        event.record(stream)?;
        Ok(event)
    }
}

/// A place on a stream that others can wait for.
pub struct Event {
    runtime: &'static Runtime,
    event: *mut c_void,
}

// SAFETY: the runtime's functions may be called from any thread.
unsafe impl Send for Event {}

impl Event {
    /// Moves the place to the end of what is on the stream now.
    pub fn record(&self, stream: Stream) -> Result<()> {
        // SAFETY: our own event; the stream is the application's.
        check(unsafe { (self.runtime.event_record)(self.event, stream) }, "cudaEventRecord")
    }

    /// Makes a stream wait for it.
    pub fn hold(&self, stream: Stream) -> Result<()> {
        // SAFETY: as above.
        check(unsafe { (self.runtime.stream_wait_event)(stream, self.event, 0) }, "cudaStreamWaitEvent")
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        // SAFETY: our own event, once. Waits that are under way are not affected. There is nothing to do
        // about an error: the context may be gone.
        unsafe { (self.runtime.event_destroy)(self.event) };
    }
}
