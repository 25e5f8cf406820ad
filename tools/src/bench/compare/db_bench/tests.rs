use super::*;
use crate::bench::compare::fixtures;
use crate::bench::engine::EngineName;
use crate::bench::measure::Found;

/// As RocksDB 7.8.3 of Debian 12 printed it, the bars of histograms cut short.
const FILL: &str = include_str!("recorded/fill.txt");
const READS: &str = include_str!("recorded/reads.txt");
const REST: &str = include_str!("recorded/rest.txt");

fn flags(work: Work, has_data: bool) -> Vec<String> {
    let order = fixtures::order(EngineName::RocksDbBench, Path::new("/nowhere"));
    let program = DbBench {
        program: PathBuf::new(),
        order: &order,
        has_data,
    };
    let row = fixtures::row(work, 90, 2);
    program.flags(&row, program.benchmark(&row))
}

#[test]
fn a_fill_is_read_with_its_latencies() {
    let parsed = Parsed::new(FILL, "");
    let measured = parsed.measured("fillrandom").expect("there");
    assert_eq!(measured.operations, 20_000);
    assert!((measured.rate() - 108_752.0).abs() < 1.0, "{measured:?}");
    assert!((measured.thread_seconds - 0.18386).abs() < 1e-9);
    let percentiles = format!("{:?}", measured.percentile_micros);
    assert_eq!(percentiles, "[2.47, 13.44, 240.0, 9900.0]");
    assert!((measured.max_micros - 16_078.0).abs() < 1e-9);
    // 12.0 MB/s for 0.184 s.
    assert!(
        (2_310_000..2_320_000).contains(&measured.bytes),
        "{measured:?}"
    );
    assert_eq!(parsed.measured("readrandom"), None);
}

#[test]
fn the_version_and_what_it_warns_of_are_kept() {
    let complaint = "RocksDB:    version 7.8.3\nDate:       Sat Nov 21 20:37:39 2026\n";
    let parsed = Parsed::new(FILL, complaint);
    assert_eq!(parsed.version.as_deref(), Some("7.8.3, its own db_bench"));
    let warning = "Assertions are enabled; benchmarks unnecessarily slow";
    assert_eq!(parsed.warning.as_deref(), Some(warning));
}

#[test]
fn the_run_that_warms_up_does_not_count() {
    let measured = Parsed::new(READS, "")
        .measured("readrandom")
        .expect("there");
    // With several threads it tells what one of them found.
    let found = Found {
        found: 6303,
        of: 10_000,
    };
    assert_eq!(measured.found, Some(found));
    assert!((measured.rate() - 368_459.0).abs() < 1.0, "{measured:?}");
    let percentiles = format!("{:?}", measured.percentile_micros);
    assert_eq!(percentiles, "[0.6, 6.0, 151.54, 14000.0]");
    assert!((measured.max_micros - 20_033.0).abs() < 1e-9);
    let missing = Parsed::new(READS, "")
        .measured("readmissing")
        .expect("there");
    assert_eq!(missing.found.map(|found| found.found), Some(0));
    assert_eq!(missing.bytes, 0);
}

#[test]
fn what_is_done_once_is_timed_as_a_whole() {
    let parsed = Parsed::new(REST, "");
    let compaction = parsed.measured("compact").expect("there");
    assert_eq!(compaction.operations, 1);
    assert!((compaction.seconds - 0.080).abs() < 1e-9, "{compaction:?}");
    assert_eq!(parsed.measured("waitforcompaction"), None);
}

#[test]
fn a_row_becomes_flags() {
    let has = |flags: &[String], flag: &str| flags.iter().any(|known| known == flag);
    let first = flags(Work::FillRandom, false);
    for flag in [
        "--benchmarks=fillrandom",
        "--use_existing_db=false",
        "--writes=90",
        "--threads=2",
        "--num=500",
        "--compression_type=none",
        "--db=/nowhere",
        "--histogram=1",
    ] {
        assert!(has(&first, flag), "{flag} in {first:?}");
    }
    let second = flags(Work::FillRandom, true);
    assert!(has(&second, "--benchmarks=overwrite"), "{second:?}");
    assert!(has(&second, "--use_existing_db=true"), "{second:?}");
    let seek = flags(Work::SeekRandom, true);
    assert!(has(&seek, "--benchmarks=seekrandom[W1]"), "{seek:?}");
    assert!(has(&seek, "--reads=90") && has(&seek, "--seek_nexts=10"));
    let whole = flags(Work::FillSeq, false);
    assert!(!whole.iter().any(|flag| flag.starts_with("--writes")));
}

#[test]
fn a_counter_that_overwrites_itself_is_not_kept() {
    let said = "RocksDB:    version 7.8.3\n... finished 100 ops   \r... finished 200 ops  \rOops\n";
    assert_eq!(kept(said.as_bytes()), "RocksDB:    version 7.8.3\nOops");
}
