//! The flags of `mixgraph`: what the keys, values, scans and rates of a social graph look like.

use super::VALUE_BYTES_MAX;

/// Makes a group of numbers, each with the value that it has unless it is given, and the name of
/// that in the help.
macro_rules! numbers {
    ($(#[$about:meta])* $group:ident, $heading:literal {
        $($(#[doc = $help:literal])+ $name:ident: $kind:ty = $value:expr, $unit:literal;)+
    }) => {
        $(#[$about])*
        #[derive(Clone, Debug, PartialEq, clap::Args)]
        #[command(next_help_heading = $heading, rename_all = "snake_case")]
        pub struct $group {
            $(
                $(#[doc = $help])+
                #[arg(long, value_name = $unit, default_value_t = $value,
                    allow_negative_numbers = true)]
                pub $name: $kind,
            )+
        }
    };
}

numbers! {
    /// The model of `mixgraph`, with the parameters that were published for ZippyDB at Facebook:
    /// Cao, Dong, Vemuri, Du, "Characterizing, Modeling, and Benchmarking RocksDB Key-Value
    /// Workloads at Facebook", FAST 2020, and the example command of RocksDB's wiki that goes with
    /// it.
    MixArgs, "Model of mixgraph (defaults: ZippyDB, FAST 2020)" {
        /// a of how often a key of a range is read: y = a * x^b; 0 for evenly.
        key_dist_a: f64 = 0.002_312, "A";
        /// b of it.
        key_dist_b: f64 = 0.3467, "B";
        /// a of how hot a range of keys is: y = a * e^(b*x) + c * e^(d*x).
        keyrange_dist_a: f64 = 14.18, "A";
        /// b of it.
        keyrange_dist_b: f64 = -2.917, "B";
        /// c of it.
        keyrange_dist_c: f64 = 0.0164, "C";
        /// d of it.
        keyrange_dist_d: f64 = -0.080_82, "D";
        /// Into how many ranges the keys are cut.
        keyrange_num: u32 = 30, "COUNT";
        /// Location of the generalized Pareto distribution of value lengths.
        value_theta: f64 = 0.0, "THETA";
        /// Shape of it.
        value_k: f64 = 0.2615, "K";
        /// Scale of it.
        value_sigma: f64 = 25.45, "SIGMA";
        /// Location of the generalized Pareto distribution of scan lengths.
        iter_theta: f64 = 0.0, "THETA";
        /// Shape of it.
        iter_k: f64 = 2.517, "K";
        /// Scale of it.
        iter_sigma: f64 = 14.236, "SIGMA";
        /// Part of the operations that are gets.
        mix_get_ratio: f64 = 0.83, "PART";
        /// Part of the operations that are puts.
        mix_put_ratio: f64 = 0.14, "PART";
        /// Part of the operations that are seeks.
        mix_seek_ratio: f64 = 0.03, "PART";
        /// Values are shorter than this; longer draws are taken modulo it.
        mix_max_value_size: u64 = 1024, "BYTES";
        /// Scans are shorter than this; longer draws are taken modulo it.
        mix_max_scan_len: u64 = 10_000, "COUNT";
        /// How often the rate is set anew.
        sine_mix_rate_interval_milliseconds: u64 = 5000, "MS";
        /// a of the rate.
        sine_a: f64 = 1000.0, "A";
        /// b of the rate; x is in seconds.
        sine_b: f64 = 0.000_073, "B";
        /// c of the rate.
        sine_c: f64 = 0.0, "C";
        /// d of the rate.
        sine_d: f64 = 4500.0, "D";
    }
}

impl MixArgs {
    /// What is wrong with the numbers, if anything.
    pub(super) fn fault(&self) -> Option<String> {
        let wrong = |fault: &str| Some(fault.to_owned());
        let parts = [self.mix_get_ratio, self.mix_put_ratio, self.mix_seek_ratio];
        if parts.iter().any(|part| !(0.0..=1.0).contains(part)) || parts.iter().sum::<f64>() <= 0.0
        {
            return wrong("--mix_get_ratio, --mix_put_ratio and --mix_seek_ratio are parts of 1");
        }
        let shapes = [
            (self.key_dist_a, "--key_dist_a"),
            (self.key_dist_b, "--key_dist_b"),
            (self.keyrange_dist_a, "--keyrange_dist_a"),
            (self.keyrange_dist_b, "--keyrange_dist_b"),
            (self.keyrange_dist_c, "--keyrange_dist_c"),
            (self.keyrange_dist_d, "--keyrange_dist_d"),
            (self.value_theta, "--value_theta"),
            (self.value_k, "--value_k"),
            (self.value_sigma, "--value_sigma"),
            (self.iter_theta, "--iter_theta"),
            (self.iter_k, "--iter_k"),
            (self.iter_sigma, "--iter_sigma"),
            (self.sine_a, "--sine_a"),
            (self.sine_b, "--sine_b"),
            (self.sine_c, "--sine_c"),
            (self.sine_d, "--sine_d"),
        ];
        if let Some((_, flag)) = shapes.iter().find(|(number, _)| !number.is_finite()) {
            return Some(format!("{flag} must be a finite number"));
        }
        if self.value_sigma <= 0.0 || self.iter_sigma <= 0.0 {
            return wrong("--value_sigma and --iter_sigma must be above 0");
        }
        if self.sine_d + self.sine_a.abs() <= 0.0 {
            return wrong("--sine_a and --sine_d give no rate that is ever above 0");
        }
        if self.sine_mix_rate_interval_milliseconds == 0 {
            return wrong("--sine_mix_rate_interval_milliseconds must be at least 1");
        }
        if self.mix_max_value_size > VALUE_BYTES_MAX as u64 {
            return wrong("--mix_max_value_size must be at most 268435456");
        }
        if self.keyrange_num == 0 {
            return wrong("--keyrange_num must be at least 1");
        }
        if self.mix_max_value_size == 0 || self.mix_max_scan_len == 0 {
            return wrong("--mix_max_value_size and --mix_max_scan_len must be at least 1");
        }
        None
    }
}
