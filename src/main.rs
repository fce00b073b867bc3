//! The `nervewire` binary.
fn main() {}
