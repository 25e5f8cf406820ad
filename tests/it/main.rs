//! The integration tests of siltstone, in one binary.
#![forbid(unsafe_code)]

mod checkpoint;
mod concurrency;
mod corruption;
mod crash;
mod cut;
mod debian;
mod endings;
mod explain;
mod fault;
mod fault_clock;
mod fault_loop;
mod fault_process;
mod fault_read;
mod fault_read_only;
mod fault_space;
mod fault_system;
mod fault_threads;
mod history;
mod idle;
mod images;
mod keyspace_model;
mod keyspace_threads;
mod keyspaces;
mod ledger;
mod model;
mod order;
mod owed;
mod priority;
mod processes;
mod reads;
mod recovery;
mod shutdown;
mod structure;
mod support;
mod sweeping;
mod tables;
mod throttle;
mod throttle_memory;
mod throttle_sim;
mod tidy;
#[cfg(feature = "tracing")]
mod tracing_spans;
mod walks;
mod writers;
