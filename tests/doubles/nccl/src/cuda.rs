//! The CUDA runtime or driver of the process, if it has one, found at run time: the standard functions that
//! order host work on streams. Without one, operations run in the call.

use std::ffi::{CStr, c_int, c_uint, c_void};
use std::mem::transmute_copy;
use std::sync::OnceLock;

/// A function that a stream's worker calls.
pub type HostFunction = unsafe extern "C" fn(*mut c_void);

type Plain = unsafe extern "C" fn() -> c_int;
type Pointer = unsafe extern "C" fn(*mut c_void) -> c_int;
type Number = unsafe extern "C" fn(c_int) -> c_int;
type TwoPointers = unsafe extern "C" fn(*mut c_void, *mut c_void) -> c_int;
type PointerAndSize = unsafe extern "C" fn(*mut c_void, usize) -> c_int;
type PointerAndFlags = unsafe extern "C" fn(*mut c_void, c_uint) -> c_int;
type TwoPointersAndFlags = unsafe extern "C" fn(*mut c_void, *mut c_void, c_uint) -> c_int;
type LaunchHost = unsafe extern "C" fn(*mut c_void, HostFunction, *mut c_void) -> c_int;
type CaptureSix = unsafe extern "C" fn(
    *mut c_void,
    *mut c_int,
    *mut u64,
    *mut *mut c_void,
    *mut c_void,
    *mut c_void,
) -> c_int;
type CaptureSeven = unsafe extern "C" fn(
    *mut c_void,
    *mut c_int,
    *mut u64,
    *mut *mut c_void,
    *mut c_void,
    *mut c_void,
    *mut c_void,
) -> c_int;
type CreateObject =
    unsafe extern "C" fn(*mut *mut c_void, *mut c_void, HostFunction, c_uint, c_uint) -> c_int;
type RetainObject = unsafe extern "C" fn(*mut c_void, *mut c_void, c_uint, c_uint) -> c_int;

/// A CUDA error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CudaError(pub c_int);

fn check(code: c_int) -> Result<(), CudaError> {
    if code == 0 { Ok(()) } else { Err(CudaError(code)) }
}

/// The functions. Runtime and driver agree on the signatures of all of them but two.
pub struct Cuda {
    get_device: Pointer,
    device_count: Pointer,
    set: Set,
    synchronize: Plain,
    allocate: PointerAndSize,
    free: Pointer,
    launch_host: LaunchHost,
    event_create: PointerAndFlags,
    event_record: TwoPointers,
    event_destroy: Pointer,
    stream_wait: TwoPointersAndFlags,
    capture: Option<Capture>,
    objects: Option<(CreateObject, RetainObject)>,
}

/// How a thread chooses its device: by number in the runtime, by context in the driver.
enum Set {
    Device(Number),
    Context { get: Pointer, set: Pointer },
}

enum Capture {
    Six(CaptureSix),
    Seven(CaptureSeven),
}

/// For an event that only orders.
const DISABLE_TIMING: c_uint = 2;

static CUDA: OnceLock<Option<Cuda>> = OnceLock::new();

/// A place to look functions up in.
#[derive(Clone, Copy)]
struct Library(*mut c_void);

impl Library {
    /// A library that the process has loaded already.
    fn loaded(name: &CStr) -> Option<Library> {
        // SAFETY: a NUL-terminated name; nothing is loaded by this.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOLOAD | libc::RTLD_LAZY) };
        (!handle.is_null()).then_some(Library(handle))
    }

    /// A function by the first of its names that the library has.
    ///
    /// # Safety
    /// `F` is the type of the function.
    unsafe fn find<F: Copy>(self, names: &[&CStr]) -> Option<F> {
        const { assert!(size_of::<F>() == size_of::<*mut c_void>()) };
        names.iter().find_map(|name| {
            // SAFETY: a handle from dlopen or RTLD_DEFAULT, and a NUL-terminated name.
            let address = unsafe { libc::dlsym(self.0, name.as_ptr()) };
            // SAFETY: not NULL, as large as a pointer, and of the type that the caller vouches for.
            (!address.is_null()).then(|| unsafe { transmute_copy(&address) })
        })
    }
}

impl Cuda {
    /// The process's CUDA. What is found stays; what is not found is looked for again next time.
    pub fn get() -> Option<&'static Cuda> {
        if CUDA.get().is_none() {
            let found = Cuda::find()?;
            return CUDA.get_or_init(|| Some(found)).as_ref();
        }
        CUDA.get().and_then(Option::as_ref)
    }

    fn find() -> Option<Cuda> {
        let everywhere = Library(libc::RTLD_DEFAULT);
        let runtimes = [c"libcudart.so.13", c"libcudart.so.12", c"libcudart.so"];
        let drivers = [c"libcuda.so.1", c"libcuda.so"];
        let runtime = std::iter::once(Some(everywhere)).chain(runtimes.map(Library::loaded));
        let driver = std::iter::once(Some(everywhere)).chain(drivers.map(Library::loaded));
        runtime
            .flatten()
            .find_map(Cuda::from_runtime)
            .or_else(|| driver.flatten().find_map(Cuda::from_driver))
    }

    fn from_runtime(library: Library) -> Option<Cuda> {
        // SAFETY: the types are those of cuda_runtime_api.h; for pointers to handles and integers a plain
        // pointer is passed alike.
        unsafe {
            let seven = library.find(&[c"cudaStreamGetCaptureInfo_v3"]).map(Capture::Seven);
            let six = || library.find(&[c"cudaStreamGetCaptureInfo_v2"]).map(Capture::Six);
            let plain = || library.find(&[c"cudaStreamGetCaptureInfo"]).map(Capture::Seven);
            let create = library.find(&[c"cudaUserObjectCreate"]);
            let retain = library.find(&[c"cudaGraphRetainUserObject"]);
            Some(Cuda {
                get_device: library.find(&[c"cudaGetDevice"])?,
                device_count: library.find(&[c"cudaGetDeviceCount"])?,
                set: Set::Device(library.find(&[c"cudaSetDevice"])?),
                synchronize: library.find(&[c"cudaDeviceSynchronize"])?,
                allocate: library.find(&[c"cudaMalloc"])?,
                free: library.find(&[c"cudaFree"])?,
                launch_host: library.find(&[c"cudaLaunchHostFunc"])?,
                event_create: library.find(&[c"cudaEventCreateWithFlags"])?,
                event_record: library.find(&[c"cudaEventRecord"])?,
                event_destroy: library.find(&[c"cudaEventDestroy"])?,
                stream_wait: library.find(&[c"cudaStreamWaitEvent"])?,
                capture: seven.or_else(six).or_else(plain),
                objects: create.zip(retain),
            })
        }
    }

    fn from_driver(library: Library) -> Option<Cuda> {
        // SAFETY: the types are those of cuda.h; handles, device pointers and CUdevice have the sizes used
        // here.
        unsafe {
            let seven = library.find(&[c"cuStreamGetCaptureInfo_v3"]).map(Capture::Seven);
            let six = || library.find(&[c"cuStreamGetCaptureInfo_v2"]).map(Capture::Six);
            let create = library.find(&[c"cuUserObjectCreate"]);
            let retain = library.find(&[c"cuGraphRetainUserObject"]);
            let get = library.find(&[c"cuCtxGetCurrent"])?;
            Some(Cuda {
                get_device: library.find(&[c"cuCtxGetDevice"])?,
                device_count: library.find(&[c"cuDeviceGetCount"])?,
                set: Set::Context { get, set: library.find(&[c"cuCtxSetCurrent"])? },
                synchronize: library.find(&[c"cuCtxSynchronize"])?,
                allocate: library.find(&[c"cuMemAlloc_v2", c"cuMemAlloc"])?,
                free: library.find(&[c"cuMemFree_v2", c"cuMemFree"])?,
                launch_host: library.find(&[c"cuLaunchHostFunc"])?,
                event_create: library.find(&[c"cuEventCreate"])?,
                event_record: library.find(&[c"cuEventRecord"])?,
                event_destroy: library.find(&[c"cuEventDestroy_v2", c"cuEventDestroy"])?,
                stream_wait: library.find(&[c"cuStreamWaitEvent"])?,
                capture: seven.or_else(six),
                objects: create.zip(retain),
            })
        }
    }

    /// How many devices there are.
    pub fn device_count(&self) -> Result<c_int, CudaError> {
        let mut count: c_int = 0;
        // SAFETY: a writable integer.
        check(unsafe { (self.device_count)((&raw mut count).cast()) }).map(|()| count)
    }

    /// Device memory, which with a double is host memory.
    pub fn allocate(&self, size: usize) -> Result<*mut c_void, CudaError> {
        let mut pointer = std::ptr::null_mut::<c_void>();
        // SAFETY: a writable pointer.
        check(unsafe { (self.allocate)((&raw mut pointer).cast(), size) }).map(|()| pointer)
    }

    /// Gives device memory back.
    pub fn free(&self, pointer: *mut c_void) -> Result<(), CudaError> {
        // SAFETY: CUDA refuses what it has not allocated.
        check(unsafe { (self.free)(pointer) })
    }

    /// Waits for the device.
    pub fn synchronize(&self) -> Result<(), CudaError> {
        // SAFETY: no arguments.
        check(unsafe { (self.synchronize)() })
    }

    /// Enqueues a call of `function` with `data`.
    ///
    /// # Safety `function` may be called with `data` on any thread, once, or once per launch of the graph
    /// that the stream is being captured into.
    pub unsafe fn launch_host(
        &self,
        stream: *mut c_void,
        function: HostFunction,
        data: *mut c_void,
    ) -> Result<(), CudaError> {
        // SAFETY: the caller's promise is the same; a stream that is none is CUDA's to refuse.
        check(unsafe { (self.launch_host)(stream, function, data) })
    }

    /// Whether calls of the thread's device succeed.
    fn probe(&self) -> Result<(), CudaError> {
        let mut event = std::ptr::null_mut::<c_void>();
        // SAFETY: a writable event, then that event.
        unsafe {
            check((self.event_create)((&raw mut event).cast(), DISABLE_TIMING))?;
            check((self.event_destroy)(event))
        }
    }

    /// Makes what is enqueued on `after` from now on wait for what `before` has now.
    pub fn join(&self, after: *mut c_void, before: *mut c_void) -> Result<(), CudaError> {
        let mut event = std::ptr::null_mut::<c_void>();
        // SAFETY: a writable event, then that event; CUDA keeps a destroyed event until it is done with it.
        unsafe {
            check((self.event_create)((&raw mut event).cast(), DISABLE_TIMING))?;
            let recorded = check((self.event_record)(event, before));
            let joined = recorded.and_then(|()| check((self.stream_wait)(after, event, 0)));
            check((self.event_destroy)(event))?;
            joined
        }
    }

    /// The graph that the stream is being captured into. `Some(NULL)` when CUDA does not tell which.
    pub fn capturing(&self, stream: *mut c_void) -> Result<Option<*mut c_void>, CudaError> {
        let (mut status, mut id, mut graph) = (0, 0, std::ptr::null_mut());
        let null = std::ptr::null_mut();
        check(match &self.capture {
            None => return Ok(None),
            // SAFETY: writable places for what is asked; the other results may be NULL.
            Some(Capture::Six(ask)) => unsafe { ask(stream, &mut status, &mut id, &mut graph, null, null) },
            // SAFETY: as above.
            Some(Capture::Seven(ask)) => unsafe {
                ask(stream, &mut status, &mut id, &mut graph, null, null, null)
            },
        })?;
        Ok((status == 1).then_some(graph))
    }

    /// Lets a graph own `data`: `destroy` is called with it when the graph is gone.
    ///
    /// # Safety
    /// `destroy` may be called once with `data` on any thread.
    pub unsafe fn give_to_graph(
        &self,
        graph: *mut c_void,
        data: *mut c_void,
        destroy: HostFunction,
    ) -> Result<(), CudaError> {
        const NO_DESTRUCTOR_SYNC: c_uint = 1;
        const MOVE: c_uint = 1;
        const NOT_SUPPORTED: CudaError = CudaError(801);
        let (create, retain) = self.objects.ok_or(NOT_SUPPORTED)?;
        let mut object = std::ptr::null_mut();
        // SAFETY: a writable handle, then that handle; the caller vouches for the destructor.
        unsafe {
            check(create(&mut object, data, destroy, 1, NO_DESTRUCTOR_SYNC))?;
            check(retain(graph, object, 1, MOVE))
        }
    }
}

/// The device that a communicator is bound to.
#[derive(Clone, Copy)]
pub struct Device {
    pub cuda: Option<&'static Cuda>,
    pub number: c_int,
    context: usize,
}

impl Device {
    /// The calling thread's device, or number 0 of nothing.
    pub fn current() -> Result<Device, CudaError> {
        let Some(cuda) = Cuda::get() else { return Ok(Device { cuda: None, number: 0, context: 0 }) };
        let mut number: c_int = 0;
        let mut context = std::ptr::null_mut::<c_void>();
        // SAFETY: a writable integer, and a writable context handle.
        unsafe {
            check((cuda.get_device)((&raw mut number).cast()))?;
            if let Set::Context { get, .. } = &cuda.set {
                check(get((&raw mut context).cast()))?;
            }
        }
        Ok(Device { cuda: Some(cuda), number, context: context.addr() })
    }

    /// The device of that number, which becomes the calling thread's. With the driver alone there is only the
    /// thread's own context to be had.
    pub fn select(number: c_int) -> Result<Device, CudaError> {
        let device = Device::current()?;
        if let Some(Cuda { set: Set::Device(set), .. }) = device.cuda {
            // SAFETY: a number; CUDA refuses one that is no device.
            check(unsafe { set(number) })?;
        }
        Ok(Device { number, ..device })
    }

    /// Makes this the calling thread's device.
    pub fn enter(&self) -> Result<(), CudaError> {
        match self.cuda.map(|cuda| &cuda.set) {
            None => Ok(()),
            // SAFETY: a number that CUDA has given us.
            Some(Set::Device(set)) => check(unsafe { set(self.number) }),
            Some(Set::Context { set, .. }) => {
                // SAFETY: the context that was current when the communicator was made.
                check(unsafe { set(std::ptr::with_exposed_provenance_mut(self.context)) })
            }
        }
    }

    /// Whether the device still works.
    pub fn probe(&self) -> Result<(), CudaError> {
        self.enter()?;
        self.cuda.map_or(Ok(()), Cuda::probe)
    }
}
