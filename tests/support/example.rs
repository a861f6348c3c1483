//! The examples as programs.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Finds an example's program beside this test's. `cargo test` has built it; when only this test was
/// asked for, it may be missing or older than its source, which cargo then sees to.
pub(crate) fn example(name: &str) -> Command {
    let this = std::env::current_exe().unwrap();
    let examples = this.ancestors().nth(2).unwrap().join("examples");
    let program = examples
        .join(name)
        .with_extension(std::env::consts::EXE_EXTENSION);
    let built = |path: &Path| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    if built(&program) < built(&this) {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--example", name]);
        // The features of this test, so that nothing is built twice.
        let features = match (
            cfg!(feature = "__internals") && cfg!(feature = "tls"),
            cfg!(feature = "sim"),
        ) {
            (true, _) => "copy,capture,tls,__internals",
            (false, true) => "copy,capture,sim",
            (false, false) => "copy,capture",
        };
        cargo.args(["--features", features]);
        if !cfg!(debug_assertions) {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().unwrap().success(),
            "the example {name} is built"
        );
    }
    Command::new(program)
}
