//! Sets `cfg(loom)` for this package only.
fn main() {
    println!("cargo::rustc-cfg=loom");
}
