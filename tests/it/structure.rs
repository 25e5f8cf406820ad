//! The order of rooms: crates, floors of the engine and modules inside a crate import downwards
//! only; every option is used, every bench and binary is where it is said to be.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{Source, assert_none, has_word, read, sources};

/// The modules of each crate from the bottom up. Those in one line may know each other; each such
/// pair is two halves of one concept.
const MODULE_ORDER: [(&str, &[&str]); 5] = [
    (
        "base",
        &[
            "sync", "error", "fork", "ids", "coding", "hint", "machine", "random", "pages",
            "memory", "pins", "hash", "key", "slice", "filter", "cursor", "checksum", "clock",
            "executor", "fs",
        ],
    ),
    (
        "log",
        &[
            "record",
            "segment",
            "sync",
            "completion",
            "reader",
            "index",
            "writer",
            "history",
            "retention",
            "replay",
            "recovery",
            "tail",
        ],
    ),
    (
        "memtable",
        &["random", "spare", "arena", "ordered", "cursor", "memtable"],
    ),
    (
        "sstable",
        &[
            "bytes",
            "format",
            "block",
            "counted",
            // A frame is made with a dictionary or without one.
            "dictionary",
            "compression",
            "filter",
            "index",
            "properties",
            "cache",
            // A reader makes cursors, which read through it.
            "reader iter",
            "tables",
            "writer",
            "testing",
        ],
    ),
    (
        "compaction",
        &[
            "range",
            // A version is changed by edits, which hold its tables, and read through runs of them.
            "levels edit run",
            "plan",
            "policy",
            "retention",
            "merge",
            // A job's context says how its output is written.
            "job output",
            "lanes",
            "pool",
            "testing",
        ],
    ),
];

/// Which crates each one may import.
const CRATE_ORDER: [(&str, &[&str]); 5] = [
    ("base", &[]),
    ("log", &["base"]),
    ("memtable", &["base"]),
    ("sstable", &["base"]),
    ("compaction", &["base", "sstable"]),
];

/// The module of `crate_dir` that a file belongs to; none for its root.
fn module_of<'a>(source: &'a Source, crate_dir: &str) -> Option<&'a str> {
    let path = source.name.strip_prefix(crate_dir)?.strip_prefix("src/")?;
    let first = path.split('/').next()?;
    let name = first.strip_suffix(".rs").unwrap_or(first);
    (name != "lib" && name != "bin").then_some(name)
}

/// The modules that `text` names by `crate::`, its inline tests left out.
fn imports(text: &str) -> BTreeSet<String> {
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let mut found = BTreeSet::new();
    for (at, marker) in text.match_indices("crate::") {
        let rest = &text[at + marker.len()..];
        let names: Vec<&str> = match rest.strip_prefix('{') {
            Some(list) => list
                .split('}')
                .next()
                .unwrap_or_default()
                .split(',')
                .collect(),
            None => vec![rest],
        };
        for name in names {
            let name = name.trim();
            let end = name.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            found.insert(name[..end.unwrap_or(name.len())].to_owned());
        }
    }
    found
}

#[test]
fn modules_of_a_crate_import_downwards() {
    let sources = sources();
    let mut wrong = Vec::new();
    for (name, order) in MODULE_ORDER {
        let mut rank = BTreeMap::new();
        for (index, group) in order.iter().enumerate() {
            rank.extend(group.split(' ').map(|module| (module, index)));
        }
        for source in sources
            .iter()
            .filter(|source| source.is_rust() && !source.is_test())
        {
            let Some(module) = module_of(source, &format!("{name}/")) else {
                continue;
            };
            let Some(place) = rank.get(module) else {
                wrong.push(format!("{name}::{module} has no place in the order"));
                continue;
            };
            for import in imports(&source.text) {
                let below = rank.get(&*import).is_none_or(|other| other <= place);
                if !below {
                    wrong.push(format!("{} imports {name}::{import}", source.name));
                }
            }
        }
    }
    assert_none("imports upwards", &wrong);
}

/// The floor of each module of the engine, as `src/lib.rs` writes it down.
fn floors() -> BTreeMap<String, usize> {
    let mut floor = 0;
    let mut floors = BTreeMap::new();
    for line in read("src/lib.rs").lines() {
        if let Some(rest) = line.strip_prefix("// Floor ") {
            floor = rest
                .split(':')
                .next()
                .and_then(|n| n.parse().ok())
                .expect("a number");
        }
        if let Some(module) = line
            .strip_prefix("mod ")
            .and_then(|rest| rest.strip_suffix(';'))
        {
            assert!(floor > 0, "{module} stands on no floor");
            floors.insert(module.to_owned(), floor);
        }
    }
    assert!(floors.len() > 15, "the floors were not found");
    floors
}

#[test]
fn floors_of_the_engine_import_downwards() {
    let floors = floors();
    let mut wrong = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| source.name.starts_with("src/"))
    {
        let Some(module) = module_of(source, "") else {
            continue;
        };
        if !source.is_rust() || source.is_test() {
            continue;
        }
        let Some(floor) = floors.get(module) else {
            wrong.push(format!("{} stands on no floor", source.name));
            continue;
        };
        for import in imports(&source.text) {
            if floors.get(&import).is_some_and(|other| other > floor) {
                wrong.push(format!("{} on floor {floor} imports {import}", source.name));
            }
        }
    }
    assert_none("imports of a higher floor", &wrong);
}

#[test]
fn crates_import_downwards() {
    let ours: Vec<&str> = CRATE_ORDER.iter().map(|(name, _)| *name).collect();
    for (name, allowed) in CRATE_ORDER {
        let dependencies = dependencies(&read(&format!("{name}/Cargo.toml")));
        for dependency in dependencies
            .iter()
            .filter(|found| ours.contains(&found.as_str()))
        {
            assert!(
                allowed.contains(&dependency.as_str()),
                "{name} imports {dependency}"
            );
        }
        assert!(
            !dependencies.contains("siltstone"),
            "{name} imports the engine"
        );
    }
}

/// The names under `[dependencies]` of a manifest.
fn dependencies(manifest: &str) -> BTreeSet<String> {
    let mut in_section = false;
    let mut found = BTreeSet::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            in_section = line.starts_with("[dependencies]")
                || line.starts_with("[target.") && line.ends_with(".dependencies]");
        } else if in_section && let Some((name, _)) = line.split_once(['=', '.']) {
            found.insert(name.trim().to_owned());
        }
    }
    found
}

#[test]
fn a_user_builds_few_crates_of_others() {
    let ours: BTreeSet<&str> = CRATE_ORDER.iter().map(|(name, _)| *name).collect();
    let mut others = dependencies(&read("Cargo.toml"));
    for (name, _) in CRATE_ORDER {
        others.extend(dependencies(&read(&format!("{name}/Cargo.toml"))));
    }
    others.retain(|name| !ours.contains(name.as_str()) && !name.starts_with('#'));
    assert!(
        others.len() <= 15,
        "{} direct dependencies: {others:?}",
        others.len()
    );
}

/// The fields of one struct of settings.
fn settings(tuning: &str, name: &str) -> Vec<String> {
    let body = tuning
        .split(&format!("struct {name} {{"))
        .nth(1)
        .expect("the struct is there");
    let body = body.split("\n}").next().expect("it ends");
    let fields = body
        .lines()
        .filter_map(|line| line.trim().strip_prefix("pub(crate) "));
    fields
        .filter_map(|field| field.split(':').next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_option_does_something() {
    let homes = [
        ("src/tuning.rs", "Settings"),
        ("src/tuning/keyspace.rs", "KeyspaceSettings"),
    ];
    let mut fields = Vec::new();
    let mut texts = Vec::new();
    for (home, name) in homes {
        let tuning = read(home);
        let found = settings(&tuning, name);
        assert!(found.len() > 10, "the settings were not found in {home}");
        fields.extend(found);
        let (before, rest) = tuning.split_once("fn validate").expect("it is there");
        // What derives numbers from settings comes after `validate`, tests last.
        let derived = rest
            .split_once("\n    }\n")
            .map_or(before, |(_, after)| after);
        let derived = derived.split("#[cfg(test)]").next().unwrap_or_default();
        texts.push(derived.to_owned());
    }
    // Not an option itself but all of those of the default keyspace.
    fields.retain(|field| field != "keyspace");
    for source in sources() {
        let is_engine = source.name.starts_with("src/") && source.is_rust() && !source.is_test();
        if !is_engine || homes.iter().any(|(home, _)| source.name == *home) {
            continue;
        }
        let text = match source.name.as_str() {
            // The setters write; `open` reads.
            "src/options.rs" => source.text.split("pub fn open(").nth(1).unwrap_or_default(),
            _ => &source.text,
        };
        texts.push(text.to_owned());
    }
    let reads = |field: &String| {
        let read = format!(".{field}");
        texts.iter().flat_map(|text| text.lines()).any(|line| {
            line.match_indices(&read)
                .any(|(at, _)| has_word(&line[at + 1..], field))
        })
    };
    let idle: Vec<_> = fields.iter().filter(|f| !reads(f)).cloned().collect();
    assert_none("options that nothing reads", &idle);
    let options = read("src/options.rs") + &read("src/options/keyspace.rs");
    let setters: Vec<_> = fields
        .iter()
        .filter(|field| !options.contains(&format!("    {field}: ")))
        .cloned()
        .collect();
    assert_none("settings without an option", &setters);
}

/// The names of the targets of one kind in a manifest.
fn targets(manifest: &str, kind: &str) -> BTreeSet<String> {
    let header = format!("[[{kind}]]");
    let sections = manifest.split("\n[").map(|section| format!("[{section}"));
    let names = sections
        .filter(|section| section.starts_with(&header))
        .filter_map(|section| {
            let line = section
                .lines()
                .find_map(|line| line.strip_prefix("name = "))?
                .to_owned();
            Some(line.trim_matches('"').to_owned())
        });
    names.collect()
}

#[test]
fn every_bench_is_declared_and_there() {
    let declared = targets(&read("Cargo.toml"), "bench");
    let there: BTreeSet<String> = sources()
        .iter()
        .filter_map(|source| source.name.strip_prefix("benches/")?.strip_suffix(".rs"))
        .filter(|name| !name.contains('/'))
        .map(str::to_owned)
        .collect();
    assert_eq!(declared, there, "benches declared and benches there");
}

#[test]
fn every_binary_is_in_the_readme() {
    let readme = read("README.md");
    let mut names = targets(&read("tools/Cargo.toml"), "bin");
    for source in sources() {
        if let Some(name) = source.name.strip_prefix("tools/src/bin/")
            && let Some(name) = name.split('/').next()
        {
            names.insert(name.trim_end_matches(".rs").to_owned());
        }
    }
    let missing: Vec<_> = names
        .into_iter()
        .filter(|name| !readme.contains(name))
        .collect();
    assert_none("binaries that README does not name", &missing);
}
