//! Stats files made by hand, byte by byte, as the engine would write them.
#![allow(dead_code, reason = "each test has a use for some of it")]

use base::checksum::Crc;
use base::coding::{put_field, put_varint_field};

/// The version that is read.
pub(crate) const VERSION: u32 = 1;

/// Tags of a stats file.
pub(crate) mod tag {
    pub(crate) const ENGINE_VERSION: u32 = 1;
    pub(crate) const PROCESS_ID: u32 = 2;
    pub(crate) const OPENED_MICROS: u32 = 3;
    pub(crate) const WRITTEN_MICROS: u32 = 4;
    pub(crate) const UP_MICROS: u32 = 5;
    pub(crate) const INTERVAL_MICROS: u32 = 6;
    pub(crate) const TROUBLE: u32 = 7;
    pub(crate) const KEYSPACE_COUNT: u32 = 8;
    pub(crate) const TOTALS: u32 = 9;
    /// What all keyspaces are together.
    pub(crate) const ALL: u32 = 10;
    pub(crate) const KEYSPACE: u32 = 11;
    pub(crate) const WAIT: u32 = 12;
    pub(crate) const TROUBLE_KIND: u32 = 17;
    /// In the totals.
    pub(crate) const USER_BYTES: u32 = 1;
    pub(crate) const USER_WRITES: u32 = 2;
    /// In a keyspace.
    pub(crate) const NAME: u32 = 1;
}

/// A process that never is: numbers of processes stay far below.
pub(crate) const NOBODY: u64 = i32::MAX as u64;

/// Tagged fields.
#[derive(Clone, Debug, Default)]
pub(crate) struct Body(Vec<u8>);

impl Body {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn number(mut self, tag: u32, number: u64) -> Self {
        put_varint_field(&mut self.0, tag, number);
        self
    }

    pub(crate) fn text(mut self, tag: u32, text: &str) -> Self {
        put_field(&mut self.0, tag, text.as_bytes());
        self
    }

    pub(crate) fn group(mut self, tag: u32, group: &Self) -> Self {
        put_field(&mut self.0, tag, &group.0);
        self
    }

    /// What the engine says of itself, opened at second 100 and up for `up` seconds, with these
    /// keyspaces.
    pub(crate) fn of_process(process_id: u64, up: u64, keyspaces: &[&str]) -> Self {
        let body = Self::new()
            .text(tag::ENGINE_VERSION, "1.2.3")
            .number(tag::PROCESS_ID, process_id)
            .number(tag::OPENED_MICROS, 100_000_000)
            .number(tag::WRITTEN_MICROS, 100_000_000 + up * 1_000_000)
            .number(tag::UP_MICROS, up * 1_000_000)
            .number(tag::INTERVAL_MICROS, 1_000_000)
            .number(tag::KEYSPACE_COUNT, keyspaces.len() as u64)
            .group(tag::ALL, &Self::new());
        keyspaces.iter().fold(body, |body, name| {
            body.group(tag::KEYSPACE, &Self::new().text(tag::NAME, name))
        })
    }

    /// The whole file.
    pub(crate) fn file(&self) -> Vec<u8> {
        self.file_of_version(VERSION)
    }

    pub(crate) fn file_of_version(&self, version: u32) -> Vec<u8> {
        let len = u32::try_from(self.0.len()).expect("short");
        let mut out = b"siltstat".to_vec();
        out.extend_from_slice(&version.to_le_bytes());
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(&self.0);
        let crc = Crc::plain().and(&out).finish();
        out.extend_from_slice(&crc.to_le_bytes());
        out
    }
}
