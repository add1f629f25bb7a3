//! Ranks that are killed: the others find out, in time, and go on.

use crate::launch::{Way, all_fine, program};

#[test]
fn survivors_of_a_kill_see_it_everywhere_and_go_on() {
    for way in [Way::Preload, Way::Link] {
        let faults = program("faults", way);
        for (how, n) in [("now", 2), ("late", 4), ("idle", 4), ("group", 4), ("late", 8)] {
            let mut ends = faults.run(n, &[("HOW", how)]);
            let victim = ends.pop().expect("a victim");
            assert_eq!(victim.signal, Some(libc::SIGKILL), "{}", victim.text);
            all_fine(&ends);
        }
    }
}

#[test]
fn an_operation_that_nobody_answers_ends_with_its_deadline() {
    let ends = program("deadline", Way::Link).run(2, &[("MW_TIMEOUT_MS", "300")]);
    all_fine(&ends);
}
