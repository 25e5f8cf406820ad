//! `lsm-bench --engine` with the engines that this was built with: all find the same keys.

use std::process::Command;

use base::Result;
use peers::AllEngines;
use tools::bench::engine::{
    Commit, Direction, Engine, EngineName, EngineSet, Entries, Session, Setup, Tuning, Visitor,
};

/// The engines that are built in, yardsticks left out.
fn built() -> Vec<EngineName> {
    let all = EngineName::ALL.into_iter();
    all.filter(|name| AllEngines.has(*name) && (name.can_compact() || name.feature().is_some()))
        .collect()
}

/// Writes and reads a little of everything.
struct Tour<'a> {
    setup: &'a Setup,
    name: EngineName,
}

impl Visitor for Tour<'_> {
    type Output = ();

    fn visit<E: Engine>(self) -> Result<()> {
        let engine = E::open(self.setup)?;
        assert_eq!(engine.settings()[0].0, "version");
        let mut session = engine.session()?;
        session.put(b"b", b"2")?;
        session.put(b"b", b"two")?;
        let mut entries = Entries::new(1, 1);
        for (key, value) in [(b"a", b"1"), (b"c", b"3"), (b"d", b"4")] {
            entries.push(key, value);
        }
        session.put_batch(&entries)?;
        for round in 0..2 {
            let mut value = Vec::new();
            assert!(session.get(b"b", |found| value = found.to_vec())?);
            assert_eq!(value, b"two", "round {round}");
            assert!(!session.get(b"bb", |_| panic!("not there"))?);
            let mut keys = Vec::new();
            let mut note = |key: &[u8], _: &[u8]| {
                keys.extend_from_slice(key);
                true
            };
            session.scan(Direction::Forward, &mut note)?;
            session.scan(Direction::Backward, &mut note)?;
            session.seek(b"bb", &mut note)?;
            session.seek(b"e", &mut note)?;
            assert_eq!(keys, b"abcddcbacd", "round {round}");
            if self.name.can_reseek() {
                let mut keys = Vec::new();
                for from in [&b"d"[..], b"bb", b"a"] {
                    session.reseek(from, |key, _| {
                        keys.extend_from_slice(key);
                        false
                    })?;
                }
                assert_eq!(keys, b"dca", "round {round}");
            }
            if self.name.can_compact() {
                engine.compact()?;
            }
        }
        // A new cursor sees what was written since.
        session.put(b"e", b"5")?;
        let mut count = 0;
        session.seek(b"a", |_, _| {
            count += 1;
            count < 4
        })?;
        assert_eq!(count, 4, "a cursor ends when it is told to");
        assert!(session.get(b"e", |_| {})?);
        drop(session);
        engine.close()
    }
}

#[test]
fn every_engine_keeps_what_it_is_given() {
    for name in built() {
        for commit in [Commit::Os, Commit::Disk] {
            for tuning in [Tuning::Same, Tuning::Best] {
                let dir = tempfile::tempdir().expect("made");
                let setup = Setup {
                    dir: dir.path().to_owned(),
                    commit,
                    tuning,
                    filter_bits: 10,
                    memtable_bytes: 4 << 20,
                    cache_bytes: 8 << 20,
                };
                let tour = Tour {
                    setup: &setup,
                    name,
                };
                let result = AllEngines.visit(name, tour);
                result.unwrap_or_else(|error| panic!("{} {commit:?}: {error}", name.name()));
            }
        }
    }
}

#[test]
fn all_engines_find_the_same_keys() {
    let names: Vec<_> = built().into_iter().map(EngineName::name).collect();
    let output = Command::new(env!("CARGO_BIN_EXE_lsm-bench"))
        .arg(format!("--engine={}", names.join(",")))
        .args(["--benchmarks=fillrandom,overwrite,readrandom,readmissing,seekrandom,readseq"])
        .args(["--num=3000", "--seek_nexts=3"])
        .output()
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    for row in ["readrandom", "readmissing", "seekrandom", "readseq"] {
        let lines: Vec<tools::bench::line::ResultLine> = text
            .lines()
            .filter_map(|line| line.parse().ok())
            .filter(|line: &tools::bench::line::ResultLine| line.name == row)
            .collect();
        // The engine that does nothing comes last.
        assert_eq!(lines.len(), names.len() + 1, "{row} in\n{text}");
        for line in &lines[..names.len()] {
            assert_eq!(line.found, lines[0].found, "{row} in\n{text}");
            assert_eq!(line.operations, lines[0].operations, "{row} in\n{text}");
        }
    }
}
