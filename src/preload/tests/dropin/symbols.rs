//! What the library exports.

use crate::artifacts::{library, root, succeed};
use std::collections::BTreeSet;
use std::process::Command;

fn exported() -> Option<BTreeSet<String>> {
    if Command::new("nm").arg("--version").output().is_err() {
        eprintln!("skipped: nm is not installed");
        return None;
    }
    let out = succeed(Command::new("nm").args(["-D", "--defined-only"]).arg(library()));
    let text = String::from_utf8(out.stdout).expect("the names of symbols");
    Some(text.lines().filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect())
}

#[test]
fn every_symbol_of_the_genuine_library_is_there() {
    let Some(exported) = exported() else { return };
    let list = std::fs::read_to_string(root().join("src/nccl/symbols.txt")).expect("the list of symbols");
    let missing: Vec<&str> = list.lines().filter(|name| !exported.contains(*name)).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
    assert!(list.lines().count() >= 193);
}

#[test]
fn so_are_the_functions_of_the_library_that_it_is_made_of() {
    let Some(exported) = exported() else { return };
    let header = std::fs::read_to_string(root().join("include/multiworld.h")).expect("the header");
    let words = header.split(|c: char| !c.is_alphanumeric() && c != '_' && c != '(');
    let functions: BTreeSet<&str> = words
        .filter_map(|word| word.split_once('(').map(|(name, _)| name))
        .filter(|name| name.starts_with("mw") && name.chars().nth(2).is_some_and(char::is_uppercase))
        .collect();
    assert!(functions.len() > 20);
    let missing: Vec<&&str> = functions.iter().filter(|name| !exported.contains(**name)).collect();
    assert!(missing.is_empty(), "not exported: {missing:?}");
}

#[test]
fn its_soname_is_the_one_it_stands_in_for() {
    let bytes = std::fs::read(library()).expect("the library");
    let is_there = |name: &[u8]| bytes.windows(name.len()).any(|w| w == name);
    assert!(is_there(b"\0libnccl.so.2\0"));
    assert!(!is_there(b"\0libmultiworld.so.1\0"));
}
