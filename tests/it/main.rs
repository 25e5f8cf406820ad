//! The integration tests of siltstone, in one binary.
#![forbid(unsafe_code)]

mod concurrency;
mod corruption;
mod crash;
mod debian;
mod endings;
mod fault;
mod fault_process;
mod fault_read_only;
mod history;
mod images;
mod ledger;
mod model;
mod order;
mod processes;
mod reads;
mod recovery;
mod structure;
mod support;
mod tidy;
mod walks;
