//! The distributions that workloads draw keys, lengths and scans from. Pure arithmetic on a seeded
//! generator: the same seed gives the same draws on every machine.

use super::args::MixArgs;
use super::line::as_f64;
use crate::random::{Random, mix};

/// The skew of YCSB's zipfian distribution (Cooper et al., SoCC 2010).
const YCSB_THETA: f64 = 0.99;
/// So many terms of the zeta function are added one by one; the rest is an integral.
const ZETA_TERMS: u64 = 1000;

/// A number from 0 up to, but not including, 1.
#[inline]
pub(crate) fn unit(random: &mut Random) -> f64 {
    as_f64(random.next_u64() >> 11) * (1.0 / 9_007_199_254_740_992.0)
}

/// The whole part of a number that is not negative; a negative one becomes 0.
#[inline]
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the cast saturates at both ends"
)]
pub(crate) fn floor_u64(number: f64) -> u64 {
    number as u64
}

/// Ranks from 0, the first the most frequent: rank r comes 1 / (r+1)^0.99 times as often as the
/// first.
///
/// The method of Gray et al., "Quickly Generating Billion-Record Synthetic Databases" (SIGMOD
/// 1994), which YCSB uses.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Zipfian {
    count: u64,
    alpha: f64,
    zeta: f64,
    eta: f64,
}

impl Zipfian {
    /// Ranks below `count`, which is at least 1.
    pub(crate) fn new(count: u64) -> Self {
        let theta = YCSB_THETA;
        let zeta = zeta(count, theta);
        let items = as_f64(count);
        let base = 1.0 - (2.0 / items).powf(1.0 - theta);
        Self {
            count,
            alpha: 1.0 / (1.0 - theta),
            zeta,
            eta: base / (1.0 - zeta_of_two(theta) / zeta),
        }
    }

    /// The next rank.
    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let part = unit(random);
        let scaled = part * self.zeta;
        if scaled < 1.0 {
            return 0;
        }
        if scaled < zeta_of_two(YCSB_THETA) {
            return 1.min(self.count - 1);
        }
        let spread = (self.eta * part - self.eta + 1.0).powf(self.alpha);
        floor_u64(as_f64(self.count) * spread).min(self.count - 1)
    }
}

fn zeta_of_two(theta: f64) -> f64 {
    1.0 + 0.5_f64.powf(theta)
}

/// The sum of 1 / i^theta for i from 1 to `count`: the first terms as they are, the rest by the
/// formula of Euler and Maclaurin, off by less than one part in 10^9.
fn zeta(count: u64, theta: f64) -> f64 {
    let term = |i: u64| as_f64(i).powf(-theta);
    let direct: f64 = (1..=count.min(ZETA_TERMS)).map(term).sum();
    if count <= ZETA_TERMS {
        return direct;
    }
    let integral = |i: u64| as_f64(i).powf(1.0 - theta) / (1.0 - theta);
    let slope = |i: u64| -theta * as_f64(i).powf(-theta - 1.0);
    let ends = f64::midpoint(term(count), -term(ZETA_TERMS));
    direct + integral(count) - integral(ZETA_TERMS)
        + ends
        + (slope(count) - slope(ZETA_TERMS)) / 12.0
}

/// The generalized Pareto distribution, by the inverse of its cumulative function.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pareto {
    pub(crate) theta: f64,
    pub(crate) k: f64,
    pub(crate) sigma: f64,
}

impl Pareto {
    /// The next number, rounded up.
    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        // Never 0, whose inverse is infinite.
        let part = 1.0 - unit(random);
        let number = if self.k == 0.0 {
            self.theta - self.sigma * part.ln()
        } else {
            self.theta + self.sigma * (part.powf(-self.k) - 1.0) / self.k
        };
        floor_u64(number.ceil())
    }
}

/// Keys of a social graph: some ranges of keys are hot, and within a range some keys.
///
/// Ranges are weighted by a sum of two exponentials and shuffled; within a range the rank of a key
/// follows a power law, and a hash says which key has that rank (Cao et al., FAST 2020, section 8).
#[derive(Clone, Debug)]
pub(crate) struct KeyRanges {
    /// Where the share of each range ends, as a part of 1; upwards.
    ends: Vec<f64>,
    keys_per_range: u64,
    /// a and b of the power law; `None` for an even spread.
    power: Option<(f64, f64)>,
}

impl KeyRanges {
    /// The ranges of `count` keys.
    pub(crate) fn new(args: &MixArgs, count: u64) -> Self {
        let ranges = u64::from(args.keyrange_num).min(count);
        let weight = |x: u64| {
            let x = as_f64(x);
            let hot = args.keyrange_dist_a * (args.keyrange_dist_b * x).exp();
            let cold = args.keyrange_dist_c * (args.keyrange_dist_d * x).exp();
            (hot + cold).max(0.0)
        };
        let mut weights: Vec<f64> = (1..=ranges).map(weight).collect();
        if weights.iter().sum::<f64>() <= 0.0 {
            weights.fill(1.0);
        }
        // Hot ranges must not be neighbours only because their number is small. The order depends
        // on nothing but the number of ranges: every thread and every run has the same.
        let mut random = Random::new(mix(ranges));
        for index in (1..weights.len()).rev() {
            weights.swap(index, random.below_usize(index + 1));
        }
        let sum: f64 = weights.iter().sum();
        let mut end = 0.0;
        let ends = weights.iter().map(|weight| {
            end += weight / sum;
            end
        });
        Self {
            ends: ends.collect(),
            keys_per_range: count / ranges,
            power: (args.key_dist_a != 0.0 && args.key_dist_b != 0.0)
                .then_some((args.key_dist_a, args.key_dist_b)),
        }
    }

    /// The next key.
    #[inline]
    pub(crate) fn draw(&self, random: &mut Random) -> u64 {
        let part = unit(random);
        let range = self.ends.partition_point(|end| *end <= part);
        let range = range.min(self.ends.len() - 1) as u64;
        let offset = match self.power {
            None => random.below(self.keys_per_range),
            Some((a, b)) => {
                let rank = floor_u64((unit(random) / a).powf(1.0 / b).ceil());
                mix(rank) % self.keys_per_range
            }
        };
        range * self.keys_per_range + offset
    }
}

#[cfg(test)]
mod tests;
