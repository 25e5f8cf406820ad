//! Operations over time, counted by each thread for itself and put together at the end.

/// Operations are counted in spans of so many nanoseconds.
pub const SPAN_NANOS: u64 = 100_000_000;
/// More spans than this are not kept: four days.
const SPANS_MAX: usize = 4_000_000;

/// How many operations ended in each span of time, from the first one on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Series {
    /// The number of the first span, counted from the zero of the clock.
    pub first: u64,
    /// Operations of each span.
    pub counts: Vec<u64>,
}

impl Series {
    /// Nothing counted, beginning at `nanos`.
    pub fn new(nanos: u64) -> Self {
        Self {
            first: nanos / SPAN_NANOS,
            counts: Vec::new(),
        }
    }

    /// Counts `count` operations that ended at `nanos`.
    pub fn add(&mut self, nanos: u64, count: u64) {
        let span = (nanos / SPAN_NANOS).saturating_sub(self.first);
        let Ok(index) = usize::try_from(span) else {
            return;
        };
        if index >= SPANS_MAX {
            return;
        }
        if index >= self.counts.len() {
            self.counts.resize(index + 1, 0);
        }
        self.counts[index] += count;
    }

    /// Takes in what another thread counted by the same clock.
    pub fn merge(&mut self, other: &Self) {
        if other.counts.is_empty() {
            return;
        }
        if self.counts.is_empty() {
            self.clone_from(other);
            return;
        }
        if other.first < self.first {
            let missing = usize::try_from(self.first - other.first).unwrap_or(SPANS_MAX);
            self.counts
                .splice(0..0, std::iter::repeat_n(0, missing.min(SPANS_MAX)));
            self.first = other.first;
        }
        for (span, count) in (other.first..).zip(&other.counts) {
            self.add(span * SPAN_NANOS, *count);
        }
    }

    /// Operations a second, over so many spans at a time; what is left at the end counts as long as
    /// it is.
    pub fn per_interval(&self, spans: usize) -> Vec<u64> {
        let spans = spans.max(1);
        let rate = |chunk: &[u64]| chunk.iter().sum::<u64>() * 10 / chunk.len() as u64;
        self.counts.chunks(spans).map(rate).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(span: u64) -> u64 {
        span * SPAN_NANOS + 7
    }

    #[test]
    fn threads_that_began_at_other_times_fall_into_the_same_spans() {
        let mut late = Series::new(at(5));
        late.add(at(5), 1);
        late.add(at(7), 2);
        let mut early = Series::new(at(4));
        early.add(at(4), 10);
        early.add(at(5), 20);
        let expected = Series {
            first: 4,
            counts: vec![10, 21, 0, 2],
        };
        for (mut one, other) in [(late.clone(), &early), (early.clone(), &late)] {
            one.merge(other);
            assert_eq!(one, expected);
        }
        let mut none = Series::new(at(9));
        none.merge(&expected);
        assert_eq!(none, expected);
        assert_eq!(expected.per_interval(2), [31 * 5, 10]);
    }
}
