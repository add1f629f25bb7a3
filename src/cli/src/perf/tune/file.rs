//! Files: one that appears when it is whole, and some that never have a name for long.

use crate::api::{Failure, Result};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A name in the same folder that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = std::ffi::OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    path.with_file_name(name)
}

fn failed(path: &Path, e: &std::io::Error) -> Failure {
    Failure::new(format!("--tune: {}: {e}", path.display()))
}

fn fill(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Whether a file could be written there, before time goes into what it is to hold.
pub fn check(path: &Path) -> Result<()> {
    if path.file_name().is_none() || path.is_dir() {
        return Err(Failure::new(format!("--tune: {} is no name of a file", path.display())));
    }
    let trial = beside(path);
    fill(&trial, "").and_then(|()| fs::remove_file(&trial)).map_err(|e| failed(path, &e))
}

/// Puts a file there, in place of one that may be there; all of it or nothing.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let new = beside(path);
    let written = fill(&new, text).and_then(|()| fs::rename(&new, path));
    written.map_err(|e| {
        // May not be there.
        let _ = fs::remove_file(&new);
        failed(path, &e)
    })
}

/// An empty file that goes when the last process closes it.
pub fn without_name() -> Result<File> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let path = std::env::temp_dir().join(format!("mw-perf-{}-{number}", std::process::id()));
    let made = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path);
    let file = made.and_then(|file| fs::remove_file(&path).map(|()| file));
    file.map_err(|e| Failure::new(format!("{}: {e}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_refused_by_name() {
        let folder = std::env::temp_dir().join(format!("mw-file-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let path = folder.join("table");
        check(&path).unwrap();
        assert!(!path.exists());
        for text in ["one", "two"] {
            replace(&path, text).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1);
        for wrong in [folder.clone(), folder.join("none/table"), PathBuf::from("/"), PathBuf::new()] {
            let text = check(&wrong).unwrap_err().to_string();
            assert!(text.starts_with("--tune: "), "{text}");
        }
        assert!(replace(&folder.join("none/table"), "").is_err());
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn files_without_a_name_leave_nothing() {
        let mut file = without_name().unwrap();
        file.write_all(b"something").unwrap();
        let mine = format!("mw-perf-{}-", std::process::id());
        let names = fs::read_dir(std::env::temp_dir()).unwrap().flatten();
        assert!(names.map(|e| e.file_name()).all(|name| !name.to_string_lossy().starts_with(&mine)));
    }
}
