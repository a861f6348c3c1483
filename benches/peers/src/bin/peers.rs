//! Runs all measurements, each in a fresh process of its own.

use std::process::ExitCode;

fn main() -> ExitCode {
    reliable_udp_peers::main()
}
