//! include/multiworld.h is what the sources say, compiles everywhere, and names what the library exports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// In the order in which the header shows them.
const SOURCES: [&str; 13] = [
    "result",
    "unique_id",
    "config",
    "world",
    "reshape",
    "world_query",
    "datatype",
    "redop",
    "operation",
    "group",
    "request",
    "memory",
    "event",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn header() -> PathBuf {
    root().join("include/multiworld.h")
}

fn generate() -> String {
    let config = cbindgen::Config::from_file(root().join("cbindgen.toml")).expect("cbindgen.toml");
    let mut builder = cbindgen::Builder::new().with_config(config);
    for source in SOURCES {
        builder = builder.with_src(root().join(format!("src/capi/{source}.rs")));
    }
    let mut text = Vec::new();
    builder.generate().expect("cbindgen").write(&mut text);
    String::from_utf8(text).expect("UTF-8")
}

#[test]
fn header_is_current() {
    let generated = generate();
    if std::env::var_os("MW_BLESS").is_some() {
        std::fs::write(header(), &generated).expect("write the header");
    }
    let checked_in = std::fs::read_to_string(header()).expect("the header");
    let differs = checked_in.lines().zip(generated.lines()).position(|(old, new)| old != new);
    assert!(
        checked_in == generated,
        "include/multiworld.h is not what src/capi says (line {}); MW_BLESS=1 cargo test --test header writes it",
        differs.map_or(checked_in.lines().count().min(generated.lines().count()), |line| line) + 1,
    );
}

/// Uses what is a macro in the header, where no compiler looks unless it is used.
const USER: &str = r#"
#include "multiworld.h"
mwConfig_t unset = MW_CONFIG_INITIALIZER;
char id_is_128_bytes[sizeof(mwUniqueId) == 128 ? 1 : -1];
char types[mwFloat == 7 && mwHalf == 6 && mwDouble == 8 && mwInt == 2 && mwChar == 0 ? 1 : -1];
mwResult_t all_reduce(const float *in, float *out, size_t count, mwWorld_t world);
mwResult_t all_reduce(const float *in, float *out, size_t count, mwWorld_t world) {
  return mwAllReduce(in, out, count, mwFloat, mwSum, world, NULL);
}
"#;

#[test]
fn header_compiles_as_c99_and_as_cpp17() {
    for (compiler, standard, language) in [("cc", "-std=c99", "c"), ("c++", "-std=c++17", "c++")] {
        let child = Command::new(compiler)
            .args([
                standard,
                "-Wall",
                "-Wextra",
                "-Werror",
                "-pedantic",
                "-fsyntax-only",
                "-x",
                language,
                "-I",
            ])
            .args([root().join("include").as_os_str(), "-".as_ref()])
            .stdin(Stdio::piped())
            .spawn();
        let mut child = match child {
            // The library needs a C compiler only; tests/run.sh says what it skips.
            Err(err) if compiler == "c++" && err.kind() == std::io::ErrorKind::NotFound => {
                eprintln!("skipped: {compiler} is not installed");
                continue;
            }
            child => child.unwrap_or_else(|err| panic!("{compiler}: {err}")),
        };
        std::io::Write::write_all(&mut child.stdin.take().expect("stdin"), USER.as_bytes()).expect("write");
        assert!(child.wait().expect("wait").success(), "{compiler} {standard} refuses the header");
    }
}

#[test]
fn constants_written_by_hand_are_the_library_s() {
    let text = std::fs::read_to_string(header()).expect("the header");
    let magic = format!("#define MW_CONFIG_MAGIC {:#x}u\n", multiworld::capi::MW_CONFIG_MAGIC);
    let color = format!("#define MW_SPLIT_NOCOLOR ({})\n", multiworld::capi::MW_SPLIT_NOCOLOR);
    for define in [magic, color] {
        assert!(text.contains(&define), "{define}");
    }
}

/// The function names of the header: declarations begin at the margin and their argument list follows the
/// name.
fn declared() -> BTreeSet<String> {
    let text = std::fs::read_to_string(header()).expect("the header");
    text.lines()
        .filter(|line| line.starts_with("mwResult_t ") || line.starts_with("const char *"))
        .filter_map(|line| line.split('(').next())
        .filter_map(|line| line.rsplit([' ', '*']).next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_declared_function_is_exported_and_the_other_way_round() {
    // Next to this test's executable, or one up: where cargo puts the shared library of the package.
    let exe = std::env::current_exe().expect("own path");
    let library = exe
        .ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join("libmultiworld.so"))
        .find(|path| path.exists())
        .expect("libmultiworld.so");
    let nm = Command::new("nm").args(["-D", "--defined-only"]).arg(&library).output().expect("nm");
    let exported: BTreeSet<String> = String::from_utf8_lossy(&nm.stdout)
        .lines()
        .filter_map(|line| line.rsplit(' ').next())
        .filter(|name| name.starts_with("mw"))
        .map(str::to_owned)
        .collect();
    assert!(declared().len() > 40);
    assert_eq!(declared(), exported);
}
