//! Tries to make siltstone lose or invent something.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::torture::main()
}
