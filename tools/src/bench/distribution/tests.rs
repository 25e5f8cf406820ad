use clap::Parser;

use super::*;
use crate::bench::args::Args;

const SEED: u64 = 301;
const DRAWS: u32 = 200_000;

fn mix_args(flags: &[&str]) -> MixArgs {
    let flags = std::iter::once("lsm-bench").chain(flags.iter().copied());
    Args::try_parse_from(flags)
        .expect("the flags are right")
        .mix
}

/// What part of the draws `counts`.
fn part(mut counts: impl FnMut(&mut Random) -> bool) -> f64 {
    let mut random = Random::new(SEED);
    let hits: u32 = (0..DRAWS).map(|_| u32::from(counts(&mut random))).sum();
    f64::from(hits) / f64::from(DRAWS)
}

#[test]
fn zeta_by_formula_is_zeta_by_sum() {
    for count in [1, 2, 999, 1000, 1001, 54_321] {
        let sum: f64 = (1..=count).map(|i| as_f64(i).powf(-YCSB_THETA)).sum();
        let error = (zeta(count, YCSB_THETA) / sum - 1.0).abs();
        assert!(error < 1e-9, "count={count} error={error}");
    }
}

#[test]
fn zipfian_ranks_come_as_often_as_they_should() {
    let count = 1000;
    let zipfian = Zipfian::new(count);
    for rank in [0, 1] {
        let expected = 1.0 / as_f64(rank + 1).powf(YCSB_THETA) / zipfian.zeta;
        let found = part(|random| zipfian.draw(random) == rank);
        assert!(
            (found / expected - 1.0).abs() < 0.05,
            "{rank}: {found} {expected}"
        );
    }
    // The method is exact for the first two ranks and close for the rest.
    let expected = zeta(100, YCSB_THETA) / zipfian.zeta;
    let found = part(|random| zipfian.draw(random) < 100);
    assert!((found / expected - 1.0).abs() < 0.05, "{found} {expected}");
    for few in 1..4 {
        let zipfian = Zipfian::new(few);
        assert!(part(|random| zipfian.draw(random) < few) >= 1.0, "{few}");
    }
}

#[test]
fn values_of_mixgraph_have_the_published_mean() {
    let mix = mix_args(&[]);
    let pareto = Pareto {
        theta: mix.value_theta,
        k: mix.value_k,
        sigma: mix.value_sigma,
    };
    let mut random = Random::new(SEED);
    let sum: u64 = (0..DRAWS).map(|_| pareto.draw(&mut random)).sum();
    // The mean is theta + sigma / (1 - k); rounding up adds a half.
    let expected = mix.value_sigma / (1.0 - mix.value_k) + 0.5;
    let mean = as_f64(sum) / f64::from(DRAWS);
    assert!((mean / expected - 1.0).abs() < 0.05, "{mean} {expected}");
    let exponential = Pareto {
        theta: 0.0,
        k: 0.0,
        sigma: 10.0,
    };
    let above = part(|random| exponential.draw(random) > 10);
    assert!((above - (-1.0_f64).exp()).abs() < 0.01, "{above}");
}

#[test]
fn the_hottest_range_of_mixgraph_has_its_share() {
    let mix = mix_args(&[]);
    let count = 30_000;
    let ranges = KeyRanges::new(&mix, count);
    let weights: Vec<f64> = (1..=30)
        .map(|x| {
            let x = f64::from(x);
            14.18 * (-2.917 * x).exp() + 0.0164 * (-0.08082 * x).exp()
        })
        .collect();
    let hottest = weights[0] / weights.iter().sum::<f64>();
    let mut hits = [0_u32; 30];
    let mut random = Random::new(SEED);
    for _ in 0..DRAWS {
        let key = ranges.draw(&mut random);
        assert!(key < count);
        hits[usize::try_from(key / 1000).expect("small")] += 1;
    }
    let found = f64::from(*hits.iter().max().expect("thirty")) / f64::from(DRAWS);
    assert!((found / hottest - 1.0).abs() < 0.02, "{found} {hottest}");
    assert!(hottest > 0.7, "most reads go to one range");
}

#[test]
fn a_power_law_makes_some_keys_hot_and_none_spreads_them() {
    let hottest = |flags: &[&str]| {
        let ranges = KeyRanges::new(&mix_args(flags), 1_000_000);
        let mut random = Random::new(SEED);
        let mut counts = std::collections::BTreeMap::new();
        for _ in 0..DRAWS {
            *counts.entry(ranges.draw(&mut random)).or_insert(0_u32) += 1;
        }
        counts.into_values().max().expect("drawn")
    };
    let (skewed, even) = (hottest(&[]), hottest(&["--key_dist_a=0"]));
    // Of the reads of a range 0.002312 * 1^0.3467 go to its first key, and three quarters of all
    // go to one range.
    assert!((250..450).contains(&skewed), "{skewed}");
    assert!(even < 30, "{even}");
}

#[test]
fn fewer_keys_than_ranges_are_no_trouble() {
    let ranges = KeyRanges::new(
        &mix_args(&["--keyrange_dist_a=0", "--keyrange_dist_c=0"]),
        7,
    );
    assert!(part(|random| ranges.draw(random) < 7) >= 1.0);
}
