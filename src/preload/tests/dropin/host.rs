//! Communicators on host memory.

use crate::launch::{Way, all_fine, program};

const WAYS: [Way; 2] = [Way::Preload, Way::Link];

#[test]
fn every_operation_with_two_four_and_eight_ranks() {
    for way in WAYS {
        let operations = program("operations", way);
        for n in [1, 2, 4, 8] {
            all_fine(&operations.run(n, &[]));
        }
        all_fine(&operations.run(3, &[("MW_TRANSPORT", "tcp")]));
    }
}

#[test]
fn communicators_are_made_in_all_ways() {
    for way in WAYS {
        let reshape = program("reshape", way);
        for n in [2, 4, 8] {
            all_fine(&reshape.run(n, &[]));
        }
    }
    all_fine(&program("reshape", Way::Link).run(3, &[("MW_TRANSPORT", "tcp")]));
}

#[test]
fn ranks_may_be_threads_and_one_thread_may_be_all_ranks() {
    for way in WAYS {
        let threads = program("threads", way);
        for n in ["2", "4", "8"] {
            all_fine(&threads.run(1, &[("NRANKS", n)]));
        }
    }
}

#[test]
fn wrong_arguments_and_handles_are_errors_with_a_sentence() {
    for way in WAYS {
        all_fine(&program("arguments", way).run(1, &[]));
    }
}

#[test]
fn without_a_gpu_host_memory_is_the_default_and_a_wrong_choice_is_an_error() {
    let arguments = program("arguments", Way::Link);
    if std::path::Path::new("/dev/nvidiactl").exists() {
        eprintln!("skipped: there is a GPU, so that 'auto' may mean the genuine NCCL");
    } else {
        all_fine(&arguments.run(1, &[("MW_BACKEND", "auto")]));
    }
    let ends = arguments.run(1, &[("MW_BACKEND", "gpu")]);
    assert_eq!(ends[0].code, Some(1));
    assert!(ends[0].text.contains("MW_BACKEND: 'gpu' is none of"), "{}", ends[0].text);
}

#[test]
fn operations_keep_the_order_of_the_streams_that_the_program_brings() {
    for way in WAYS {
        all_fine(&program("streams", way).run(1, &[]));
    }
}
