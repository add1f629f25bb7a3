//! C programs that are linked to the double, or open it, under CUDA's names.

use std::ffi::OsStr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};
use std::{env, fs};

/// Far more than any of the programs takes.
const LIMIT: Duration = Duration::from_secs(60);

/// A folder of a test's own, with the double under its names.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        // Cargo puts the library beside the tests that it builds with it.
        let tests = env::current_exe().expect("this program").parent().expect("its folder").to_owned();
        let double = tests.join("libmwdouble_cuda.so");
        assert!(double.exists(), "{} is not built", double.display());
        for name in ["libcuda.so.1", "libcudart.so.12", "libcudart.so.13"] {
            symlink(&double, folder.join(name)).expect("a link");
        }
        Folder(folder)
    }

    /// None, with a printed reason, where the compiler is missing.
    fn build(&self, compiler: &str, source: &str, flags: &[&OsStr]) -> Option<PathBuf> {
        let program = self.0.join("program");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(source);
        let mut command = Command::new(compiler);
        command.args(["-Wall", "-Wextra", "-Werror", "-g"]).args(flags).arg(&source).arg("-o").arg(&program);
        command.arg("-L").arg(&self.0).args(["-l:libcudart.so.13", "-ldl", "-pthread"]);
        let Ok(built) = command.output() else {
            println!("skipped: {compiler} is not installed");
            return None;
        };
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        Some(program)
    }

    fn run(&self, program: &Path, settings: &str, arguments: &[&str]) {
        let mut child = Command::new(program)
            .args(arguments)
            .env("LD_LIBRARY_PATH", &self.0)
            .env("MW_DOUBLE_CUDA", settings)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a program");
        let begun = Instant::now();
        while child.try_wait().expect("a child").is_none() {
            if begun.elapsed() > LIMIT {
                child.kill().expect("a child");
                panic!("the program hangs");
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        let Output { status, stdout, stderr } = child.wait_with_output().expect("its output");
        assert!(status.success(), "{status}: {}", String::from_utf8_lossy(&stderr));
        assert_eq!(stdout, b"ok\n");
        assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{}: {error}", self.0.display());
        }
    }
}

fn compiler(variable: &str, default: &str) -> String {
    env::var(variable).unwrap_or_else(|_| default.to_owned())
}

/// Folders with the genuine headers: those that CUDA_INCLUDE names (colons between them), or what is found.
fn headers() -> Vec<PathBuf> {
    let named = env::var_os("CUDA_INCLUDE");
    let places: Vec<PathBuf> = match &named {
        Some(places) => env::split_paths(places).collect(),
        None => {
            let home = env::var_os("CUDA_HOME").or_else(|| env::var_os("CUDA_PATH"));
            let home = home.map(|home| PathBuf::from(home).join("include"));
            let usual = ["/usr/local/cuda/include", "/opt/cuda/include", "/usr/include"];
            home.into_iter().chain(usual.map(PathBuf::from)).collect()
        }
    };
    places.into_iter().filter(|place| place.join("cuda_runtime_api.h").exists()).collect()
}

fn unmodified(folder: &str, compiler: &str, flags: &[&str]) {
    let headers = headers();
    if headers.is_empty() {
        println!("skipped: no cuda_runtime_api.h; CUDA_INCLUDE can name its folder");
    }
    for (number, place) in headers.iter().enumerate() {
        println!("headers of {}", place.display());
        let folder = Folder::new(&format!("{folder}{number}"));
        // Not ours to warn about.
        let mut flags: Vec<&OsStr> = flags.iter().map(OsStr::new).collect();
        flags.extend([OsStr::new("-isystem"), place.as_os_str()]);
        if let Some(program) = folder.build(compiler, "unmodified.c", &flags) {
            folder.run(&program, "", &[]);
        }
    }
}

#[test]
fn an_unmodified_c_program_runs() {
    unmodified("c", &compiler("CC", "cc"), &["-std=c99"]);
}

#[test]
fn an_unmodified_cxx_program_runs() {
    unmodified("cxx", &compiler("CXX", "c++"), &["-std=c++17", "-x", "c++"]);
}

#[test]
fn a_program_controls_the_double() {
    let folder = Folder::new("control");
    let flags = ["-std=c99", "-pedantic"].map(OsStr::new);
    if let Some(program) = folder.build(&compiler("CC", "cc"), "control.c", &flags) {
        folder.run(&program, "devices=4,poison=700@cudaLaunchHostFunc:5", &["5"]);
    }
}

#[test]
fn all_names_are_one_library() {
    let folder = Folder::new("names");
    if let Some(program) = folder.build(&compiler("CC", "cc"), "one_instance.c", &[]) {
        folder.run(&program, "", &[]);
    }
}
