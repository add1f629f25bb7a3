//! Leaves out what is newer than 2.19.3, names the shared library as the genuine one is named, and keeps it
//! loaded.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-check-cfg=cfg(nccl_old)");
    println!("cargo:rustc-cfg=nccl_old");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libnccl.so.2");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
