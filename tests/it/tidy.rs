//! The rules of the house that a compiler does not know: widths, sizes, words, unsafe code.

use std::path::{Path, PathBuf};

use base::fs::{FileSystem, OsFs, read_small_file};

/// Where the repository is.
pub(crate) fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository.
pub(crate) struct Source {
    /// Relative to the root.
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        Path::new(&self.name)
            .extension()
            .is_some_and(|extension| extension == "rs")
    }

    /// Whether it holds tests only.
    pub(crate) fn is_test(&self) -> bool {
        let in_folder = |part: &str| self.name.split('/').any(|folder| folder == part);
        self.name.ends_with("tests.rs")
            || in_folder("tests")
            || self.name.ends_with("testing.rs")
            || in_folder("testing")
    }
}

/// The text of one file.
pub(crate) fn read(name: &str) -> String {
    let bytes = read_small_file(&OsFs, &root().join(name), 16 << 20);
    let bytes = bytes.unwrap_or_else(|error| panic!("{name}: {error}"));
    String::from_utf8(bytes).unwrap_or_else(|_| panic!("{name} is not UTF-8"))
}

/// Every text file of ours.
pub(crate) fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    collect(Path::new(""), &mut found);
    assert!(found.len() > 50, "the repository was not found");
    found.sort();
    found
        .into_iter()
        .map(|name| Source {
            text: read(&name),
            name,
        })
        .collect()
}

fn collect(dir: &Path, found: &mut Vec<String>) {
    for entry in OsFs
        .list(&root().join(dir))
        .expect("a directory of the repository")
    {
        let path = dir.join(&entry.name);
        if entry.is_dir {
            let skipped = ["target", "data", "golden", "corpus"];
            if !entry.name.starts_with('.') && !skipped.contains(&&*entry.name) {
                collect(&path, found);
            }
        } else if [".rs", ".md", ".toml"]
            .iter()
            .any(|end| entry.name.ends_with(end))
        {
            found.push(path.to_str().expect("our names are ASCII").to_owned());
        }
    }
}

/// Fails with everything that was found, not only the first.
pub(crate) fn assert_none(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Whether `word` stands in `line` by itself, `_` counting as a letter.
pub(crate) fn has_word(line: &str, word: &str) -> bool {
    let is_letter = |c: char| c.is_ascii_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_letter) && !after.is_some_and(is_letter)
    })
}

/// A line without its comment; what stands in a string is left as it is.
fn code_of(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

#[test]
fn lines_are_short_and_ascii() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (index, line) in source.text.lines().enumerate() {
            let place = format!("{}:{}", source.name, index + 1);
            if line.chars().count() > 100 && source.is_rust() {
                wrong.push(format!("{place} is longer than 100 columns"));
            }
            if !line.is_ascii() {
                wrong.push(format!("{place} is not ASCII"));
            }
            if line.ends_with([' ', '\t', '\r']) || line.contains('\t') {
                wrong.push(format!("{place} has a tab or ends in a space"));
            }
        }
        if !source.text.ends_with('\n') || source.text.ends_with("\n\n") {
            wrong.push(format!("{} does not end in one line feed", source.name));
        }
    }
    assert_none("lines", &wrong);
}

#[test]
fn files_and_functions_are_short() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(Source::is_rust) {
        let count = source.text.lines().count();
        if count > 600 && !source.is_test() {
            wrong.push(format!("{} has {count} lines", source.name));
        }
        for (name, line, count) in functions(&source.text) {
            if count > 70 {
                wrong.push(format!("{}:{line} {name} has {count} lines", source.name));
            }
        }
    }
    assert_none("longer than 600 lines a file or 70 a function", &wrong);
}

/// Name, first line and length of every function that is laid out as rustfmt does.
fn functions(text: &str) -> Vec<(String, usize, usize)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some((before, after)) = code.split_once("fn ") else {
            continue;
        };
        let words = [
            "pub",
            "pub(crate)",
            "pub(super)",
            "const",
            "async",
            "unsafe",
            "extern",
        ];
        if !before.split_whitespace().all(|word| words.contains(&word)) {
            continue;
        }
        let end = format!("{}}}", &line[..line.len() - code.len()]);
        // A declaration in a trait has no body.
        let header = lines[index..]
            .iter()
            .find(|line| line.ends_with(['{', ';']));
        if header.is_none_or(|line| line.ends_with(';')) {
            continue;
        }
        let Some(last) = lines[index..].iter().position(|line| *line == end) else {
            continue;
        };
        let name = after.split(['(', '<']).next().unwrap_or_default();
        found.push((name.to_owned(), index + 1, last + 1));
    }
    found
}

#[test]
fn files_say_what_they_are() {
    let says = |source: &Source| source.text.starts_with("//!");
    let silent = |source: Source| (!says(&source)).then_some(source.name);
    let sources = sources()
        .into_iter()
        .filter(|source| source.is_rust() && !source.is_test());
    assert_none(
        "files that do not open with `//!`",
        &sources.filter_map(silent).collect::<Vec<_>>(),
    );
}

/// Words that the style guide bans, put together here so that this file does not hold them.
fn banned_words() -> Vec<String> {
    let halves = [
        ("jour", "nal"),
        ("ls", "n"),
        ("vl", "og"),
        ("immutable mem", "table"),
        ("FIX", "ME"),
        ("XX", "X"),
        ("HA", "CK"),
        ("TO", "DO"),
        ("db", "g!"),
        ("to", "do!"),
        ("unimple", "mented!"),
    ];
    halves
        .iter()
        .map(|(head, tail)| format!("{head}{tail}"))
        .collect()
}

#[test]
fn banned_words_are_not_used() {
    let banned = banned_words();
    let mut wrong = Vec::new();
    for source in sources() {
        // Drivers of other engines speak of those in their own words.
        if source.name.contains("peers") {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            for word in banned
                .iter()
                .filter(|word| has_word(line, word.trim_end_matches('!')))
            {
                if word.ends_with('!') && !line.contains(word.as_str()) {
                    continue;
                }
                wrong.push(format!("{}:{} says {word}", source.name, index + 1));
            }
        }
    }
    assert_none("banned words", &wrong);
}

/// Where unsafe code may stand.
const UNSAFE_FILES: &[&str] = &[
    // Telling the scheduler of the system is offered by no safe crate, either.
    "base/src/executor/class.rs",
    // Registering a handler for forks is offered by no safe crate.
    "base/src/fork.rs",
    // Stores into the mapping of the live segment.
    "base/src/fs/live.rs",
    "base/src/fs/os.rs",
    "base/src/hint.rs",
    "base/src/slice.rs",
    "memtable/src/arena.rs",
    "memtable/src/ordered.rs",
    // Parts of `ordered`: what a record is in memory, and the two structures over records.
    "memtable/src/ordered/list.rs",
    "memtable/src/ordered/record.rs",
    "memtable/src/ordered/tree.rs",
    // Tests of the tree.
    "memtable/src/ordered/tree/interleaving.rs",
    "memtable/src/ordered/tree/node.rs",
    // An allocator that counts.
    "tests/allocations.rs",
    // Another one.
    "tests/memory.rs",
];

#[test]
fn unsafe_code_is_where_it_may_be_and_says_why() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(Source::is_rust) {
        if source.name.starts_with("tools/peers/") || source.name == "tests/it/tidy.rs" {
            continue;
        }
        let uses = source
            .text
            .lines()
            .filter(|line| has_word(code_of(line), "unsafe"))
            .count();
        let declared = source.text.lines().filter(|line| {
            let code = code_of(line);
            code.contains(&["unsafe", " fn "].concat())
        });
        let reasons = source.text.matches("SAFETY:").count();
        // The tests of a module are part of it.
        let module = source.name.replace("/tests.rs", ".rs");
        let allowed = UNSAFE_FILES.contains(&&*module);
        if uses > 0 && !allowed {
            wrong.push(format!("{} holds unsafe code", source.name));
        }
        if uses > reasons + declared.count() {
            wrong.push(format!(
                "{}: {uses} times unsafe, {reasons} reasons",
                source.name
            ));
        }
    }
    assert_none("unsafe code", &wrong);
}

#[test]
fn crates_forbid_unsafe_code() {
    let roots = sources().into_iter().filter(|source| {
        let name = &source.name;
        let is_root = name.ends_with("src/lib.rs")
            || name.contains("/src/bin/")
            || name.starts_with("examples/")
            || name.ends_with("src/main.rs");
        is_root && !name.starts_with("tools/peers/") && name.matches("/bin/").count() < 2
    });
    let excepted = ["base/src/lib.rs", "memtable/src/lib.rs"];
    let mut wrong = Vec::new();
    let mut count = 0;
    for source in roots {
        // Modules of a binary stand in a folder of its name.
        let is_module = source
            .name
            .split("/bin/")
            .nth(1)
            .is_some_and(|rest| rest.contains('/'));
        if excepted.contains(&&*source.name) || is_module {
            continue;
        }
        count += 1;
        if !source.text.contains("#![forbid(unsafe_code)]") {
            wrong.push(source.name);
        }
    }
    assert!(count >= 4, "only {count} crates were found");
    assert_none("crates that do not forbid unsafe code", &wrong);
}

#[test]
fn tests_do_not_sleep_and_are_not_ignored() {
    let (sleep, ignore) = (["thread::", "sleep"].concat(), ["#[", "ignore"].concat());
    let mut wrong = Vec::new();
    for source in sources().into_iter().filter(Source::is_rust) {
        for (index, line) in source.text.lines().enumerate() {
            let code = code_of(line);
            if code.contains(&sleep) || code.contains(&ignore) {
                wrong.push(format!("{}:{} {}", source.name, index + 1, line.trim()));
            }
        }
    }
    assert_none("sleeps and ignored tests", &wrong);
}
