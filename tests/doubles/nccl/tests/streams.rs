//! With CUDA, which here is its double: kernels on streams. Skipped where that double lacks its functions.

mod common;
use common::*;
use std::ffi::{CString, c_int, c_uint, c_void};
use std::path::Path;
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

struct Cuda(usize);

impl Cuda {
    /// A function of CUDA that takes and gives back machine words.
    fn call(&self, name: &str, arguments: [usize; 4]) -> c_int {
        let name = CString::new(name).expect("no NUL");
        // SAFETY: a live handle and a C string.
        let function = unsafe { libc::dlsym(self.0 as *mut c_void, name.as_ptr()) };
        assert!(!function.is_null(), "{name:?}");
        type Function = unsafe extern "C" fn(usize, usize, usize, usize) -> c_int;
        // SAFETY: the functions used here take at most four words, and ignore what is too many.
        let function: Function = unsafe { std::mem::transmute(function) };
        let [a, b, c, d] = arguments;
        // SAFETY: the tests pass what the functions ask for.
        unsafe { function(a, b, c, d) }
    }

    fn stream(&self) -> Mut {
        let mut stream = 0usize;
        let non_blocking: c_uint = 1;
        let place = &raw mut stream as usize;
        assert_eq!(self.call("cudaStreamCreateWithFlags", [place, non_blocking as usize, 0, 0]), 0);
        stream as Mut
    }

    fn wait(&self, stream: Mut) {
        assert_eq!(self.call("cudaStreamSynchronize", [stream as usize, 0, 0, 0]), 0);
    }

    fn is_idle(&self, stream: Mut) -> bool {
        self.call("cudaStreamQuery", [stream as usize, 0, 0, 0]) == 0
    }
}

/// The double of CUDA, for everybody in the process.
fn cuda() -> Option<&'static Cuda> {
    static ONE: OnceLock<Option<Cuda>> = OnceLock::new();
    ONE.get_or_init(|| {
        let test = std::env::current_exe().expect("a path");
        let folder = test.parent().and_then(Path::parent).expect("a target folder");
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
        cargo.args(["build", "--quiet", "-p", "multiworld-double-cuda"]);
        if folder.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(cargo.status().expect("cargo").success());
        let library = folder.join("libmwdouble_cuda.so").to_string_lossy().into_owned();
        let library = CString::new(library).expect("no NUL");
        // SAFETY: a C string; the library's constructors do nothing.
        let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_GLOBAL) };
        // SAFETY: a C string.
        let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, c"cudaLaunchHostFunc".as_ptr()) };
        if handle.is_null() || found.is_null() {
            println!("skipped: no double of CUDA");
            return None;
        }
        Some(Cuda(handle as usize))
    })
    .as_ref()
}

fn sum(comm: Comm, values: &mut [i32], stream: Mut) -> c_int {
    let place: Mut = values.as_mut_ptr().cast();
    // SAFETY: the values outlive the operation, or nobody writes to them.
    unsafe { ncclAllReduce(place, place, values.len(), INT, 0, comm, stream) }
}

#[test]
fn a_kernel_waits_on_its_stream_for_its_peers() {
    let Some(cuda) = cuda() else { return };
    let _turn = turn("");
    let mut comms = [NULL; 2];
    // SAFETY: room for two handles.
    assert_eq!(unsafe { ncclCommInitAll(comms.as_mut_ptr(), 2, std::ptr::null()) }, 0, "{}", last_error());
    let streams = [cuda.stream(), cuda.stream()];
    let (mut first, mut second) = ([1, 2], [3, 4]);
    // One thread, no group, blocking communicators: the first call must come back alone.
    assert_eq!(sum(comms[0], &mut first, streams[0]), 0);
    std::thread::sleep(Duration::from_millis(20));
    assert!(!cuda.is_idle(streams[0]));
    assert_eq!(sum(comms[1], &mut second, streams[1]), 0);
    streams.iter().for_each(|stream| cuda.wait(*stream));
    assert_eq!((first, second), ([4, 6], [4, 6]));
    comms.iter().for_each(|comm| assert_eq!(ncclCommDestroy(*comm), 0));
    assert_clean();
}

#[test]
fn one_launch_joins_its_streams() {
    let Some(cuda) = cuda() else { return };
    let _turn = turn("");
    world(2, false, |rank, comm| {
        let streams = [cuda.stream(), cuda.stream()];
        let (mut a, mut b) = ([1], [10]);
        // The second stream waits before the launch for what does not happen at once.
        unsafe extern "C" fn nap(_: *mut c_void) {
            std::thread::sleep(Duration::from_millis(30));
        }
        if rank == 0 {
            let function = nap as *const () as usize;
            assert_eq!(cuda.call("cudaLaunchHostFunc", [streams[1] as usize, function, 0, 0]), 0);
        }
        assert_eq!(ncclGroupStart(), 0);
        assert_eq!(sum(comm, &mut a, streams[0]), 0);
        assert_eq!(sum(comm, &mut b, streams[1]), 0);
        assert_eq!(done(comm, ncclGroupEnd()), 0);
        cuda.wait(streams[1]);
        assert_eq!((a, b), ([2], [20]));
        assert_eq!(ncclCommDestroy(comm), 0);
    });
    assert_clean();
}

#[test]
fn kernels_run_in_the_order_of_issue_whatever_their_streams() {
    let Some(cuda) = cuda() else { return };
    let _turn = turn("AllReduce/0@1=slow:40");
    world(2, false, |_, comm| {
        let streams = [cuda.stream(), cuda.stream()];
        let (mut a, mut b) = ([1; 3], [2; 5]);
        assert_eq!(done(comm, sum(comm, &mut a, streams[0])), 0);
        assert_eq!(done(comm, sum(comm, &mut b, streams[1])), 0);
        streams.iter().for_each(|stream| cuda.wait(*stream));
        assert_eq!((a, b), ([2; 3], [4; 5]));
        assert_eq!(ncclCommDestroy(comm), 0);
    });
    assert_clean();
}

#[test]
fn abort_can_be_held_up_by_a_healthy_neighbour() {
    let Some(cuda) = cuda() else { return };
    let _turn = turn("AllReduce@*=hang");
    let (sick, healthy) = (join(1, 0, new_id(), false), join(1, 0, new_id(), false));
    let streams = [cuda.stream(), cuda.stream()];
    let mut values = [1];
    assert_eq!(done(sick, sum(sick, &mut values, streams[0])), 0);
    assert_eq!(done(healthy, sum(healthy, &mut values, streams[1])), 0);
    assert_eq!(script("abort-syncs-device"), 0);
    std::thread::scope(|scope| {
        let abort = scope.spawn(move || ncclCommAbort(sick));
        eventually("the sick kernel's end", || cuda.is_idle(streams[0]));
        std::thread::sleep(Duration::from_millis(50));
        assert!(!abort.is_finished());
        assert_eq!(script(""), 0);
        assert_eq!(ncclCommAbort(healthy), 0);
        assert_eq!(abort.join().expect("the thread"), 0);
    });
    assert_clean();
}

#[test]
fn a_graph_holds_its_communicator() {
    let Some(cuda) = cuda() else { return };
    let _turn = turn("");
    let (comm, stream) = (join(1, 0, new_id(), true), cuda.stream());
    let (mut graph, mut ready) = (0usize, 0usize);
    let (from, mut to) = ([5], [0]);
    let relaxed = 2;
    assert_eq!(cuda.call("cudaStreamBeginCapture", [stream as usize, relaxed, 0, 0]), 0);
    // SAFETY: values that outlive the graph.
    let code =
        unsafe { ncclAllReduce(from.as_ptr().cast(), to.as_mut_ptr().cast(), 1, INT, 0, comm, stream) };
    assert_eq!(code, 0, "{}", last_error());
    assert_eq!(cuda.call("cudaStreamEndCapture", [stream as usize, &raw mut graph as usize, 0, 0]), 0);
    assert_eq!(cuda.call("cudaGraphInstantiate", [&raw mut ready as usize, graph, 0, 0]), 0);
    for _ in 0..3 {
        to[0] = 0;
        assert_eq!(cuda.call("cudaGraphLaunch", [ready, stream as usize, 0, 0]), 0);
        cuda.wait(stream);
        // SAFETY: a value of this test that the graph has written.
        assert_eq!(unsafe { (&raw const to[0]).read_volatile() }, 5);
    }
    std::thread::scope(|scope| {
        let abort = scope.spawn(move || ncclCommAbort(comm));
        std::thread::sleep(Duration::from_millis(60));
        assert!(!abort.is_finished());
        assert_eq!(cuda.call("cudaGraphExecDestroy", [ready, 0, 0, 0]), 0);
        assert_eq!(cuda.call("cudaGraphDestroy", [graph, 0, 0, 0]), 0);
        assert_eq!(abort.join().expect("the thread"), 0);
    });
    assert_clean();
}

#[test]
fn a_broken_device_is_an_error_and_not_a_hang() {
    let Some(cuda) = cuda() else { return };
    let _turn = turn("AllReduce@1=hang");
    let (comm, stream) = (join(1, 0, new_id(), false), cuda.stream());
    let mut values = [1];
    // The second one is still to run when the device breaks, and never will.
    for _ in 0..2 {
        assert_eq!(done(comm, sum(comm, &mut values, stream)), 0);
    }
    let illegal_address = 700;
    assert_eq!(cuda.call("mwDoubleCudaPoison", [0, illegal_address, 0, 0]), 0);
    assert_eq!(done(comm, sum(comm, &mut values, stream)), 1);
    assert_eq!(ncclCommAbort(comm), 1);
    assert_eq!(cuda.call("mwDoubleCudaHeal", [0, 0, 0, 0]), 0);
    assert_clean();
}
