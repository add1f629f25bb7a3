//! The exported symbols are those of the genuine library, all of them.

mod common;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::Command;

fn library() -> Option<PathBuf> {
    let test = std::env::current_exe().expect("a path");
    let places = test.ancestors().skip(1).take(2).map(|folder| folder.join("libmwdouble_nccl.so"));
    places.into_iter().find(|path| path.exists())
}

#[test]
fn every_symbol_is_there_and_no_other() {
    let library = library().expect("cargo has built the library");
    let Ok(output) = Command::new("nm").arg("-D").arg("--defined-only").arg(&library).output() else {
        println!("skipped: there is no nm");
        return;
    };
    let text = String::from_utf8_lossy(&output.stdout);
    let exported = text.lines().filter_map(|line| line.split_whitespace().nth(2));
    let exported: BTreeSet<&str> = exported.filter(|name| name.contains("nccl")).collect();
    let genuine: BTreeSet<&str> = include_str!("symbols.txt").lines().collect();
    assert_eq!(genuine.len(), 97 + 96);
    assert_eq!(exported, genuine);
}
