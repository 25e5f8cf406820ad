//! What one engine's turn at one row measured, and how it travels between processes.

use serde_json::{Value, json};

use super::drive::Driven;
use crate::bench::line::{ResultLine, as_f64, truncated};
use crate::bench::measure::Found;
use crate::bench::process::{DeviceBytes, MemoryBytes};

/// Percentiles of the latencies, as they are called in lines and documents.
pub(crate) const PERCENTILES: [(&str, f64); 4] = [
    ("P50", 50.0),
    ("P99", 99.0),
    ("P99.9", 99.9),
    ("P99.99", 99.99),
];

/// What one turn measured.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Measured {
    pub(crate) operations: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
    /// Of all threads together.
    pub(crate) thread_seconds: f64,
    pub(crate) found: Option<Found>,
    /// As [`PERCENTILES`], in microseconds.
    pub(crate) percentile_micros: [f64; 4],
    pub(crate) max_micros: f64,
    /// Writes a second of the thread beside the readers.
    pub(crate) beside_per_sec: Option<f64>,
    pub(crate) cpu_seconds: f64,
    /// Pages made dirty by this process, in bytes.
    pub(crate) written_bytes: u64,
    /// Bytes of the directory when the turn was over, as the file system counts them.
    pub(crate) dir_bytes: u64,
    /// Memory of the process when the turn was over.
    pub(crate) memory: MemoryBytes,
}

impl Measured {
    /// The figures of a row; what it cost besides time is left at zero.
    pub(crate) fn of(driven: &Driven) -> Self {
        let outcome = &driven.outcome;
        let has_latencies = !outcome.latencies.is_empty();
        let percentile = |percent| {
            if has_latencies {
                outcome.percentile_micros(percent)
            } else {
                0.0
            }
        };
        Self {
            operations: outcome.done,
            bytes: outcome.bytes,
            seconds: outcome.elapsed_seconds,
            thread_seconds: outcome.thread_seconds,
            found: outcome.found,
            percentile_micros: PERCENTILES.map(|(_, percent)| percentile(percent)),
            max_micros: if has_latencies {
                outcome.max_micros()
            } else {
                0.0
            },
            beside_per_sec: driven.beside_per_sec,
            ..Self::default()
        }
    }

    /// Operations a second.
    pub(crate) fn rate(&self) -> f64 {
        as_f64(self.operations) / self.seconds.max(1e-9)
    }

    /// The result line, as db_bench writes it.
    pub(crate) fn line(&self, name: &str) -> ResultLine {
        let operations = self.operations.max(1);
        let megabytes = as_f64(self.bytes) / 1_048_576.0;
        ResultLine {
            message: None,
            name: name.to_owned(),
            micros_per_op: self.thread_seconds * 1e6 / as_f64(operations),
            ops_per_sec: truncated(self.rate()),
            seconds: self.seconds,
            operations,
            megabytes_per_sec: (self.bytes > 0).then(|| megabytes / self.seconds.max(1e-9)),
            found: self.found,
        }
    }

    /// Takes over what the process used since before the row.
    pub(crate) fn add_cost(&mut self, device: DeviceBytes, cpu_seconds: f64) {
        self.written_bytes = device.written;
        self.cpu_seconds = cpu_seconds;
    }

    /// As a document.
    pub(crate) fn to_json(&self) -> Value {
        json!({
            "operations": self.operations,
            "bytes": self.bytes,
            "seconds": self.seconds,
            "thread_seconds": self.thread_seconds,
            "found": self.found.map(|found| found.found),
            "looked_for": self.found.map(|found| found.of),
            "percentile_micros": self.percentile_micros,
            "max_micros": self.max_micros,
            "beside_per_sec": self.beside_per_sec,
            "cpu_seconds": self.cpu_seconds,
            "device_write_bytes": self.written_bytes,
            "dir_bytes": self.dir_bytes,
            "anonymous_bytes": self.memory.anonymous,
            "file_bytes": self.memory.file,
            "peak_bytes": self.memory.peak,
        })
    }

    /// From a document; `None` if a field is missing.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let whole = |name: &str| value.get(name)?.as_u64();
        let part = |name: &str| value.get(name)?.as_f64();
        let percentiles = value.get("percentile_micros")?.as_array()?;
        let mut percentile_micros = [0.0; 4];
        for (to, from) in percentile_micros.iter_mut().zip(percentiles) {
            *to = from.as_f64()?;
        }
        let found = whole("found").zip(whole("looked_for"));
        Some(Self {
            operations: whole("operations")?,
            bytes: whole("bytes")?,
            seconds: part("seconds")?,
            thread_seconds: part("thread_seconds")?,
            found: found.map(|(found, of)| Found { found, of }),
            percentile_micros,
            max_micros: part("max_micros")?,
            beside_per_sec: part("beside_per_sec"),
            cpu_seconds: part("cpu_seconds")?,
            written_bytes: whole("device_write_bytes")?,
            dir_bytes: whole("dir_bytes")?,
            memory: MemoryBytes {
                anonymous: whole("anonymous_bytes")?,
                file: whole("file_bytes")?,
                peak: whole("peak_bytes")?,
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_measurement_comes_out_of_a_document_as_it_went_in() {
        let measured = Measured {
            operations: 7,
            bytes: 812,
            seconds: 0.5,
            thread_seconds: 1.0,
            found: Some(Found { found: 3, of: 7 }),
            percentile_micros: [1.0, 2.0, 3.0, 4.5],
            max_micros: 9.0,
            beside_per_sec: Some(2.5),
            cpu_seconds: 0.25,
            written_bytes: 4096,
            dir_bytes: 8192,
            memory: MemoryBytes {
                anonymous: 1,
                file: 2,
                peak: 3,
            },
        };
        let text = measured.to_json().to_string();
        let value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(Measured::from_json(&value), Some(measured.clone()));
        assert_eq!(Measured::from_json(&json!({})), None);
        let line = measured.line("readrandom").to_string();
        assert!(
            line.contains("14 ops/sec 0.500 seconds 7 operations;"),
            "{line}"
        );
        assert!(line.ends_with("(3 of 7 found)"), "{line}");
    }
}
