//! The doubles of CUDA and NCCL under the names that programs look for, built when a test needs them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// Where the doubles lie.
pub struct Doubles {
    /// For LD_LIBRARY_PATH: libcuda.so.1 and libcudart.so.{12,13}.
    pub folder: PathBuf,
    /// For MW_NCCL_LIB: of NCCL 2.32.3.
    pub nccl: PathBuf,
    /// Of NCCL 2.19.3, with what that has.
    pub old_nccl: PathBuf,
}

/// Builds packages of this workspace as the test itself was built, and answers the folder of their libraries.
pub fn build(packages: &[&str]) -> PathBuf {
    let program = std::env::current_exe().expect("own path");
    // target/debug/deps/test-0123: the libraries are two folders up.
    let folder = program.parent().and_then(Path::parent).expect("a target folder").to_path_buf();
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["build", "--quiet", "--manifest-path"]).arg(root().join("Cargo.toml"));
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    for p in packages {
        cargo.args(["-p", p]);
    }
    assert!(cargo.status().expect("cargo").success(), "building {packages:?}");
    folder
}

fn root() -> &'static Path {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    // The tests of members share this file.
    here.ancestors().filter(|p| p.join("Cargo.lock").exists()).last().unwrap_or(here)
}

/// The doubles.
pub fn get() -> &'static Doubles {
    static ONE: OnceLock<Doubles> = OnceLock::new();
    ONE.get_or_init(|| {
        let built =
            build(&["multiworld-double-cuda", "multiworld-double-nccl", "multiworld-double-nccl-old"]);
        let folder = built.join("doubles");
        std::fs::create_dir_all(&folder).expect("a folder for the doubles");
        for name in ["libcuda.so.1", "libcudart.so.12", "libcudart.so.13"] {
            link(&built.join("libmwdouble_cuda.so"), &folder.join(name));
        }
        let library = |name: &str| built.join(name);
        Doubles { nccl: library("libmwdouble_nccl.so"), old_nccl: library("libmwdouble_nccl_old.so"), folder }
    })
}

/// Another test may do the same at the same time.
fn link(to: &Path, name: &Path) {
    if std::fs::read_link(name).is_ok_and(|found| found == to) {
        return;
    }
    let temporary = name.with_extension(format!("{}", std::process::id()));
    let _ = std::fs::remove_file(&temporary);
    std::os::unix::fs::symlink(to, &temporary).expect("a link to a double");
    std::fs::rename(&temporary, name).expect("a link to a double");
}
