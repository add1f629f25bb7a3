//! The layering rule, as a scan of the sources: imports go downwards only, libc is named in one place, unsafe
//! code has its places, and no file grows too long. Only the last goes for code that is compiled for tests only.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// From the top down. Modules on one line do not import each other. The crate docs in src/lib.rs show the same.
const LAYERS: [&[&str]; 10] = [
    &["cli"],
    &["capi", "preload"],
    &["world"],
    &["watchdog", "rendezvous"],
    &["backend"],
    &["progress"],
    &["collective"],
    &["store", "transport", "nccl", "fault", "observe"],
    &["sys", "config", "auth"],
    &["error", "types", "sync"],
];

/// Where unsafe code may be, with the reason. A path names a file or everything below a folder.
const UNSAFE: [(&str, &str); 15] = [
    ("sync/", "lock-free tables hand out what is behind raw cells"),
    ("sys/", "system calls"),
    ("transport/mod.rs", "messages are the caller's buffers"),
    ("transport/shm", "memory that peers write, too"),
    ("transport/tcp", "reads and writes straight from and into the caller's buffers"),
    ("transport/loopback", "copies between the caller's buffers"),
    ("transport/protocol", "messages are the caller's buffers"),
    ("collective/reduce", "kernels over raw elements"),
    ("progress", "lends the caller's buffers to endpoints and kernels"),
    ("nccl/", "calls through a table of foreign functions"),
    ("backend/", "calls through a table of foreign functions"),
    ("world/", "the caller's buffers cross threads"),
    ("capi/", "pointers from C"),
    ("preload/", "pointers from C"),
    ("cli/", "calls the C interface, and owns the buffers for it"),
];

/// Folders of src that are packages: they name the library's modules as `multiworld::module`.
const PACKAGES: [&str; 2] = ["preload", "cli"];

/// Longest file, in lines.
const LONGEST: usize = 800;

struct Source {
    /// Below src, with slashes.
    path: String,
    lines: usize,
    /// Without comments and literals.
    code: String,
    /// Without code that is compiled for tests only, either.
    shipped: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    collect(&root, &mut files);
    // Of a package of its own, what is shipped is in its src; its tests are tests like those up here.
    files.retain(|file| !PACKAGES.iter().any(|p| file.starts_with(root.join(p))) || is_shipped(&root, file));
    let mut sources: Vec<Source> = files
        .iter()
        .map(|file| {
            let text = fs::read_to_string(file).expect("a source file");
            let code = blank(&text);
            let path = file.strip_prefix(&root).expect("below src").to_string_lossy().into_owned();
            Source { path, lines: text.lines().count(), shipped: without_tests(&code), code }
        })
        .collect();
    // A module that is declared for tests only is for tests only, with everything below it.
    let test_modules: BTreeSet<String> = sources.iter().flat_map(test_modules).collect();
    for source in &mut sources {
        let path = source.path.trim_end_matches(".rs");
        let mut above = path.match_indices('/').map(|(at, _)| &path[..at]).chain([path]);
        if above.any(|module| test_modules.contains(module)) {
            source.shipped.clear();
        }
    }
    sources
}

fn is_shipped(root: &Path, file: &Path) -> bool {
    PACKAGES.iter().any(|p| file.starts_with(root.join(p).join("src")))
}

fn collect(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("a source folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            files.push(path);
        }
    }
}

/// The text with comments and the content of literals replaced by blanks; newlines stay.
fn blank(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let at = |i: usize| chars.get(i).copied().unwrap_or('\0');
    let mut out = String::with_capacity(text.len());
    let mut i = 0;
    while i < chars.len() {
        let start = i;
        match (at(i), at(i + 1)) {
            ('/', '/') => {
                while i < chars.len() && at(i) != '\n' {
                    i += 1;
                }
            }
            ('/', '*') => {
                let mut depth = 1;
                i += 2;
                while i < chars.len() && depth > 0 {
                    match (at(i), at(i + 1)) {
                        ('/', '*') => (depth, i) = (depth + 1, i + 2),
                        ('*', '/') => (depth, i) = (depth - 1, i + 2),
                        _ => i += 1,
                    }
                }
            }
            ('"', _) => {
                i += 1;
                while i < chars.len() && at(i) != '"' {
                    i += if at(i) == '\\' { 2 } else { 1 };
                }
                i += 1;
            }
            // A raw string, whatever prefix it has; an identifier that ends in r is not followed by a quote.
            ('r', '"' | '#') => {
                let hashes = (i + 1..).take_while(|&k| at(k) == '#').count();
                if at(i + 1 + hashes) != '"' {
                    out.push(at(i));
                    i += 1;
                    continue;
                }
                i += 2 + hashes;
                while i < chars.len() && !(at(i) == '"' && (1..=hashes).all(|k| at(i + k) == '#')) {
                    i += 1;
                }
                i += 1 + hashes;
            }
            // A character literal; a lifetime has no closing quote there.
            ('\'', '\\') => {
                i += 3;
                while i < chars.len() && at(i) != '\'' {
                    i += 1;
                }
                i += 1;
            }
            ('\'', _) if at(i + 2) == '\'' => i += 3,
            (c, _) => {
                out.push(c);
                i += 1;
                continue;
            }
        }
        out.extend((start..i.min(chars.len())).map(|k| if at(k) == '\n' { '\n' } else { ' ' }));
    }
    out
}

const TEST_ONLY: [&str; 2] = ["#[cfg(test)]", "#[cfg(all(test"];

/// Code (already blanked) without the items that follow `#[cfg(test)]`.
fn without_tests(code: &str) -> String {
    let mut out = String::new();
    let mut rest = code;
    while let Some(at) = TEST_ONLY.iter().filter_map(|mark| rest.find(mark)).min() {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        rest = &rest[item_length(rest)..];
    }
    out + rest
}

/// Up to the semicolon, or the brace that closes the item's first.
fn item_length(item: &str) -> usize {
    let mut depth = 0;
    for (at, c) in item.char_indices() {
        match c {
            ';' if depth == 0 => return at + 1,
            '{' => depth += 1,
            '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
    }
    item.len()
}

/// Paths (below src, without extension) of the modules that a file declares for tests only.
fn test_modules(source: &Source) -> Vec<String> {
    let dir = match source.path.trim_end_matches(".rs") {
        "lib" => String::new(),
        stem => format!("{}/", stem.trim_end_matches("/mod")),
    };
    let text = &source.code;
    let mut found = Vec::new();
    for (at, mark) in TEST_ONLY.iter().flat_map(|mark| text.match_indices(mark)) {
        let item = &text[at..at + item_length(&text[at..])];
        let declared = item[mark.len()..].split_once("mod ").map(|(_, name)| name);
        if let Some(name) = declared.and_then(|name| name.strip_suffix(';')) {
            found.push(format!("{dir}{name}"));
            // With a #[path], by the convention of this crate: <file>_tests.rs beside <file>.rs.
            found.push(format!("{}_{name}", source.path.trim_end_matches(".rs")));
        }
    }
    found
}

/// The modules of the crate that the code names as `crate::module`, or inside `crate::{..}`.
fn imports(code: &str) -> BTreeSet<String> {
    imports_of("crate::", code)
}

/// The same under another name of the crate.
fn imports_of(name: &str, code: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for (at, mark) in code.match_indices(name) {
        let before = code[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_') {
            continue;
        }
        let rest = &code[at + mark.len()..];
        match rest.strip_prefix('{') {
            None => found.extend(word(rest)),
            Some(list) => {
                let end = item_length(rest).saturating_sub(2);
                let mut depth = 0;
                let parts = list[..end].split(|c| {
                    depth += i32::from(c == '{') - i32::from(c == '}');
                    c == ',' && depth == 0
                });
                found.extend(parts.filter_map(|part| word(part.trim_start())));
            }
        }
    }
    found
}

fn word(text: &str) -> Option<String> {
    let word: String = text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!word.is_empty()).then_some(word)
}

/// Whether the code has this word, not as a part of another.
fn names(code: &str, wanted: &str) -> bool {
    let part = |c: Option<char>| c.is_some_and(|c| c.is_alphanumeric() || c == '_');
    code.match_indices(wanted).any(|(at, _)| {
        !part(code[..at].chars().next_back()) && !part(code[at + wanted.len()..].chars().next())
    })
}

fn layer(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn module(source: &Source) -> &str {
    source.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
}

fn may_import(from: &str, to: &str) -> bool {
    from == to || matches!((layer(from), layer(to)), (Some(from), Some(to)) if from < to)
}

#[test]
fn imports_go_downwards_only() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| source.path != "lib.rs" && !source.shipped.is_empty()) {
        // Tests beside a file are named after it.
        let from = module(source);
        if layer(from).is_none() {
            wrong.push(format!("{}: `{from}` has no layer; give it one in tests/layers.rs", source.path));
        }
        let name = if PACKAGES.contains(&from) { "multiworld::" } else { "crate::" };
        for to in imports_of(name, &source.shipped) {
            // What is not a module is an item of the crate root, which is below everything.
            if layer(&to).is_some() && !may_import(from, &to) {
                wrong.push(format!("{}: {from} must not import {to}", source.path));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// Layers that are packages of their own.
const PLANNED: [&str; 2] = ["preload", "cli"];

#[test]
fn the_crate_docs_show_these_layers_and_every_module() {
    let lib = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("lib.rs");
    let lines: Vec<String> = LAYERS.iter().map(|layer| format!("//! {}\n", layer.join(" | "))).collect();
    let block = format!("//! ```text\n{}//! ```\n", lines.concat());
    assert!(lib.contains(&block), "src/lib.rs should say\n{block}");
    let declared: BTreeSet<&str> =
        lib.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    let placed: BTreeSet<&str> = LAYERS.concat().into_iter().collect();
    let planned = BTreeSet::from(PLANNED);
    assert_eq!(declared, &placed - &planned);
    let is_listed =
        |line: &str, name: &str| line.starts_with("//! | ") && line.contains(&format!("[`{name}`]"));
    let missing: Vec<_> =
        declared.iter().filter(|name| !lib.lines().any(|line| is_listed(line, name))).collect();
    assert!(missing.is_empty(), "not in the module table of src/lib.rs: {missing:?}");
}

#[test]
fn only_sys_names_libc() {
    let sources = sources();
    let wrong: Vec<&str> = sources
        .iter()
        .filter(|source| module(source) != "sys" && names(&source.shipped, "libc"))
        .map(|source| &*source.path)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn unsafe_code_has_its_places() {
    let sources = sources();
    let wrong: Vec<&str> = sources
        .iter()
        .filter(|source| names(&source.shipped, "unsafe"))
        .map(|source| &*source.path)
        .filter(|path| !UNSAFE.iter().any(|(place, _)| path.starts_with(place)))
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}; if it has to be, tests/layers.rs wants the reason");
}

#[test]
fn files_are_short() {
    let sources = sources();
    let wrong: Vec<_> =
        sources.iter().filter(|source| source.lines > LONGEST).map(|s| (&*s.path, s.lines)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn the_scan_sees_through_disguises() {
    let code = blank(
        "// crate::capi\nlet s = \"crate::world\"; /* crate::nccl /* x */ */ let c = '\"'; use crate::sys;",
    );
    assert_eq!(imports(&code), BTreeSet::from(["sys".to_owned()]));
    let code = blank(
        "let r = r#\"a \" crate::world\"#; fn f<'a>(x: &'a u8) { crate::{sync::{Arc, Mutex}, types::X} }",
    );
    assert_eq!(imports(&code), BTreeSet::from(["sync".to_owned(), "types".to_owned()]));
    let code = without_tests(
        "use crate::sys;\n#[cfg(test)]\nmod tests { use crate::world; fn f() {} }\nuse crate::types;",
    );
    assert_eq!(imports(&code), BTreeSet::from(["sys".to_owned(), "types".to_owned()]));
    assert!(names("unsafe { }", "unsafe") && !names("#![deny(unsafe_op_in_unsafe_fn)]", "unsafe"));
    assert!(names("libc::read", "libc") && !names("glibc", "libc"));
    assert!(
        may_import("capi", "world") && may_import("world", "sync") && may_import("progress", "collective")
    );
    for (from, to) in
        [("world", "capi"), ("store", "transport"), ("config", "sys"), ("collective", "progress")]
    {
        assert!(!may_import(from, to), "{from} {to}");
    }
}
