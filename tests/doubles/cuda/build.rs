//! Keeps the double loaded: its streams' threads must outlive a dlclose. It has no SONAME, because tests give
//! it several names.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
