use super::*;

fn parse(arguments: &[&str]) -> Args {
    let arguments = std::iter::once("lsm-bench").chain(arguments.iter().copied());
    Args::try_parse_from(arguments).expect("the flags are right")
}

#[test]
fn flags_are_written_as_db_bench_has_them() {
    let args = parse(&[
        "--num=5000000",
        "--value_size=400",
        "--sync=1",
        "--histogram",
    ]);
    assert_eq!((args.num, args.value_size), (5_000_000, 400));
    assert!(args.switches.sync && args.switches.histogram && !args.switches.use_existing_db);
    assert_eq!(args.read_count(), 5_000_000);
    let args = parse(&["--reads=10", "--sync=false", "--bloom_bits=-1"]);
    assert_eq!(args.read_count(), 10);
    assert!(!args.switches.sync);
}

#[test]
fn the_default_set_is_made_of_known_workloads() {
    let args = parse(&[]);
    args.validate().expect("the defaults are right");
    assert!(args.requests().expect("known").len() > 10);
}

#[test]
fn impossible_flags_are_named() {
    for (flag, message) in [
        ("--num=0", "--num"),
        ("--threads=0", "--threads"),
        ("--key_size=2", "--key_size"),
        ("--compression_ratio=0", "--compression_ratio"),
        ("--use_existing_db", "--use_existing_db"),
    ] {
        let error = parse(&[flag]).validate().expect_err(flag);
        assert!(error.to_string().contains(message), "{error}");
    }
}
