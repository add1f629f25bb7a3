//! With the CUDA driver alone, opened for nobody else: how a program without the runtime has it. This test
//! starts itself where the driver's double is on the loader's path.

mod common;
use common::*;
use std::ffi::{CString, c_int, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;

const ROLE: &str = "MW_DOUBLE_TEST_DRIVER";

/// A function of the driver that takes machine words.
fn call(driver: *mut c_void, name: &str, arguments: [usize; 3]) -> c_int {
    let name = CString::new(name).expect("no NUL");
    // SAFETY: a live handle and a C string.
    let function = unsafe { libc::dlsym(driver, name.as_ptr()) };
    assert!(!function.is_null(), "{name:?}");
    type Function = unsafe extern "C" fn(usize, usize, usize) -> c_int;
    // SAFETY: the functions used here take at most three words, and ignore what is too many.
    let function: Function = unsafe { std::mem::transmute(function) };
    let [a, b, c] = arguments;
    // SAFETY: the test passes what the functions ask for.
    unsafe { function(a, b, c) }
}

fn driver_of_process() -> *mut c_void {
    // SAFETY: a C string.
    let driver = unsafe { libc::dlopen(c"libcuda.so.1".as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    assert!(!driver.is_null());
    driver
}

#[test]
fn child() {
    if std::env::var_os(ROLE).is_none() {
        return;
    }
    let driver = driver_of_process();
    let (mut context, mut stream) = (0usize, 0usize);
    assert_eq!(call(driver, "cuInit", [0; 3]), 0);
    assert_eq!(call(driver, "cuDevicePrimaryCtxRetain", [&raw mut context as usize, 0, 0]), 0);
    assert_eq!(call(driver, "cuCtxSetCurrent", [context, 0, 0]), 0);
    assert_eq!(call(driver, "cuStreamCreate", [&raw mut stream as usize, 1, 0]), 0);
    let id = new_id();
    let other = std::thread::spawn(move || {
        // The current context is the thread's.
        let driver = driver_of_process();
        assert_eq!(call(driver, "cuCtxSetCurrent", [context, 0, 0]), 0);
        assert_eq!(ncclCommAbort(join(2, 1, id, false)), 0);
    });
    let comm = join(2, 0, id, false);
    let mut value = 1;
    let place: Mut = std::ptr::from_mut(&mut value).cast();
    // SAFETY: one value that outlives the communicator.
    let code = unsafe { ncclAllReduce(place, place, 1, INT, 0, comm, stream as Mut) };
    assert_eq!(done(comm, code), 0, "enqueued, although the other rank is not there");
    assert_ne!(call(driver, "cuStreamQuery", [stream, 0, 0]), 0);
    assert_eq!(ncclCommAbort(comm), 0);
    other.join().expect("the other rank");
    assert_eq!(call(driver, "cuStreamSynchronize", [stream, 0, 0]), 0);
    assert_clean();
    println!("PASSED");
}

fn driver() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a path");
    let folder = test.parent().and_then(Path::parent).expect("a target folder");
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "-p", "multiworld-double-cuda"]);
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    assert!(cargo.status().expect("cargo").success());
    let links = folder.join("driver-alone");
    std::fs::create_dir_all(&links).expect("a folder");
    let link = links.join("libcuda.so.1");
    if !link.exists() {
        std::os::unix::fs::symlink(folder.join("libmwdouble_cuda.so"), &link).expect("a link");
    }
    let path = CString::new(link.to_string_lossy().into_owned()).expect("no NUL");
    // SAFETY: a C string, then the handle that it gave.
    unsafe {
        let handle = libc::dlopen(path.as_ptr(), libc::RTLD_LAZY | libc::RTLD_LOCAL);
        let found = !handle.is_null() && !libc::dlsym(handle, c"cuLaunchHostFunc".as_ptr()).is_null();
        found.then_some(links)
    }
}

#[test]
fn the_driver_alone_is_enough() {
    let Some(folder) = driver() else {
        println!("skipped: no double of CUDA");
        return;
    };
    let mut other = Command::new(std::env::current_exe().expect("a path"));
    other.args(["child", "--exact", "--nocapture"]).env(ROLE, "1").env("LD_LIBRARY_PATH", folder);
    let output = other.output().expect("a child");
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("PASSED"), "{text}");
}
