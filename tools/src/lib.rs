//! What the command-line tools of siltstone are made of.
#![forbid(unsafe_code)]

pub mod overlay_fs;
pub mod read_only_fs;
pub mod text;
