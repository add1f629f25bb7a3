//! Against the genuine NCCL, where `MW_NCCL_LIB` names one: what works there without a GPU works here.

use crate::launch::{Way, all_fine, program};

/// The genuine library, or why there is no test.
fn library() -> Option<String> {
    let path = std::env::var("MW_NCCL_LIB").ok().filter(|p| !p.is_empty());
    if path.is_none() {
        eprintln!("skipped: MW_NCCL_LIB does not name a genuine NCCL");
    }
    path
}

#[test]
fn what_needs_no_gpu_passes_through() {
    let Some(path) = library() else { return };
    for way in [Way::Preload, Way::Link] {
        let env = [("MW_BACKEND", "nccl"), ("MW_NCCL_LIB", &*path)];
        all_fine(&program("genuine", way).run(1, &env));
    }
}

#[test]
fn it_can_be_opened_by_its_path() {
    let Some(path) = library() else { return };
    let drop_in = crate::artifacts::library().to_string_lossy();
    let env = [("MW_BACKEND", "nccl"), ("MW_NCCL_LIB", &*path), ("LIBRARY", &*drop_in)];
    // Linked against a libnccl that does nothing, which must not be asked.
    all_fine(&program("by_path", Way::Preload).run(1, &env));
}

#[test]
fn a_library_that_is_not_there_is_an_error() {
    let env = [("MW_BACKEND", "nccl"), ("MW_NCCL_LIB", "/no/such/libnccl.so.2")];
    let ends = program("operations", Way::Link).run(1, &env);
    assert_eq!(ends[0].code, Some(1));
    assert!(ends[0].text.contains("/no/such/libnccl.so.2"), "{}", ends[0].text);
}

#[test]
fn it_does_not_take_itself_for_the_genuine_one() {
    let itself = crate::artifacts::library().to_string_lossy();
    let ends = program("operations", Way::Link).run(1, &[("MW_BACKEND", "nccl"), ("MW_NCCL_LIB", &*itself)]);
    assert_eq!(ends[0].code, Some(1));
    assert!(ends[0].text.contains("own stand-in"), "{}", ends[0].text);
}
