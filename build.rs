//! Gives the shared library its SONAME and keeps it loaded: its watchdog threads must outlive a dlclose.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // Not rustc-cdylib-link-arg, which also reaches the shared libraries that are built upon this package.
    println!("cargo:rustc-link-arg=-Wl,-soname,libmultiworld.so.1");
    println!("cargo:rustc-link-arg=-Wl,-z,nodelete");
}
