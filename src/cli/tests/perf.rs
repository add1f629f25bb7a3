//! `mw perf` as users start it.

#[path = "../../../tests/common/doubles.rs"]
#[allow(dead_code, missing_docs)]
mod doubles;

use serde_json::Value;
use std::collections::HashSet;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Far more than anything here takes; whatever is not through by then hangs.
const PATIENCE: Duration = Duration::from_secs(120);
const OPS: [&str; 12] = [
    "sendrecv",
    "bw",
    "bwd",
    "all_reduce",
    "all_gather",
    "reduce_scatter",
    "broadcast",
    "reduce",
    "all_to_all",
    "gather",
    "scatter",
    "barrier",
];

fn mw(words: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mw"));
    command.arg("perf").args(words.split_whitespace()).env("MW_IFNAME", "lo");
    for name in
        ["MW_TRANSPORT", "MW_RANK", "MW_NRANKS", "MW_STORE", "MW_BACKEND", "BUDGET", "ITDIV", "MW_TUNING"]
    {
        command.env_remove(name);
    }
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a process came to; it is killed when that takes too long.
fn finish(mut child: Child) -> Output {
    let start = Instant::now();
    while child.try_wait().expect("waiting").is_none() {
        if start.elapsed() > PATIENCE {
            child.kill().expect("killing");
            panic!("hangs: {:?}", child.wait_with_output());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("output")
}

fn run(words: &str) -> Output {
    finish(mw(words).spawn().expect("mw"))
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

/// The output of a run that has to work.
fn good(words: &str) -> String {
    let output = run(words);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert!(output.status.success() && err.is_empty(), "{words}: {:?}\n{out}\n{err}", output.status);
    out.to_owned()
}

/// The error of a run that has to fail with this status.
fn bad(words: &str, status: i32) -> String {
    let output = run(words);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(status), "{words}:\n{out}\n{err}");
    err.to_owned()
}

/// Lines of a table that are not comments, as words.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[test]
fn everything_is_right_over_every_transport() {
    for (transport, buffers) in [("shm", "plain"), ("tcp", "plain"), ("auto", "plain"), ("shm", "registered")]
    {
        let what = format!("--transport {transport} --buffers {buffers}");
        let out = good(&format!("-n 2 --check all --sizes 8,4096,70000 -i 5 {what}"));
        let rows = rows(&out);
        assert_eq!(rows.len(), 11 * 3 + 1, "{out}");
        assert!(rows.iter().all(|row| row.len() == 13 && row.last() == Some(&"0")), "{out}");
        assert!(OPS.iter().all(|op| out.contains(&format!("# {op}\n"))), "{out}");
        let carried = if transport == "tcp" { "TCP" } else { "shared memory" };
        assert!(out.contains(&format!("2 ranks, {carried}, host backend")), "{out}");
    }
}

#[test]
fn three_ranks_in_place_and_out_of_place_with_other_roots_and_types() {
    let words = "-n 3 -c all --in-place --out-of-place --sizes 8,30000 -i 3 -w 2 -r 2 --json";
    for (datatype, redop) in
        [("int8", "prod"), ("half", "sum"), ("bf16", "max"), ("double", "avg"), ("fp8_e5m2", "min")]
    {
        let document: Value =
            serde_json::from_str(&good(&format!("{words} -t {datatype} -o {redop}"))).expect("JSON");
        let rows = document["results"].as_array().expect("rows");
        assert_eq!(rows.len(), 11 * 2 + 7 * 2 + 1);
        assert!(rows.iter().all(|row| row["wrong"] == 0), "{rows:#?}");
    }
}

#[test]
fn json_is_read_back() {
    let document: Value =
        serde_json::from_str(&good("-n 2 sendrecv reduce -b 1K -e 4K -f 2 -i 10 -r 1 --json"))
            .expect("one JSON document");
    assert_eq!(document["ranks"], 2);
    assert_eq!(document["backend"], "host");
    assert!(document["machine"]["cores"].as_u64().is_some_and(|cores| cores > 0));
    let rows = document["results"].as_array().expect("rows");
    let sizes: Vec<_> = rows.iter().map(|row| (row["op"].as_str(), row["size"].as_u64())).collect();
    let op = |name: &'static str| [1024, 2048, 4096].map(|size| (Some(name), Some(size)));
    assert_eq!(sizes, [op("sendrecv"), op("reduce")].concat());
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name} in {row}"));
        assert!(number("minUs") > 0.0 && number("minUs") <= number("medianUs"), "{row}");
        assert!(number("medianUs") <= number("p99Us") && number("algbw") > 0.0, "{row}");
        assert_eq!((row["iterations"].as_u64(), row["wrong"].is_null()), (Some(10), true));
    }
    assert_eq!((&rows[0]["redop"], &rows[0]["root"]), (&"none".into(), &(-1).into()));
    assert_eq!((&rows[5]["redop"], &rows[5]["root"]), (&"sum".into(), &1.into()));
}

#[test]
fn csv_has_a_header_and_a_line_for_each() {
    let out = good("-n 1 all_reduce barrier --sizes 8,64 -i 2 --csv");
    let lines: Vec<Vec<&str>> = out.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 4, "{out}");
    assert_eq!(lines[0][..3], ["op", "requested", "size"]);
    assert!(lines.iter().all(|line| line.len() == lines[0].len()), "{out}");
}

#[test]
fn results_are_what_comparisons_read() {
    let mut command = mw("--results -n 2 lat bw bwd allreduce");
    let output = finish(command.env("BUDGET", "0.01").env("ITDIV", "8").spawn().expect("mw"));
    assert!(output.status.success(), "{}", text(&output.stderr));
    let lines: Vec<Vec<&str>> = text(&output.stdout).lines().map(|l| l.split(' ').collect()).collect();
    let sizes = ["8", "4096", "40000", "400000", "4000000", "64000000"];
    let op = |name: &'static str, unit: &'static str, from: usize| {
        sizes[from..].iter().map(move |size| (name, *size, unit))
    };
    let expected = op("lat", "us", 0).chain(op("bw", "MB/s", 0)).chain(op("bwd", "MB/s", 3)).chain(op(
        "allreduce",
        "us",
        0,
    ));
    let found: Vec<_> = lines.iter().map(|line| (line[1], line[2], line[4])).collect();
    assert_eq!(found, expected.collect::<Vec<_>>());
    for line in lines {
        assert!(line[0] == "RESULT" && line[3].parse::<f64>().is_ok_and(|value| value > 0.0), "{line:?}");
    }
    let others = good("--results -n 3 --sizes 40000 -i 3 allgather reducescatter broadcast");
    let names: Vec<&str> = others.lines().filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(names, ["allgather", "reducescatter", "broadcast"]);
}

#[test]
fn traffic_goes_over_several_worlds() {
    let words = "-n 2 -c --worlds 5 --active 3 sendrecv bwd all_reduce --sizes 8,5000 -i 7";
    for extra in ["", "--post submit"] {
        let out = good(&format!("{words} {extra}"));
        assert!(out.contains("5 worlds of which 3 with traffic"), "{out}");
        assert_eq!(rows(&out).len(), 6);
    }
}

#[test]
fn a_time_in_place_of_a_number() {
    let document: Value =
        serde_json::from_str(&good("-n 2 all_reduce --sizes 8 --seconds 0.2 --json")).expect("JSON");
    assert!(document["results"][0]["iterations"].as_u64().is_some_and(|n| n >= 3), "{document}");
}

/// Where nobody listens yet, so that rank 0 will.
fn free_store() -> String {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    format!("tcp://{}", listener.local_addr().expect("its address"))
}

#[test]
fn ranks_that_somebody_else_starts() {
    let store = free_store();
    let start = |rank: &str| {
        let mut command = mw("-c all_reduce --sizes 8 -i 3 --name mine");
        command.env("MW_RANK", rank).env("MW_NRANKS", "2").env("MW_STORE", &store).spawn().expect("mw")
    };
    let ranks = ["0", "1"].map(start);
    let [first, second] = ranks.map(finish);
    assert!(first.status.success() && second.status.success(), "{first:?} {second:?}");
    assert_eq!(rows(text(&first.stdout)).len(), 1);
    assert!(second.stdout.is_empty());
}

/// One rank sends 64 different messages, the other one takes them for 64 times the same.
#[test]
fn wrong_data_is_counted_and_fails_the_run() {
    let store = free_store();
    let start = |rank: &str, words: &str| {
        let mut command = mw(words);
        command.env("MW_RANK", rank).env("MW_NRANKS", "2").env("MW_STORE", &store).spawn().expect("mw")
    };
    let first = start("0", "-c bwd --sizes 4000 -i 1");
    let second = finish(start("1", "-c bw --sizes 4000 -i 1"));
    let first = finish(first);
    for output in [&first, &second] {
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        assert_eq!(text(&output.stderr), "mw perf: what arrived was not what was sent; see #wrong\n");
    }
    // After the measurement, and in the one iteration that is compared.
    let out = text(&first.stdout);
    assert_eq!(rows(out)[0].last(), Some(&"2000"), "{out}");
    assert!(out.ends_with("# 2000 elements were wrong\n"), "{out}");
}

/// On the doubles of CUDA and NCCL.
#[test]
fn memory_of_devices() {
    let doubles = doubles::get();
    for extra in
        ["--sizes 8,70000 --check -i 3 --in-place --out-of-place", "--sizes 4096 --seconds 0.05 --results"]
    {
        let mut command = mw(&format!("-n 2 --backend nccl all {extra}"));
        command.env("LD_LIBRARY_PATH", &doubles.folder).env("MW_NCCL_LIB", &doubles.nccl);
        let output = finish(command.spawn().expect("mw"));
        assert!(output.status.success(), "{}", text(&output.stderr));
        let rows = rows(text(&output.stdout));
        assert!(rows.len() >= 12 && rows.iter().all(|row| *row.last().unwrap() != "N/A"), "{rows:?}");
    }
}

#[test]
fn wrong_arguments_are_named() {
    for (words, expected) in [
        ("", "<OP>..."),
        ("all_reduze -n 2", "sendrecv, bw, bwd, all_reduce, all_gather, reduce_scatter, broadcast, reduce"),
        ("bw -n two", "--ranks"),
        ("bw -n 2 -b 8X", "--min"),
        ("bw -n 2 -e 4 -b 8", "--max"),
        ("bw -n 2 --transport udp", "auto, shm, tcp"),
        ("bw -n 2 -t float31", "the data types are"),
        ("bw -n 2 --json --results", "cannot be used with"),
        ("bw -n 1", "--ranks"),
        ("bw -n 2 --in-place", "--in-place"),
        ("broadcast -n 2 --root 2", "--root"),
        ("bw -n 2 --worlds 2 --active 3", "--active"),
        ("bw -n 2 --buffers registered --backend nccl", "--buffers registered"),
        ("bw -n 2 --buffers unheard", "registered"),
        ("bw -n 2 --nonsense", "--nonsense"),
    ] {
        let err = bad(words, 2);
        assert!(err.starts_with("error: ") && err.contains(expected), "{words}: {err}");
    }
}

#[test]
fn errors_of_the_library_are_told_with_its_sentence() {
    let err = bad("all_reduce", 1);
    assert!(err.starts_with("mw perf: mwWorldInit: invalid argument: nranks, rank: both are -1"), "{err}");
    assert!(err.contains("-n starts ranks"), "{err}");
    let output = finish(mw("all_reduce -n 2").env("MW_TIMEOUT_MS", "soon").spawn().expect("mw"));
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains("rank 0: mwWorldInit: ") && err.contains("MW_TIMEOUT_MS"), "{err}");
}

#[test]
fn the_manual_describes_every_option() {
    let output = finish(mw("--help").spawn().expect("mw"));
    let out = text(&output.stdout);
    for word in
        ["--ranks", "--check", "--results", "busbw", "BUDGET", "MW_IFNAME", "Exit status", "all_to_all"]
    {
        assert!(out.contains(word), "{word}: {out}");
    }
}

/// Processes whose parent this is, with their ranks.
fn ranks_of(parent: u32) -> Vec<(u32, String)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let read = |file: &str| std::fs::read_to_string(entry.path().join(file)).unwrap_or_default();
        let is_child = read("status").lines().any(|line| line == format!("PPid:\t{parent}"));
        let rank = read("environ").split('\0').find_map(|v| v.strip_prefix("MW_RANK=").map(str::to_owned));
        if let (true, Some(rank)) = (is_child, rank) {
            found.push((pid, rank));
        }
    }
    found
}

/// Gone, or not yet fetched by whoever inherited it.
fn has_ended(pid: u32) -> bool {
    let state = std::fs::read_to_string(PathBuf::from(format!("/proc/{pid}/stat")));
    state.map_or(true, |stat| stat.rsplit(") ").next().is_some_and(|rest| rest.starts_with(['Z', 'X'])))
}

fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "never: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A long run of three ranks that have all joined, and its ranks' processes.
fn long_run() -> (Child, Vec<(u32, String)>) {
    long_run_of(3, "")
}

fn long_run_of(nranks: usize, options: &str) -> (Child, Vec<(u32, String)>) {
    use std::io::Read;
    let words = format!("-n {nranks} {options} all_reduce --sizes 70000 --seconds 600");
    let mut child = mw(&words).spawn().expect("mw");
    let mut first = [0; 1];
    // The header is printed by rank 0 when all have joined.
    child.stdout.as_mut().expect("a pipe").read_exact(&mut first).expect("a header");
    let ranks = ranks_of(child.id());
    assert_eq!(ranks.len(), nranks, "{ranks:?}");
    (child, ranks)
}

/// The processors that a process may use, as the kernel writes them.
fn processors(pid: u32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.expect("Cpus_allowed_list").trim().to_owned()
}

#[test]
fn ranks_are_bound_to_processors_of_their_own_when_there_are_enough() {
    let cores = std::thread::available_parallelism().expect("processors").get();
    for (nranks, options) in [(cores.min(2), "--pin"), (cores + 1, "--pin"), (1, "")] {
        let (mut child, ranks) = long_run_of(nranks, options);
        let all = processors(std::process::id());
        let found: HashSet<String> = ranks.iter().map(|(pid, _)| processors(*pid)).collect();
        kill(child.id(), rustix::process::Signal::KILL);
        child.wait().expect("waiting");
        if nranks <= cores && !options.is_empty() {
            assert_eq!(found.len(), nranks, "{found:?}");
            assert!(found.iter().all(|list| list.parse::<usize>().is_ok()), "{found:?}");
        } else {
            assert_eq!(found, HashSet::from([all]));
        }
    }
}

fn kill(pid: u32, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_raw(pid as i32).expect("a process");
    rustix::process::kill_process(pid, signal).expect("killing");
}

#[test]
fn a_killed_rank_ends_the_run_and_is_named() {
    let (child, ranks) = long_run();
    let victim = ranks.iter().find(|(_, rank)| rank == "1").expect("rank 1").0;
    kill(victim, rustix::process::Signal::KILL);
    let output = finish(child);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains(&format!("mw perf: rank 1 (process {victim}) was killed by signal 9")), "{err}");
    assert!(err.contains("rank 0: mw") && err.contains("rank 1 of world"), "{err}");
    assert!(ranks.iter().all(|(pid, _)| has_ended(*pid)));
}

#[test]
fn a_rank_that_hangs_is_named_and_killed() {
    let (child, ranks) = long_run();
    let victim = ranks.iter().find(|(_, rank)| rank == "2").expect("rank 2").0;
    kill(victim, rustix::process::Signal::STOP);
    let output = finish(child);
    let err = text(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{err}");
    assert!(err.contains(&format!("rank 2 (process {victim}) did not end when others failed")), "{err}");
    wait_until("all ranks end", || ranks.iter().all(|(pid, _)| has_ended(*pid)));
}

#[test]
fn ranks_end_with_their_parent() {
    for signal in [rustix::process::Signal::KILL, rustix::process::Signal::INT] {
        let (mut child, ranks) = long_run();
        kill(child.id(), signal);
        let status = child.wait().expect("waiting");
        assert_eq!(status.signal(), Some(signal.as_raw()));
        wait_until("all ranks end", || ranks.iter().all(|(pid, _)| has_ended(*pid)));
    }
}

/// A folder that goes with its test.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("mw-perf-test-{}-{name}", std::process::id()));
        std::fs::create_dir(&path).expect("a folder");
        Folder(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().expect("a path").to_owned()
    }

    fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(&self.0).expect("the folder").flatten();
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).expect("removing a folder");
    }
}

#[test]
fn a_table_that_cannot_be_read_is_named_by_every_rank() {
    let folder = Folder::new("refused");
    let (missing, wrong) = (folder.file("missing"), folder.file("wrong"));
    std::fs::write(&wrong, "[shared-memory]\nall_reduce_flat = 4K\nall_reduce_flt = 4K\n").expect("writing");
    for (table, expected) in [
        (&missing, format!("MW_TUNING: {missing}: No such file")),
        (&wrong, format!("MW_TUNING: {wrong}:3: all_reduce_flt: there is no such key")),
    ] {
        let output = finish(mw("all_reduce -n 2").env("MW_TUNING", table).spawn().expect("mw"));
        let err = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{err}");
        assert!(err.contains(&format!("mwWorldInit: invalid argument: {expected}")), "{err}");
    }
}

#[test]
fn everything_is_right_with_extreme_tables() {
    use multiworld::config::tuning::Tuning;
    let folder = Folder::new("extreme");
    let table = folder.file("table");
    for value in ["0", "max"] {
        let values: String = Tuning::KEYS.iter().map(|key| format!("{key} = {value}\n")).collect();
        std::fs::write(&table, format!("[shared-memory]\n{values}[network]\n{values}")).expect("writing");
        for transport in ["shm", "tcp"] {
            let words = format!(
                "-n 3 -c all --in-place --out-of-place --sizes 8,70000 -i 2 --transport {transport} --json"
            );
            let output = finish(mw(&words).env("MW_TUNING", &table).spawn().expect("mw"));
            let (out, err) = (text(&output.stdout), text(&output.stderr));
            assert!(output.status.success() && err.is_empty(), "{out}\n{err}");
        }
    }
}

#[test]
fn a_table_that_was_measured_is_taken() {
    use multiworld::config::table::Table;
    use multiworld::config::tuning::{Topology, Tuning};
    let folder = Folder::new("tune");
    let table = folder.file("table");
    for (transport, topology) in [("auto", Topology::SharedMemory), ("tcp", Topology::Network)] {
        let out = good(&format!("-n 3,2 --tune {table} --quick --transport {transport}"));
        assert!(out.contains(&format!("MW_TUNING={table}")), "{out}");
        assert_eq!(folder.names(), ["table"]);
        let written = std::fs::read_to_string(&table).expect("a table");
        let heads: Vec<&str> = written.lines().filter(|line| line.starts_with('[')).collect();
        let name = topology.name();
        assert_eq!(heads, [format!("[{name} ranks=2]"), format!("[{name} ranks<=3]")]);
        let found = Table::parse(&written).expect("a table");
        assert_eq!(found.choose(topology, 4), Tuning::of(topology));
        let output =
            finish(mw("-n 3 -c all --sizes 8,70000 -i 3").env("MW_TUNING", &table).spawn().expect("mw"));
        assert!(output.status.success(), "{written}\n{}", text(&output.stderr));
    }
}

#[test]
fn wrong_arguments_of_tuning_are_named() {
    let folder = Folder::new("arguments");
    let nowhere = folder.file("none/table");
    for (words, status, expected) in [
        (format!("--tune {nowhere} -n 2"), 1, format!("mw perf: --tune: {nowhere}: No such file")),
        (format!("--tune {} -n 2", folder.file("")), 1, "is no name of a file".to_owned()),
        (format!("--tune {} -n 1,2", folder.file("t")), 2, "one rank has nothing to tune".to_owned()),
        (format!("--tune {}", folder.file("t")), 2, "--ranks <RANKS>".to_owned()),
        ("bw --quick".to_owned(), 2, "--tune <FILE>".to_owned()),
        ("bw -n 2,4".to_owned(), 2, "several numbers are for --tune".to_owned()),
    ] {
        let err = bad(&words, status);
        assert!(err.contains(&expected), "{words}: {err}");
    }
    assert!(folder.names().is_empty(), "{:?}", folder.names());
}

#[test]
fn tuning_that_is_interrupted_leaves_nothing() {
    for (signal, to_rank) in [
        (rustix::process::Signal::INT, false),
        (rustix::process::Signal::KILL, false),
        (rustix::process::Signal::KILL, true),
    ] {
        let folder = Folder::new("interrupted");
        let mut child = mw(&format!("-n 3 --tune {}", folder.file("table"))).spawn().expect("mw");
        let mut ranks = Vec::new();
        wait_until("three ranks start", || {
            ranks = ranks_of(child.id());
            ranks.len() == 3
        });
        std::thread::sleep(Duration::from_millis(300));
        let victim = if to_rank { ranks[1].0 } else { child.id() };
        kill(victim, signal);
        if to_rank {
            let output = finish(child);
            assert_eq!(output.status.code(), Some(1));
            assert!(text(&output.stderr).contains("was killed by signal 9"), "{}", text(&output.stderr));
        } else {
            assert_eq!(child.wait().expect("waiting").signal(), Some(signal.as_raw()));
        }
        wait_until("all ranks end", || ranks.iter().all(|(pid, _)| has_ended(*pid)));
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
}
