//! What the command-line tools of siltstone are made of.
#![forbid(unsafe_code)]

pub mod admin;
pub mod bench;
pub mod interrupt;
mod lines;
pub mod random;
pub mod read_only_fs;
pub mod scratch;
pub mod sst_dump;
pub mod text;
pub mod torture;
