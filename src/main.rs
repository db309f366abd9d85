//! The binary. All code is in the library; [`commingle::cli`] is its entry point.

use std::process::ExitCode;

fn main() -> ExitCode {
    commingle::cli::run(std::env::args_os())
}
