//! Where the genuine NCCL may be: where the user says, where the loader looks, where Python's packages put it.

use super::Library;
use crate::error::{Code, Error, Extent, Result};
use crate::sync::{Arc, OnceLock};
use std::ffi::OsString;
use std::path::{Path, PathBuf};

const NAME: &str = "libnccl.so.2";
/// Where distributions and NVIDIA's own packages put libraries.
const USUAL: [&str; 7] = [
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/local/cuda/lib64",
    "/usr/local/nccl/lib",
    "/usr/lib64",
    "/usr/local/lib",
    "/usr/lib",
];

type Env<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The genuine NCCL of this process, looked for by the first call. `MW_NCCL_LIB` names it; else the loader's path is
/// searched, then the Python environment.
pub fn get() -> Result<&'static Arc<Library>> {
    static ONE: OnceLock<Result<Arc<Library>>> = OnceLock::new();
    let find = || find(&|name| std::env::var_os(name), &python()).map(Arc::new);
    ONE.get_or_init(find).as_ref().map_err(Clone::clone)
}

/// As [`get`].
pub fn shared() -> Result<Arc<Library>> {
    get().cloned()
}

fn find(env: Env, python: &[PathBuf]) -> Result<Library> {
    if let Some(path) = env("MW_NCCL_LIB").filter(|p| !p.is_empty()) {
        return Library::open(Path::new(&path))
            .map_err(|e| Error { text: format!("MW_NCCL_LIB: {}", e.text).into(), ..e });
    }
    let mut tried = Vec::new();
    for path in candidates(env, python) {
        match Library::open(&path) {
            Ok(library) => {
                tracing::info!("NCCL {} found at '{}'", library.version_text(), path.display());
                return Ok(library);
            }
            Err(e) => {
                tracing::debug!("{e}");
                tried.push(path.display().to_string());
            }
        }
    }
    Err(Error::new(
        Code::System,
        Extent::Operation,
        format!("no NCCL found; set MW_NCCL_LIB to the path of {NAME} (looked for {})", tried.join(", ")),
    ))
}

/// Files to try, in order. The loader's own search comes first; where it finds multiworld's stand-in under NCCL's name,
/// which is refused, the folders it would have looked in further are tried one by one.
fn candidates(env: Env, python: &[PathBuf]) -> Vec<PathBuf> {
    let listed = env("LD_LIBRARY_PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&listed).filter(|p| !p.as_os_str().is_empty()).collect();
    folders.extend(USUAL.iter().map(PathBuf::from));
    let mut sites = Vec::new();
    for name in ["VIRTUAL_ENV", "CONDA_PREFIX"] {
        sites.extend(env(name).filter(|p| !p.is_empty()).map(PathBuf::from));
    }
    sites.extend(python.iter().cloned());
    folders.extend(std::env::split_paths(&env("PYTHONPATH").unwrap_or_default()).map(|p| wheel(&p)));
    for prefix in sites {
        folders.extend(site_packages(&prefix).iter().map(|p| wheel(p)));
    }
    let mut found = vec![PathBuf::from(NAME)];
    for path in folders.into_iter().map(|f| f.join(NAME)) {
        if path.is_file() && !found.contains(&path) {
            found.push(path);
        }
    }
    found
}

/// Where the packages nvidia-nccl-cu12 and -cu13 put the library, below site-packages.
fn wheel(site: &Path) -> PathBuf {
    site.join("nvidia/nccl/lib")
}

/// `lib/python3.*/site-packages` below an installation.
fn site_packages(prefix: &Path) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ["lib", "lib64", "local/lib"]
        .iter()
        .filter_map(|lib| std::fs::read_dir(prefix.join(lib)).ok())
        .flatten()
        .flatten()
        .filter(|e| e.file_name().to_string_lossy().starts_with("python3"))
        .flat_map(|e| [e.path().join("site-packages"), e.path().join("dist-packages")])
        .collect();
    // The newest Python first, however the directory is ordered.
    found.sort_by(|a, b| b.cmp(a));
    found
}

/// The installations of Python that this process can belong to: its own executable's, and the one that a shell would
/// start.
fn python() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut add = |program: &Path| {
        if let Some(prefix) = program.parent().and_then(Path::parent)
            && !found.contains(&prefix.to_path_buf())
        {
            found.push(prefix.to_path_buf());
        }
    };
    if let Ok(program) = std::env::current_exe()
        && program.file_name().is_some_and(|n| n.to_string_lossy().starts_with("python"))
    {
        add(&program);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    for folder in std::env::split_paths(&path) {
        let program = folder.join("python3");
        if program.is_file() {
            add(&program);
            if let Ok(program) = program.canonicalize() {
                add(&program);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;

    #[test]
    fn the_loader_first_then_folders_then_python() {
        let root = std::env::temp_dir().join(format!("multiworld-loader-{}", std::process::id()));
        let folder = root.join("lib");
        let wheel = root.join("venv/lib/python3.11/site-packages/nvidia/nccl/lib");
        for f in [&folder, &wheel] {
            std::fs::create_dir_all(f).unwrap();
            std::fs::write(f.join(NAME), "").unwrap();
        }
        let env: HashMap<&str, OsString> =
            [("LD_LIBRARY_PATH", folder.clone().into()), ("VIRTUAL_ENV", root.join("venv").into())].into();
        let found = candidates(&|name| env.get(name).cloned(), &[root.join("venv")]);
        let at = |f: &Path| found.iter().position(|p| *p == f.join(NAME));
        assert_eq!(found[0], Path::new(NAME));
        assert_eq!(at(&folder), Some(1));
        assert!(at(&wheel) > Some(1));
        assert_eq!(found.iter().filter(|p| p.starts_with(&wheel)).count(), 1);
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn what_the_user_names_is_not_replaced_by_anything_else() {
        let e = find(&|name| (name == "MW_NCCL_LIB").then(|| "/no/such/thing".into()), &[]).unwrap_err();
        assert!(e.text.contains("MW_NCCL_LIB") && e.text.contains("/no/such/thing"), "{e}");
    }

    #[test]
    fn nothing_found_says_what_to_do() {
        let Err(e) = find(&|_| None, &[]) else { return };
        assert!(e.text.contains("MW_NCCL_LIB"), "{e}");
    }
}
