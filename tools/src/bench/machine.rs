//! The workloads that need no database: what a processor does with a block.

use base::Result;
use base::checksum::Crc;

use super::lane::Lane;

/// Bytes of a block, as in db_bench.
const BLOCK_BYTES: usize = 4096;
/// So many bytes are worked on unless `--reads` says how many blocks.
const TOTAL_BYTES: u64 = 500 << 20;
/// Blocks that `uncompress` goes round in.
const PACKED_COUNT: u64 = 256;

/// What is done to blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Work {
    Checksum,
    Compress,
    Uncompress,
}

/// Works on blocks of values; the message says what became of them.
///
/// # Errors
/// If zstd fails.
pub(crate) fn run(lane: &mut Lane<'_>, work: Work) -> Result<Option<String>> {
    match work {
        Work::Checksum => Ok(Some(checksum(lane))),
        Work::Compress => compress(lane),
        Work::Uncompress => uncompress(lane),
    }
}

fn block_count(lane: &Lane<'_>) -> u64 {
    u64::try_from(lane.args.reads).unwrap_or(TOTAL_BYTES / BLOCK_BYTES as u64)
}

fn checksum(lane: &mut Lane<'_>) -> String {
    let count = block_count(lane);
    let block = lane.values.next_of(BLOCK_BYTES).to_vec();
    let mut crc = 0;
    let mut done = 0;
    while lane.goes_on(done, count) {
        crc = std::hint::black_box(Crc::plain().and(&block).finish());
        lane.finish(1, BLOCK_BYTES as u64);
        done += 1;
    }
    format!("(4096 per op; crc=0x{crc:x})")
}

fn compress(lane: &mut Lane<'_>) -> Result<Option<String>> {
    let count = block_count(lane);
    let mut compressor =
        zstd::bulk::Compressor::new(lane.args.compression_level).map_err(zstd_failed)?;
    let mut packed = vec![0; zstd::zstd_safe::compress_bound(BLOCK_BYTES)];
    let (mut done, mut packed_bytes) = (0, 0);
    while lane.goes_on(done, count) {
        let block = lane.values.next_of(BLOCK_BYTES);
        let len = compressor
            .compress_to_buffer(block, &mut packed)
            .map_err(zstd_failed)?;
        packed_bytes += len as u64;
        lane.finish(1, BLOCK_BYTES as u64);
        done += 1;
    }
    let percent = super::line::as_f64(packed_bytes) * 100.0
        / super::line::as_f64((done * BLOCK_BYTES as u64).max(1));
    Ok(Some(format!("(output: {percent:.1}%)")))
}

fn uncompress(lane: &mut Lane<'_>) -> Result<Option<String>> {
    let count = block_count(lane);
    let level = lane.args.compression_level;
    let packed: Vec<Vec<u8>> = (0..count.clamp(1, PACKED_COUNT))
        .map(|_| zstd::bulk::compress(lane.values.next_of(BLOCK_BYTES), level))
        .collect::<std::io::Result<_>>()
        .map_err(zstd_failed)?;
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(zstd_failed)?;
    let mut block = vec![0; BLOCK_BYTES];
    lane.meter.skip();
    for (done, packed) in (0..).zip(packed.iter().cycle()) {
        if !lane.goes_on(done, count) {
            break;
        }
        decompressor
            .decompress_to_buffer(packed, &mut block)
            .map_err(zstd_failed)?;
        std::hint::black_box(&block);
        lane.finish(1, BLOCK_BYTES as u64);
    }
    Ok(None)
}

fn zstd_failed(error: std::io::Error) -> base::Error {
    base::Error::io("memory", "run zstd on a block", error)
}
