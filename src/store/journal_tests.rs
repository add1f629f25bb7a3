use super::super::state::{SESSION, State};
use super::super::wire::Request;
use super::*;

const KEY: KeyId = KeyId([5; 16]);
const CLIENT: u64 = SESSION | 1;

/// A folder of its own, deleted in the end.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let dir = std::env::temp_dir().join(format!("mw-journal-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        Folder(dir)
    }

    fn files(&self) -> Vec<String> {
        let names = fs::read_dir(&self.0).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn open_in(folder: &Folder) -> Result<(Journal, Found)> {
    Journal::open(&folder.0, Fsync::Never, Limits::default(), Instant::now())
}

fn set(state: &mut State, id: u64, key: &str, value: &[u8]) {
    let request = Request::Set { key: key.into(), value: value.to_vec(), lease: None };
    state.request(CLIENT, id, request, Instant::now());
    state.take_actions();
}

fn write_down(journal: &mut Journal, stores: &mut Stores) {
    for (key, state) in stores {
        for record in state.take_records() {
            journal.append(*key, &record);
        }
    }
    journal.commit(Instant::now()).unwrap();
}

fn fresh() -> Stores {
    let mut state = State::recorded(Limits::default(), 10);
    state.connect(CLIENT, Instant::now());
    Stores::from([(KEY, state)])
}

fn revision(found: &Found) -> u64 {
    found.stores.get(&KEY).map_or(0, State::revision)
}

#[test]
fn what_was_committed_is_there_again() {
    for fsync in [Fsync::Always, Fsync::Batch, Fsync::Never] {
        let folder = Folder::new(&format!("committed-{fsync:?}"));
        let open = || Journal::open(&folder.0, fsync, Limits::default(), Instant::now()).unwrap();
        let (mut journal, found) = open();
        let incarnation = journal.incarnation();
        assert!(found.stores.is_empty());
        let mut stores = fresh();
        for n in 1..=5 {
            set(stores.get_mut(&KEY).unwrap(), n, &format!("k{n}"), b"v");
            write_down(&mut journal, &mut stores);
        }
        if let Some(at) = journal.next_deadline() {
            assert_eq!(fsync, Fsync::Batch);
            journal.tick(at).unwrap();
            assert_eq!(journal.next_deadline(), None);
        }
        // Taken, but not committed.
        set(stores.get_mut(&KEY).unwrap(), 6, "k6", b"v");
        drop(journal);
        for round in 0..3 {
            let (journal, found) = open();
            assert_eq!((journal.incarnation(), revision(&found)), (incarnation, 15), "{round}");
            assert_eq!(folder.files().len(), 3, "{:?}", folder.files());
        }
    }
}

#[test]
fn a_long_log_becomes_a_snapshot() {
    let folder = Folder::new("long");
    let (mut journal, _) = open_in(&folder).unwrap();
    let mut stores = fresh();
    let (mut id, mut snapshots, mut most) = (0, 0, 0);
    while snapshots < 3 {
        id += 1;
        set(stores.get_mut(&KEY).unwrap(), id, &format!("k{}", id % 7), &[id as u8; 60_000]);
        let below = id;
        stores.get_mut(&KEY).unwrap().request(CLIENT, 0, Request::Settled { below }, Instant::now());
        write_down(&mut journal, &mut stores);
        if journal.is_long() {
            journal.compact(&stores);
            snapshots += 1;
            assert!(!journal.is_long());
            assert_eq!(folder.files().len(), 3, "{:?}", folder.files());
        }
        let sizes = fs::read_dir(&folder.0).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
        most = most.max(sizes.sum::<u64>());
    }
    assert!(most < 2 * SMALL, "{most} bytes");
    set(stores.get_mut(&KEY).unwrap(), id + 1, "last", b"v");
    write_down(&mut journal, &mut stores);
    drop(journal);
    let (_journal, found) = open_in(&folder).unwrap();
    assert_eq!(revision(&found), stores[&KEY].revision());
}

#[test]
fn a_folder_is_one_process_s() {
    let folder = Folder::new("lock");
    let (journal, _) = open_in(&folder).unwrap();
    let e = open_in(&folder).unwrap_err();
    assert!(e.code == Code::InvalidUsage && e.text.contains("in use"), "{e}");
    drop(journal);
    open_in(&folder).unwrap();
}

#[test]
fn what_cannot_be_used_is_named() {
    let folder = Folder::new("named");
    let path = folder.0.join("file");
    fs::create_dir(&folder.0).unwrap();
    fs::write(&path, b"").unwrap();
    let e = Journal::open(&path, Fsync::Never, Limits::default(), Instant::now()).unwrap_err();
    assert!(e.text.starts_with("data-dir: ") && e.text.contains("file"), "{e}");
    drop(open_in(&folder).unwrap());
    let snapshot = folder.0.join("snapshot.1");
    let good = fs::read(&snapshot).unwrap();
    for (bytes, why) in [
        (b"something else".to_vec(), "no file of a store"),
        (good[..good.len() - 1].to_vec(), "cut off"),
        ([&good[..8], &[9, 0, 0, 0], &good[12..]].concat(), "another version"),
    ] {
        fs::write(&snapshot, bytes).unwrap();
        let e = open_in(&folder).unwrap_err();
        assert!(e.text.contains("snapshot.1") && e.text.contains(why), "{e}");
    }
    fs::remove_file(&snapshot).unwrap();
    fs::rename(folder.0.join("log.1"), folder.0.join("log.4")).unwrap();
    let e = open_in(&folder).unwrap_err();
    assert!(e.text.contains("snapshot.4") && e.text.contains("missing"), "{e}");
}

/// Every order in which the files of a new generation can have come to be without being complete.
#[test]
fn an_unfinished_snapshot_does_no_harm() {
    let folder = Folder::new("unfinished");
    let (mut journal, _) = open_in(&folder).unwrap();
    let mut stores = fresh();
    set(stores.get_mut(&KEY).unwrap(), 1, "k", b"v");
    write_down(&mut journal, &mut stores);
    drop(journal);
    fs::write(folder.0.join("log.2"), b"mwst").unwrap();
    fs::write(folder.0.join("snapshot.new"), b"half").unwrap();
    let (_journal, found) = open_in(&folder).unwrap();
    assert_eq!(revision(&found), 11);
    assert_eq!(folder.files(), ["lock", "log.3", "snapshot.3"]);
}

#[test]
fn a_full_disk_is_an_error_of_the_commit() {
    let folder = Folder::new("full");
    let (mut journal, _) = open_in(&folder).unwrap();
    journal.log = OpenOptions::new().write(true).open("/dev/full").unwrap();
    let mut stores = fresh();
    for record in stores.get_mut(&KEY).unwrap().take_records() {
        journal.append(KEY, &record);
    }
    let e = journal.commit(Instant::now()).unwrap_err();
    assert!(e.code == Code::System && e.text.starts_with("data-dir: writing"), "{e}");
}
