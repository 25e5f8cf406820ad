//! The flags of `mixgraph`: what the keys, values, scans and rates of a social graph look like.

use clap::Args;

/// The model of `mixgraph`, with the parameters that were published for ZippyDB at Facebook:
/// Cao, Dong, Vemuri, Du, "Characterizing, Modeling, and Benchmarking RocksDB Key-Value Workloads
/// at Facebook", FAST 2020, and the example command of RocksDB's wiki that goes with it.
#[derive(Clone, Debug, PartialEq, Args)]
#[command(next_help_heading = "Model of mixgraph (defaults: ZippyDB, FAST 2020)")]
pub struct MixArgs {
    /// a of how often a key of a range is read: y = a * x^b; 0 for evenly.
    #[arg(long = "key_dist_a", value_name = "A", default_value_t = 0.002_312)]
    pub key_dist_a: f64,
    /// b of it.
    #[arg(long = "key_dist_b", value_name = "B", default_value_t = 0.3467)]
    pub key_dist_b: f64,
    /// a of how hot a range of keys is: y = a * e^(b*x) + c * e^(d*x).
    #[arg(
        long = "keyrange_dist_a",
        value_name = "A",
        default_value_t = 14.18,
        allow_negative_numbers = true
    )]
    pub keyrange_dist_a: f64,
    /// b of it.
    #[arg(long = "keyrange_dist_b", value_name = "B", default_value_t = -2.917,
        allow_negative_numbers = true)]
    pub keyrange_dist_b: f64,
    /// c of it.
    #[arg(
        long = "keyrange_dist_c",
        value_name = "C",
        default_value_t = 0.0164,
        allow_negative_numbers = true
    )]
    pub keyrange_dist_c: f64,
    /// d of it.
    #[arg(long = "keyrange_dist_d", value_name = "D", default_value_t = -0.080_82,
        allow_negative_numbers = true)]
    pub keyrange_dist_d: f64,
    /// Into how many ranges the keys are cut.
    #[arg(long = "keyrange_num", value_name = "COUNT", default_value_t = 30)]
    pub keyrange_num: u32,
    /// Location of the generalized Pareto distribution of value lengths.
    #[arg(long = "value_theta", value_name = "THETA", default_value_t = 0.0)]
    pub value_theta: f64,
    /// Shape of it.
    #[arg(long = "value_k", value_name = "K", default_value_t = 0.2615)]
    pub value_k: f64,
    /// Scale of it.
    #[arg(long = "value_sigma", value_name = "SIGMA", default_value_t = 25.45)]
    pub value_sigma: f64,
    /// Location of the generalized Pareto distribution of scan lengths.
    #[arg(long = "iter_theta", value_name = "THETA", default_value_t = 0.0)]
    pub iter_theta: f64,
    /// Shape of it.
    #[arg(long = "iter_k", value_name = "K", default_value_t = 2.517)]
    pub iter_k: f64,
    /// Scale of it.
    #[arg(long = "iter_sigma", value_name = "SIGMA", default_value_t = 14.236)]
    pub iter_sigma: f64,
    /// Part of the operations that are gets.
    #[arg(long = "mix_get_ratio", value_name = "PART", default_value_t = 0.83)]
    pub mix_get_ratio: f64,
    /// Part of the operations that are puts.
    #[arg(long = "mix_put_ratio", value_name = "PART", default_value_t = 0.14)]
    pub mix_put_ratio: f64,
    /// Part of the operations that are seeks.
    #[arg(long = "mix_seek_ratio", value_name = "PART", default_value_t = 0.03)]
    pub mix_seek_ratio: f64,
    /// Values are shorter than this; longer draws are taken modulo it.
    #[arg(
        long = "mix_max_value_size",
        value_name = "BYTES",
        default_value_t = 1024
    )]
    pub mix_max_value_size: u64,
    /// Scans are shorter than this; longer draws are taken modulo it.
    #[arg(
        long = "mix_max_scan_len",
        value_name = "COUNT",
        default_value_t = 10_000
    )]
    pub mix_max_scan_len: u64,
    /// Operations come at a rate that rises and falls: a * sin(b*x + c) + d a second.
    #[arg(long = "sine_mix_rate", value_parser = super::flag, num_args = 0..=1,
        require_equals = true, default_value = "false", default_missing_value = "true",
        action = clap::ArgAction::Set)]
    pub sine_mix_rate: bool,
    /// How often the rate is set anew.
    #[arg(
        long = "sine_mix_rate_interval_milliseconds",
        value_name = "MS",
        default_value_t = 5000
    )]
    pub sine_mix_rate_interval_milliseconds: u64,
    /// a of the rate.
    #[arg(long = "sine_a", value_name = "A", default_value_t = 1000.0)]
    pub sine_a: f64,
    /// b of the rate; x is in seconds.
    #[arg(long = "sine_b", value_name = "B", default_value_t = 0.000_073)]
    pub sine_b: f64,
    /// c of the rate.
    #[arg(long = "sine_c", value_name = "C", default_value_t = 0.0)]
    pub sine_c: f64,
    /// d of the rate.
    #[arg(long = "sine_d", value_name = "D", default_value_t = 4500.0)]
    pub sine_d: f64,
}

impl MixArgs {
    /// What is wrong with the numbers, if anything.
    pub(super) fn fault(&self) -> Option<&'static str> {
        let parts = [self.mix_get_ratio, self.mix_put_ratio, self.mix_seek_ratio];
        if parts.iter().any(|part| !(0.0..=1.0).contains(part)) || parts.iter().sum::<f64>() <= 0.0
        {
            return Some("--mix_get_ratio, --mix_put_ratio and --mix_seek_ratio are parts of 1");
        }
        if self.keyrange_num == 0 {
            return Some("--keyrange_num must be at least 1");
        }
        if self.mix_max_value_size == 0 || self.mix_max_scan_len == 0 {
            return Some("--mix_max_value_size and --mix_max_scan_len must be at least 1");
        }
        None
    }
}
