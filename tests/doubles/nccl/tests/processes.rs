//! Ranks as processes: this test starts itself.

mod common;
use common::*;
use std::ffi::c_int;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const ROLE: &str = "MW_DOUBLE_TEST_ROLE";

fn spawn(role: &str, rank: usize, ranks: usize, id: &Id) -> Child {
    let hex: String = id.0.iter().map(|byte| format!("{byte:02x}")).collect();
    Command::new(std::env::current_exe().expect("a path"))
        .args(["child", "--exact", "--nocapture", "--test-threads=1"])
        .env(ROLE, format!("{role} {rank} {ranks} {hex}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a child")
}

/// The children's part; nothing when the test runs as itself.
#[test]
fn child() {
    let Ok(role) = std::env::var(ROLE) else { return };
    let words: Vec<&str> = role.split(' ').collect();
    let (rank, ranks) = (words[1].parse().expect("a rank"), words[2].parse().expect("a number"));
    let mut id = Id([0; 128]);
    for (index, byte) in id.0.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&words[3][2 * index..2 * index + 2], 16).expect("hex");
    }
    let comm = join(ranks, rank, id, false);
    if words[0] == "die" {
        println!("READY");
        std::io::stdout().flush().expect("a pipe");
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    for round in 0..20 {
        let mut values = vec![rank as i32 + round; 50_000];
        let place: Mut = values.as_mut_ptr().cast();
        // SAFETY: as many values, which outlive the operation.
        let code = unsafe { ncclAllReduce(place, place, values.len(), INT, 0, comm, STREAM) };
        assert_eq!(done(comm, code), 0);
        let expected = (ranks * (ranks - 1) / 2) as i32 + round * ranks as i32;
        assert!(values.iter().all(|value| *value == expected));
    }
    assert_eq!(done(comm, ncclCommFinalize(comm)), 0);
    assert_eq!(ncclCommDestroy(comm), 0);
    assert_clean();
}

#[test]
fn four_processes() {
    let id = new_id();
    let children: Vec<Child> = (0..4).map(|rank| spawn("work", rank, 4, &id)).collect();
    for child in children {
        assert!(child.wait_with_output().expect("an end").status.success());
    }
}

#[test]
fn nobody_notices_a_killed_process() {
    let _turn = turn("");
    let id = new_id();
    let mut child = spawn("die", 1, 2, &id);
    let comm = join(2, 0, id, false);
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    assert!(lines.any(|line| line.is_ok_and(|line| line.contains("READY"))));
    child.kill().expect("a kill");
    child.wait().expect("an end");
    let mut value = 1;
    let place: Mut = std::ptr::from_mut(&mut value).cast();
    // SAFETY: one value that outlives the communicator.
    assert_eq!(unsafe { ncclSend(place, 1, INT, 1, comm, STREAM) }, 7);
    std::thread::sleep(Duration::from_millis(100));
    let mut error: c_int = 0;
    assert_eq!((ncclCommGetAsyncError(comm, &mut error), error), (0, 7), "it hangs");
    assert_eq!(ncclCommAbort(comm), 0);
    assert_clean();
}
