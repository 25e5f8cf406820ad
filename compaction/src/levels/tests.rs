use base::{KeyspaceId, Level};

use super::*;
use crate::edit::KeyspaceEdit;
use crate::testing::{Paper, Random, level, meta, seq};

fn edit(added: Vec<(u8, TableMeta)>, removed: &[(u8, u64)]) -> KeyspaceEdit {
    let mut edit = KeyspaceEdit::new(KeyspaceId::DEFAULT);
    edit.added = added
        .into_iter()
        .map(|(at, meta)| (level(at), meta))
        .collect();
    edit.removed = removed
        .iter()
        .map(|(at, number)| (level(*at), FileNumber(*number)))
        .collect();
    edit
}

fn small_tree(paper: &Paper) -> Version {
    let tables = vec![
        (0, meta(9, "c", "x", (40, 49))),
        (0, meta(8, "a", "m", (30, 39))),
        (1, meta(5, "a", "c", (1, 25))),
        (1, meta(6, "e", "k", (2, 29))),
        (2, meta(4, "b", "z", (1, 9))),
    ];
    paper
        .apply(&Version::empty(), &edit(tables, &[]))
        .expect("a sound tree")
}

const SMALL_TREE: &str = "\
L0: 000009 [c#49,PUT .. x#40,PUT]
L0: 000008 [a#39,PUT .. m#30,PUT]
L1: 000005 [a#25,PUT .. c#1,PUT]
L1: 000006 [e#29,PUT .. k#2,PUT]
L2: 000004 [b#9,PUT .. z#1,PUT]
";

#[test]
fn a_tree_prints_itself() {
    let tree = small_tree(&Paper::new());
    assert_eq!(tree.to_text(), SMALL_TREE);
    assert_eq!(
        (tree.table_count(), tree.deepest_used()),
        (5, Some(level(2)))
    );
    assert_eq!(
        (tree.level_bytes(level(1)), tree.level_bytes(level(3))),
        (200, 0)
    );
    tree.check().expect("sound");
}

#[test]
fn a_key_is_found_in_at_most_one_table_of_a_level() {
    let tree = small_tree(&Paper::new());
    let found = |key: &str| {
        tree.find(level(1), key.as_bytes())
            .map(|table| table.meta.number.0)
    };
    assert_eq!(
        ["", "a", "b", "c", "c0", "d", "e", "k", "k0", "zz"].map(found),
        [
            None,
            Some(5),
            Some(5),
            Some(5),
            None,
            None,
            Some(6),
            Some(6),
            None,
            None
        ]
    );
    let over = |from, to| {
        let tables = tree.overlapping(level(1), from, to);
        tables
            .iter()
            .map(|table| table.meta.number.0)
            .collect::<Vec<_>>()
    };
    assert_eq!(over(Bound::Unbounded, Bound::Unbounded), [5, 6]);
    assert_eq!(over(Bound::Included(b"c"), Bound::Included(b"d")), [5]);
    assert_eq!(over(Bound::Excluded(b"c"), Bound::Excluded(b"e")), []);
    assert_eq!(over(Bound::Included(b"z"), Bound::Included(b"a")), []);
}

#[test]
fn edits_that_do_not_fit_are_refused() {
    let paper = Paper::new();
    let tree = small_tree(&paper);
    let mut exclusive = meta(7, "c0", "e", (1, 1));
    exclusive.largest_exclusive = true;
    paper
        .apply(&tree, &edit(vec![(1, exclusive)], &[]))
        .expect("it ends before the next begins");
    let mut reserved = meta(7, "x", "y", (50, 51));
    reserved.location = 1;
    let mut backwards = meta(7, "x", "y", (50, 51));
    backwards.seq_largest = seq(49);
    let mut void = meta(7, "x", "x", (50, 50));
    void.largest_exclusive = true;
    let mut moved = meta(8, "a", "m", (30, 39));
    moved.file_bytes += 1;
    let cases = [
        (vec![], vec![(1, 8)], "removed table is not there"),
        (vec![], vec![(0, 8), (0, 8)], "table removed twice"),
        (
            vec![(1, meta(7, "c", "d", (1, 1)))],
            vec![],
            "tables of one level overlap",
        ),
        (
            vec![(1, meta(7, "d", "e", (1, 1)))],
            vec![],
            "tables of one level overlap",
        ),
        (
            vec![(1, meta(7, "f", "g", (1, 1)))],
            vec![],
            "tables of one level overlap",
        ),
        (
            vec![(0, meta(7, "a", "b", (39, 60)))],
            vec![],
            "level 0 tables are not in order",
        ),
        (
            vec![(3, meta(9, "a", "b", (1, 1)))],
            vec![],
            "number is taken",
        ),
        (
            vec![
                (3, meta(7, "a", "b", (1, 1))),
                (4, meta(7, "a", "b", (1, 1))),
            ],
            vec![],
            "twice",
        ),
        (vec![(1, moved)], vec![(0, 8)], "number used again"),
        (
            vec![(1, meta(7, "y", "x", (1, 1)))],
            vec![],
            "table contradicts itself",
        ),
        (vec![(1, backwards)], vec![], "table contradicts itself"),
        (vec![(1, void)], vec![], "table contradicts itself"),
        (vec![(1, reserved)], vec![], "table of a later version"),
    ];
    for (added, removed, message) in cases {
        let error = paper
            .apply(&tree, &edit(added, &removed))
            .expect_err(message);
        assert!(error.to_string().contains(message), "{error}");
    }
    assert_eq!(tree.to_text(), SMALL_TREE);
}

#[test]
fn a_table_that_moves_stays_the_same_and_its_file_stays() {
    let paper = Paper::new();
    let tree = small_tree(&paper);
    let change = edit(vec![(3, meta(4, "b", "z", (1, 9)))], &[(2, 4), (1, 6)]);
    let after = paper.apply(&tree, &change).expect("sound");
    assert!(Arc::ptr_eq(
        &tree.level(level(2))[0],
        &after.level(level(3))[0]
    ));
    let gone = tree.obsoleted_by(&change);
    assert_eq!(
        gone.iter()
            .map(|table| table.meta.number.0)
            .collect::<Vec<_>>(),
        [6]
    );
    for table in gone {
        table.mark_obsolete();
    }
    assert!(
        paper.reaped.0.lock().is_empty(),
        "the old version still reads it"
    );
    drop(tree);
    assert_eq!(*paper.reaped.0.lock(), [FileNumber(6)]);
    drop(after);
    assert_eq!(paper.reaped.0.lock().len(), 1, "a close removes nothing");
}

/// Searches by heads agree with looking at every table, also for keys that share a long beginning,
/// keys shorter than it, and bounds that are left out.
#[test]
fn searches_agree_with_a_walk() {
    let mut random = Random::printed("find", 4);
    let paper = Paper::new();
    for round in 0..300 {
        let prefix = ["", "user", "a long shared beginning/"][round % 3];
        let digits = [1, 9][random.index(2)];
        let mut keys: Vec<String> = (0..random.below(60))
            .map(|_| format!("{prefix}{:0digits$}", random.below(500)))
            .collect();
        keys.sort();
        keys.dedup();
        let mut tables = Vec::new();
        for pair in keys.chunks_exact(2) {
            let mut table = meta(tables.len() as u64 + 1, &pair[0], &pair[1], (1, 1));
            table.largest_exclusive = random.one_in(2);
            tables.push((2, table));
        }
        let tree = paper
            .apply(&Version::empty(), &edit(tables, &[]))
            .expect("sound");
        tree.check().expect("sound");
        for _ in 0..50 {
            let mut key = format!("{prefix}{:0digits$}", random.below(500));
            match random.below(4) {
                0 => key.truncate(random.index(key.len() + 1)),
                1 => key.push('\0'),
                2 => key.insert(0, if random.one_in(2) { '!' } else { '~' }),
                _ => {}
            }
            let walked = tree
                .level(level(2))
                .iter()
                .find(|t| t.meta.contains(key.as_bytes()));
            let found = tree.find(level(2), key.as_bytes());
            assert_eq!(
                found.map(|t| t.meta.number),
                walked.map(|t| t.meta.number),
                "{key}"
            );
            let to = format!("{prefix}{:0digits$}", random.below(500));
            let bounds = (
                Bound::Included(key.as_bytes()),
                Bound::Excluded(to.as_bytes()),
            );
            let walked = tree
                .level(level(2))
                .iter()
                .filter(|t| key < to && t.meta.meets(bounds.0, bounds.1));
            let walked: Vec<_> = walked.map(|t| t.meta.number).collect();
            let over = tree.overlapping(level(2), bounds.0, bounds.1);
            assert_eq!(
                over.iter().map(|t| t.meta.number).collect::<Vec<_>>(),
                walked
            );
        }
    }
}

/// A random level 0: each table is newer than the one before.
fn random_level0(random: &mut Random, paper: &Paper, count: u64) -> Version {
    let mut tables = Vec::new();
    for number in 1..=count {
        let from = random.below(90);
        let length = 1 + random.below(60);
        let to = (from + random.below(length)).min(99);
        let mut table = meta(
            number,
            &format!("{from:02}"),
            &format!("{to:02}"),
            (number, number),
        );
        table.largest_exclusive = to > from && random.one_in(3);
        tables.push((0, table));
    }
    paper
        .apply(&Version::empty(), &edit(tables, &[]))
        .expect("sound")
}

/// Walking the sub-levels meets the tables that can hold a key in the order of their age, and there
/// are no more sub-levels than the longest chain of overlaps asks for.
#[test]
fn sublevels_are_level0_as_few_sorted_runs() {
    let mut random = Random::printed("sublevels", 21);
    let paper = Paper::new();
    for _ in 0..200 {
        let count = random.below(30);
        let tree = random_level0(&mut random, &paper, count);
        let level0 = tree.level(Level::ZERO);
        let in_runs: usize = tree.sublevels().iter().map(|run| run.len()).sum();
        assert_eq!(in_runs, level0.len());
        let mut chains: Vec<usize> = Vec::new();
        let oldest_first: Vec<_> = level0.iter().rev().collect();
        for (at, table) in oldest_first.iter().enumerate() {
            let under = (0..at).filter(|older| oldest_first[*older].meta.overlaps(&table.meta));
            let longest = under.map(|older| chains[older]).max().unwrap_or(0);
            chains.push(longest + 1);
        }
        let longest = chains.into_iter().max().unwrap_or(0);
        assert_eq!(tree.level0_depth(), longest);
        for key in 0..100 {
            let key = format!("{key:02}").into_bytes();
            let walked = level0.iter().filter(|table| table.meta.contains(&key));
            let found = tree.sublevels().iter().filter_map(|run| run.find(&key));
            let numbers = |table: &Arc<Table>| table.meta.number;
            assert!(walked.map(numbers).eq(found.map(numbers)));
        }
    }
}

/// Whoever walks the runs meets the tables of all levels that can hold a key, and no empty level.
#[test]
fn runs_are_all_that_a_read_looks_at() {
    let paper = Paper::new();
    assert!(Version::empty().runs().is_empty());
    let tree = small_tree(&paper);
    let levels = |tree: &Version| -> Vec<usize> {
        let runs = tree.runs().iter();
        runs.map(|(level, _)| level.index()).collect()
    };
    assert_eq!(levels(&tree), [0, 0, 1, 2]);
    for key in b'a'..=b'{' {
        let found = |(level, run): &(Level, Run)| Some((*level, run.find(&[key])?.meta.number));
        let can_hold = |(_, table): &(Level, &Arc<Table>)| table.meta.contains(&[key]);
        let walked = tree.tables().filter(can_hold);
        let walked = walked.map(|(level, table)| (level, table.meta.number));
        assert!(walked.eq(tree.runs().iter().filter_map(found)), "{key}");
    }
    // They follow every edit.
    let removed = edit(vec![(3, meta(4, "b", "z", (1, 9)))], &[(2, 4), (0, 9)]);
    let tree = paper.apply(&tree, &removed).expect("it fits");
    assert_eq!(levels(&tree), [0, 1, 3]);
}

#[test]
#[should_panic(expected = "level 0 is not one sorted run")]
fn level0_is_no_run() {
    let tree = small_tree(&Paper::new());
    let level0 = Arc::clone(tree.level_tables(Level::ZERO));
    let _ = crate::LevelCursor::of_run(level0, sstable::ScanMode::Ordinary);
}
