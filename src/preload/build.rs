//! Gives the shared library the SONAME it stands in for, and keeps it loaded: its threads must outlive a
//! dlclose.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-link-arg=-Wl,-soname,libnccl.so.2");
    println!("cargo:rustc-link-arg=-Wl,-z,nodelete");
}
