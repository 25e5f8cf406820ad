//! The flags that are on or off, all written as gflags writes them.

/// A switch as gflags writes it: `--sync`, `--sync=1`, `--sync=true`.
pub(super) fn flag(text: &str) -> Result<bool, String> {
    match text {
        "1" | "true" | "t" | "yes" | "y" => Ok(true),
        "0" | "false" | "f" | "no" | "n" => Ok(false),
        _ => Err("a switch is true or false, 1 or 0".to_owned()),
    }
}

/// Makes a group of switches, all off unless they are given.
macro_rules! switches {
    ($(#[$about:meta])* $group:ident { $($(#[doc = $help:literal])+ $name:ident,)+ }) => {
        $(#[$about])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, clap::Args)]
        #[command(rename_all = "snake_case")]
        pub struct $group {
            $(
                $(#[doc = $help])+
                #[arg(long, value_parser = flag, num_args = 0..=1, require_equals = true,
                    default_value = "false", default_missing_value = "true",
                    action = clap::ArgAction::Set)]
                pub $name: bool,
            )+
        }
    };
}

switches! {
    /// What is either so or not.
    Switches {
        /// Keeps the database that is in --db; workloads that start afresh are then skipped.
        use_existing_db,
        /// Every commit waits until it is on the disk.
        sync,
        /// seekrandom uses one cursor for all seeks instead of making one for each, as db_bench
        /// does.
        reuse_cursor,
        /// Prints the distribution of latencies below each result.
        histogram,
        /// Prints every counter of the engine at the end.
        statistics,
        /// Operations of mixgraph come at a rate that rises and falls: a * sin(b*x + c) + d a
        /// second.
        sine_mix_rate,
    }
}
