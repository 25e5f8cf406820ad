//! What the command-line tools of siltstone are made of.
#![forbid(unsafe_code)]
// Those macros panic where nobody listens any more; what is printed goes through `say`.
#![cfg_attr(not(test), deny(clippy::print_stdout, clippy::print_stderr))]

pub mod admin;
pub mod bench;
pub mod interrupt;
mod lines;
mod pipe;
pub mod random;
pub mod read_only_fs;
mod say;
pub mod scratch;
pub mod sst_dump;
pub mod text;
pub mod torture;
mod trailer;
