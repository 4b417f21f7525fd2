//! Checks and benchmarks.
fn main() {}
