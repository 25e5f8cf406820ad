//! Tries to make siltstone lose or invent something.

use std::process::ExitCode;

fn main() -> ExitCode {
    tools::torture::main()
}
