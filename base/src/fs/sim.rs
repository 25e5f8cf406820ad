//! A file system in memory that can crash. Under construction.
