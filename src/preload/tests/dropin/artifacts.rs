//! The library, a library without contents that programs are linked against, and the programs.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// The root of the workspace.
pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Runs a command that has to succeed.
pub fn succeed(command: &mut Command) -> Output {
    let out = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(out.status.success(), "{command:?}: {}", String::from_utf8_lossy(&out.stderr));
    out
}

/// A folder of the caller's own for what it makes; empty at first.
pub fn folder(name: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let own = format!("{name}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(own);
    // It may be there from a process that had the same number.
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a folder for the test");
    path
}

/// `libmultiworld_nccl.so`, built with the profile of these tests.
pub fn library() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("multiworld-nccl", "libmultiworld_nccl.so"))
}

/// The double of NCCL 2.32.3.
pub fn nccl_double() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("multiworld-double-nccl", "libmwdouble_nccl.so"))
}

/// The double of NCCL 2.19.3.
pub fn old_nccl_double() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| built("multiworld-double-nccl-old", "libmwdouble_nccl_old.so"))
}

/// A folder with the double of CUDA under the names that programs look for.
pub fn cuda_double() -> &'static Path {
    static LINKED: OnceLock<PathBuf> = OnceLock::new();
    LINKED.get_or_init(|| {
        let library = built("multiworld-double-cuda", "libmwdouble_cuda.so");
        let folder = folder("cuda");
        for name in ["libcuda.so.1", "libcudart.so.12", "libcudart.so.13"] {
            std::os::unix::fs::symlink(&library, folder.join(name)).expect("a link to the double");
        }
        folder
    })
}

/// A library of this workspace, built with the profile of these tests.
fn built(package: &str, name: &str) -> PathBuf {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Tests are in <profile>/deps.
    let exe = std::env::current_exe().expect("own path");
    let profile = exe.parent().and_then(Path::parent).expect("the profile's folder");
    let mut build = Command::new(cargo);
    build.current_dir(root()).args(["build", "--quiet", "-p", package, "--target-dir"]);
    build.arg(profile.parent().expect("the target folder"));
    if profile.ends_with("release") {
        build.arg("--release");
    }
    succeed(&mut build);
    let library = profile.join(name);
    assert!(library.is_file(), "{} was not built", library.display());
    library
}

/// A folder with the library under NCCL's names, as a package would install it.
pub fn installed() -> &'static Path {
    static INSTALLED: OnceLock<PathBuf> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let folder = folder("installed");
        for name in ["libnccl.so.2", "libnccl.so"] {
            std::os::unix::fs::symlink(library(), folder.join(name)).expect("a link to the library");
        }
        folder
    })
}

fn cc() -> Command {
    Command::new(std::env::var_os("CC").unwrap_or_else(|| "cc".into()))
}

/// A folder with a libnccl.so.2 that has every function and does nothing: what a program was linked against.
pub fn hollow() -> &'static Path {
    static HOLLOW: OnceLock<PathBuf> = OnceLock::new();
    HOLLOW.get_or_init(|| {
        let folder = folder("hollow");
        let names =
            std::fs::read_to_string(root().join("src/nccl/symbols.txt")).expect("the list of symbols");
        let functions: String =
            names.lines().map(|name| format!("int {name}(void) {{ return 99; }}\n")).collect();
        let source = folder.join("hollow.c");
        std::fs::write(&source, functions).expect("a source file");
        let library = folder.join("libnccl.so.2");
        succeed(cc().args(["-shared", "-fPIC", "-Wl,-soname,libnccl.so.2", "-o"]).arg(&library).arg(&source));
        std::os::unix::fs::symlink("libnccl.so.2", folder.join("libnccl.so")).expect("a link");
        folder
    })
}

/// A program of tests/nccl, linked against the libnccl.so of a folder. Its functions are there for dlsym, as
/// those of a CUDA runtime that it has are; one whose name begins with `cuda_` is linked with the double of that. NCCL's own header is used where `NCCL_INCLUDE` and `CUDA_INCLUDE`
/// say that it is.
pub fn program(name: &str, libraries: &Path) -> PathBuf {
    let out = folder(name).join(name);
    let mut compile = cc();
    compile.args(["-std=c99", "-D_POSIX_C_SOURCE=200809L", "-O1", "-g", "-Wall", "-Wextra", "-Werror"]);
    if let (Some(nccl), Some(cuda)) = (std::env::var_os("NCCL_INCLUDE"), std::env::var_os("CUDA_INCLUDE")) {
        compile.arg("-DWITH_NCCL_H").arg("-isystem").arg(nccl).arg("-isystem").arg(cuda);
    }
    compile.arg(root().join("tests/nccl").join(name).with_extension("c"));
    compile.arg("-o").arg(&out).arg("-L").arg(libraries).args(["-lnccl", "-ldl", "-pthread", "-rdynamic"]);
    if name.starts_with("cuda_") {
        compile.arg("-L").arg(cuda_double()).arg("-l:libcudart.so.13");
    }
    succeed(&mut compile);
    out
}
