//! What an older library lacks, and what it still does.

use mwdouble_nccl_old as _;
use std::ffi::{c_int, c_void};

#[repr(C)]
#[derive(Clone, Copy)]
struct Id([u8; 128]);

/// The configuration as it was: 48 bytes.
#[repr(C)]
struct Config {
    size: usize,
    magic: u32,
    version: u32,
    blocking: c_int,
    unset: [c_int; 3],
    net: *const u8,
    split_share: c_int,
}

unsafe extern "C" {
    safe fn ncclGetVersion(version: &mut c_int) -> c_int;
    safe fn ncclGetUniqueId(id: &mut Id) -> c_int;
    fn ncclCommInitRankConfig(
        comm: *mut *mut c_void,
        ranks: c_int,
        id: Id,
        rank: c_int,
        config: *const Config,
    ) -> c_int;
    fn ncclCommGetAsyncError(comm: *mut c_void, error: *mut c_int) -> c_int;
    fn ncclAllReduce(
        send: *const c_void,
        receive: *mut c_void,
        count: usize,
        datatype: c_int,
        reduction: c_int,
        comm: *mut c_void,
        stream: *mut c_void,
    ) -> c_int;
    fn ncclCommAbort(comm: *mut c_void) -> c_int;
}

/// Polls until the communicator is no longer in progress.
unsafe fn settled(comm: *mut c_void) -> c_int {
    let start = std::time::Instant::now();
    loop {
        let mut error = -1;
        // SAFETY: the caller's communicator, and a place for the answer.
        assert_eq!(unsafe { ncclCommGetAsyncError(comm, &mut error) }, 0);
        if error != 7 {
            return error;
        }
        assert!(start.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn it_works_and_says_how_old_it_is() {
    let mut version = 0;
    assert_eq!((ncclGetVersion(&mut version), version), (0, 21903));
    assert_eq!(size_of::<Config>(), 48);
    for version in [21903, 23203] {
        let (mut comm, mut id) = (std::ptr::null_mut(), Id([0; 128]));
        assert_eq!(ncclGetUniqueId(&mut id), 0);
        let config = Config {
            size: if version == 21903 { 48 } else { 120 },
            magic: 0xcafe_beef,
            version,
            blocking: 0,
            unset: [c_int::MIN; 3],
            net: std::ptr::null(),
            split_share: c_int::MIN,
        };
        let (send, mut receive) = (4i32, 0i32);
        // SAFETY: places that live through the calls; of a larger configuration the first 48 bytes are read.
        unsafe {
            let code = ncclCommInitRankConfig(&mut comm, 1, id, 0, &config);
            assert!(code == 7 || code == 0);
            assert_eq!(settled(comm), 0);
            let (send, receive) = ((&raw const send).cast(), (&raw mut receive).cast());
            let code = ncclAllReduce(send, receive, 1, 2, 0, comm, std::ptr::null_mut());
            assert!(code == 7 || code == 0);
            assert_eq!(settled(comm), 0);
            assert_eq!(
                ncclAllReduce(send, receive, 1, 11, 0, comm, std::ptr::null_mut()),
                4,
                "no such type yet"
            );
            assert_eq!(ncclCommAbort(comm), 0);
        }
        assert_eq!(receive, 4);
    }
}

#[test]
fn newer_functions_are_missing() {
    let test = std::env::current_exe().expect("a path");
    let places = test.ancestors().skip(1).take(2).map(|folder| folder.join("libmwdouble_nccl_old.so"));
    let library = places.into_iter().find(|path| path.exists()).expect("cargo has built the library");
    let Ok(output) = std::process::Command::new("nm").arg("-D").arg("--defined-only").arg(library).output()
    else {
        println!("skipped: there is no nm");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let mut names: Vec<&str> = text.lines().filter_map(|line| line.split_whitespace().nth(2)).collect();
    names.retain(|name| name.starts_with("nccl"));
    names.sort_unstable();
    assert_eq!(names.join(" ").replace("nccl", ""), WERE_THERE);
}

/// The functions of 2.19.3, without their prefix.
const WERE_THERE: &str = "\
    AllGather AllReduce Bcast Broadcast CommAbort CommCount CommCuDevice CommDeregister CommDestroy \
    CommFinalize CommGetAsyncError CommInitAll CommInitRank CommInitRankConfig CommRegister CommSplit \
    CommUserRank GetErrorString GetLastError GetUniqueId GetVersion GroupEnd GroupStart MemAlloc MemFree \
    Recv RedOpCreatePreMulSum RedOpDestroy Reduce ReduceScatter Send";
