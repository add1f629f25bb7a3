use super::super::Store;
use super::super::conformance::{Fixture, InDirectory, Other, count, number, soon};
use super::*;
use std::os::unix::fs::{MetadataExt, PermissionsExt};

fn far() -> Instant {
    soon(20_000)
}

fn files(f: &InDirectory) -> Vec<String> {
    let entries = std::fs::read_dir(&f.0).unwrap();
    let mut names: Vec<_> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Processes that count are killed and stopped at any moment, also while the log is followed by the next.
#[test]
fn nothing_is_lost_or_torn_when_processes_are_killed() {
    const VICTIMS: usize = 24;
    let f = InDirectory::new();
    let address = f.address().unwrap();
    let counting = || {
        let mut p = Other::start(&address, "count 30000");
        assert_eq!(p.hear().as_deref(), Some("counted"));
        p
    };
    let mut processes: Vec<Other> = (0..3).map(|_| counting()).collect();
    // These have said so.
    let (mut counted, mut stopped) = (3, Vec::new());
    let mut random = 12345u32;
    for i in 0..VICTIMS {
        random = random.wrapping_mul(1_103_515_245).wrapping_add(12345);
        std::thread::sleep(Duration::from_micros(u64::from(random >> 16) % 40_000));
        let mut victim = processes.remove(0);
        if i % 4 == 0 {
            victim.signal(libc::SIGSTOP);
            stopped.push(victim);
        } else {
            victim.signal(libc::SIGKILL);
            while victim.hear().is_some() {
                counted += 1;
            }
        }
        processes.push(counting());
        counted += 1;
    }
    for mut p in processes.into_iter().chain(stopped) {
        p.signal(libc::SIGKILL);
        while p.hear().is_some() {
            counted += 1;
        }
    }
    let s = f.client();
    let n = number(s.get(b"n", far()).unwrap().as_deref());
    // Of each that was killed one more may have counted than it could say.
    assert!((counted..=counted + VICTIMS as u64 + 3).contains(&n), "{n} for {counted}");
    count(&*s, b"n", 8);
    assert_eq!(number(s.get(b"n", far()).unwrap().as_deref()), n + 1);
    let names = files(&f);
    println!("{n} counted, {names:?}");
    let newest = names.iter().filter_map(|n| n.strip_prefix("log.")?.parse().ok()).max();
    assert!(newest > Some(2), "the log was never followed by another");
}

#[test]
fn a_stopped_process_stands_in_nobodys_way() {
    let f = InDirectory::new();
    let s = f.client();
    let mut p = Other::start(&f.address().unwrap(), "count 8");
    assert_eq!(p.hear().as_deref(), Some("counted"));
    for i in 0..40 {
        p.signal(libc::SIGSTOP);
        let begin = Instant::now();
        count(&*s, b"n", 8);
        assert!(begin.elapsed() < Duration::from_secs(1), "{i}: {:?}", begin.elapsed());
        p.signal(libc::SIGCONT);
        std::thread::sleep(Duration::from_micros(i * 37));
    }
}

#[test]
fn a_long_log_is_followed_by_a_short_one() {
    let f = InDirectory::new();
    let (a, b) = (f.client(), f.client());
    let lease = a.lease(Duration::from_secs(600), far()).unwrap();
    a.set(b"leased", b"1", Some(lease), far()).unwrap();
    let value = vec![1; 60_000];
    for i in 0..200u32 {
        let s = if i % 3 == 0 { &b } else { &a };
        s.set(format!("k{}", i % 2).as_bytes(), &value, None, far()).unwrap();
    }
    let names = files(&f);
    let logs = names.iter().filter(|n| n.starts_with("log.")).count();
    assert!((1..=2).contains(&logs) && names.len() == logs + 2, "{names:?}");
    assert!(!names.contains(&"log.1".to_string()));
    for s in [&a, &b, &f.client()] {
        let all = s.list(b"", far()).unwrap();
        assert_eq!((all.entries.len(), all.revision), (3, 201));
        assert!(all.entries.iter().filter(|e| e.key != b"leased").all(|e| e.value == value));
    }
    a.revoke(lease, far()).unwrap();
    assert_eq!(b.get(b"leased", far()).unwrap(), None);
}

#[test]
fn what_was_set_outlives_all_clients() {
    let f = InDirectory::new();
    f.client().set(b"k", b"1", None, far()).unwrap();
    assert_eq!(f.client().get(b"k", far()).unwrap().as_deref(), Some(&b"1"[..]));
    for name in files(&f) {
        assert_eq!(std::fs::metadata(f.0.join(&name)).unwrap().mode() & 0o777, 0o600, "{name}");
    }
    assert_eq!(std::fs::metadata(&f.0).unwrap().mode() & 0o777, 0o700);
}

#[test]
fn a_removed_directory_is_an_error_once() {
    let f = InDirectory::new();
    let s = f.client();
    s.set(b"k", b"1", None, far()).unwrap();
    let revision = s.list(b"", far()).unwrap().revision;
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| s.watch(b"k", revision, far()));
        std::thread::sleep(Duration::from_millis(30));
        std::fs::remove_dir_all(&f.0).unwrap();
        let e = watch.join().unwrap().unwrap_err();
        assert!(e.code == Code::System && e.text.contains("was removed"), "{e}");
    });
    assert_eq!(s.get(b"k", far()).unwrap(), None);
    s.set(b"k", b"2", None, far()).unwrap();
    assert_eq!(f.client().get(b"k", far()).unwrap().as_deref(), Some(&b"2"[..]));
}

#[test]
fn a_log_that_somebody_has_altered_is_an_error_that_names_it() {
    let f = InDirectory::new();
    let s = f.client();
    s.set(b"k", b"1", None, far()).unwrap();
    let log = f.0.join("log.1");
    std::fs::OpenOptions::new().write(true).open(&log).unwrap().set_len(3).unwrap();
    let e = s.get(b"k", far()).unwrap_err();
    assert!(e.text.contains("log.1") && e.text.contains("damaged"), "{e}");
    std::fs::write(&log, [0; 100]).unwrap();
    let e = Directory::open(&f.0).err().unwrap();
    assert!(e.text.contains("log.1") && e.text.contains("damaged"), "{e}");
}

#[test]
fn without_inotify_changes_are_seen_all_the_same() {
    let f = InDirectory::new();
    let quiet = Directory::open(&f.0).unwrap();
    quiet.inner.lock().session.as_mut().unwrap().news = None;
    let loud = f.client();
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| quiet.watch(b"k", 0, far()).unwrap());
        std::thread::sleep(Duration::from_millis(30));
        loud.set(b"k", b"1", None, far()).unwrap();
        assert_eq!(watch.join().unwrap().entries.len(), 1);
    });
}

#[test]
fn directories_that_are_not_ours_are_refused() {
    let f = InDirectory::new();
    let refused = |why: &str| {
        let e = Directory::open(&f.0).err().unwrap();
        assert!(e.code == Code::InvalidArgument && e.text.contains(why), "{e}");
    };
    std::fs::write(&f.0, "").unwrap();
    refused("is not a directory");
    std::fs::remove_file(&f.0).unwrap();
    std::fs::create_dir(&f.0).unwrap();
    std::fs::set_permissions(&f.0, PermissionsExt::from_mode(0o777)).unwrap();
    refused("mode 777");
    std::fs::set_permissions(&f.0, PermissionsExt::from_mode(0o700)).unwrap();
    if std::os::unix::fs::chown(&f.0, Some(12345), None).is_ok() {
        refused("belongs to user 12345");
    } else {
        println!("skipped: only root can make another user's directory");
    }
    let missing = f.0.join("a/b");
    assert!(Directory::open(&missing).err().unwrap().text.contains("making the directory"));
}
