//! Turns `cfg(loom)` on for this package alone: some of the dependencies have one too.

fn main() {
    println!("cargo::rustc-cfg=loom");
    println!("cargo::rerun-if-changed=build.rs");
}
