//! Communicators of a genuine NCCL that is a double, so that it runs without a GPU and fails by script. Without a double
//! of CUDA, operations are done when the calls return.

use crate::artifacts::{nccl_double, old_nccl_double};
use crate::launch::{End, Way, all_fine, program};
use std::path::Path;

fn run(name: &str, n: usize, nccl: &Path, env: &[(&str, &str)]) -> Vec<End> {
    let nccl = nccl.to_string_lossy();
    let ours = [("MW_BACKEND", "nccl"), ("MW_NCCL_LIB", &*nccl)];
    program(name, Way::Link).run(n, &[&ours[..], env].concat())
}

#[test]
fn every_operation_with_two_and_four_ranks() {
    for n in [1, 2, 4] {
        all_fine(&run("operations", n, nccl_double(), &[]));
    }
}

#[test]
fn communicators_are_made_in_all_ways() {
    for n in [2, 4] {
        all_fine(&run("reshape", n, nccl_double(), &[]));
    }
}

#[test]
fn one_thread_may_be_all_ranks() {
    all_fine(&run("threads", 1, nccl_double(), &[("NRANKS", "2")]));
}

#[test]
fn wrong_arguments_and_handles_are_errors_with_a_sentence() {
    all_fine(&run("arguments", 1, nccl_double(), &[]));
}

#[test]
fn survivors_of_a_kill_see_it_everywhere_and_go_on() {
    for (how, n) in [("now", 2), ("late", 3), ("idle", 4), ("group", 3)] {
        let mut ends = run("faults", n, nccl_double(), &[("HOW", how)]);
        let victim = ends.pop().expect("a victim");
        assert_eq!(victim.signal, Some(libc::SIGKILL), "{}", victim.text);
        all_fine(&ends);
    }
}

#[test]
fn an_older_nccl_does_what_it_can() {
    let mut ends = run("faults", 3, old_nccl_double(), &[("HOW", "late")]);
    assert_eq!(ends.pop().expect("a victim").signal, Some(libc::SIGKILL));
    all_fine(&ends);
}
