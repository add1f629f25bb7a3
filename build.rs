//! Gives the shared library its SONAME and keeps it loaded: its watchdog threads must outlive a dlclose.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libmultiworld.so.1");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
