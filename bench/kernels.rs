//! Reduction kernels.
fn main() {}
