//! Programs with streams, over the doubles of CUDA and NCCL: asynchronous, and failing by script.

use crate::artifacts::{cuda_double, installed, nccl_double};
use crate::launch::{End, Way, all_fine, program};

/// A program that is linked with the CUDA runtime's double.
fn run(name: &str, n: usize, env: &[(&str, &str)]) -> Vec<End> {
    let nccl = nccl_double().to_string_lossy();
    let path = format!("{}:{}", installed().display(), cuda_double().display());
    let ours = [
        ("MW_BACKEND", "nccl"),
        ("MW_NCCL_LIB", &*nccl),
        ("LD_LIBRARY_PATH", &*path),
        ("MW_NCCL_ABORT_TIMEOUT_MS", "800"),
    ];
    program(name, Way::Link).run(n, &[&ours[..], env].concat())
}

fn faults(how: &str, n: usize, env: &[(&str, &str)]) {
    all_fine(&run("cuda_faults", n, &[&[("HOW", how)], env].concat()));
}

/// The last rank kills itself, the others are fine.
fn killed(how: &str, n: usize, env: &[(&str, &str)]) {
    let mut ends = run("cuda_faults", n, &[&[("HOW", how)], env].concat());
    let victim = ends.pop().expect("a victim");
    assert_eq!(victim.signal, Some(libc::SIGKILL), "{}", victim.text);
    all_fine(&ends);
}

#[test]
fn one_thread_drives_several_devices() {
    all_fine(&run("cuda_streams", 1, &[("MW_DOUBLE_CUDA", "devices=4")]));
}

#[test]
fn a_stream_is_free_when_a_peer_has_died() {
    killed("stream", 2, &[]);
    killed("stream", 3, &[]);
    killed("idle", 3, &[]);
}

#[test]
fn a_blocking_call_returns_when_a_peer_has_died() {
    killed("blocked", 3, &[]);
}

#[test]
fn who_asks_for_reports_only_aborts_himself() {
    killed("report", 3, &[("MW_ON_FAILURE", "report")]);
}

#[test]
fn an_operation_that_takes_too_long_ends_with_its_deadline() {
    faults("deadline", 2, &[("MW_TIMEOUT_MS", "400")]);
}

#[test]
fn errors_of_one_rank_are_told_to_all() {
    faults("async", 3, &[]);
    faults("error", 3, &[]);
}

#[test]
fn an_abort_that_hangs_holds_nobody_up() {
    faults("abort", 2, &[]);
}
