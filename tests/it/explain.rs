//! `explain_get` says what `get` does.

use siltstone::{GetOutcome, GetPlace, Level};

use crate::support::{Rng, World, for_each_seed, key_pool, value};

#[test]
fn the_entry_that_decides_is_the_one_that_a_get_returns() {
    for_each_seed(
        "the_entry_that_decides_is_the_one_that_a_get_returns",
        8,
        |seed| {
            let world = World::new(seed);
            let db = world.open().expect("a new database");
            let mut rng = Rng::new(seed);
            let keys = key_pool(&mut rng, 60);
            let mut snapshot = None;
            let mut outcomes = [0; 4];
            for n in 0..500 {
                let key = rng.pick(&keys[..40]).clone();
                if rng.chance(20) {
                    db.delete(&key).expect("deleted");
                } else {
                    db.put(&key, value(&mut rng, n)).expect("put");
                }
                world.executor.step();
                if n == 250 {
                    snapshot = Some(db.snapshot().expect("open"));
                }
                if n % 50 != 49 {
                    continue;
                }
                for key in &keys {
                    let explained = db.explain_get(key).expect("no fault is planned");
                    let found = db.get(key).expect("no fault is planned");
                    let winner = explained.winner();
                    match (winner.map(|step| step.outcome), &found) {
                        (Some(GetOutcome::Value { value_bytes, .. }), Some(value)) => {
                            assert_eq!(value_bytes, value.len());
                            outcomes[0] += 1;
                        }
                        (Some(GetOutcome::Tombstone { .. }), None) => outcomes[1] += 1,
                        (None, None) => outcomes[2] += 1,
                        (outcome, found) => panic!("{outcome:?} but {found:?}: {explained}"),
                    }
                    let denied = |step: &&siltstone::GetStep| {
                        step.outcome == GetOutcome::FilterDenies
                            || step.outcome == GetOutcome::OutOfBounds
                    };
                    outcomes[3] += explained.steps.iter().filter(denied).count();
                    let Some(snapshot) = &snapshot else { continue };
                    let then = snapshot.explain_get(key).expect("no fault is planned");
                    assert!(then.seq <= explained.seq);
                    let is_there = snapshot.contains_key(key).expect("no fault is planned");
                    let has_won = then.winner().map(|step| step.outcome);
                    let has_value = matches!(has_won, Some(GetOutcome::Value { .. }));
                    assert_eq!(is_there, has_value, "{then}");
                }
            }
            assert!(outcomes.iter().all(|count| *count > 0), "{outcomes:?}");
        },
    );
}

#[test]
fn every_place_is_named_and_older_entries_are_shown_as_hidden() {
    let world = World::new(2);
    let db = world.open().expect("a new database");
    for round in 0..3 {
        for n in 0..50 {
            db.put(format!("key{n:02}"), vec![round; 100]).expect("put");
        }
        db.flush().expect("flushed");
        if round == 0 {
            db.compact_range(..).expect("compacted");
        }
    }
    db.put("key07", "new").expect("put");
    let explained = db.explain_get("key07").expect("open");
    assert_eq!(explained.steps[0].place, GetPlace::ActiveMemtable);
    let levels: Vec<Level> = explained
        .steps
        .iter()
        .filter_map(|step| match step.place {
            GetPlace::Table { level, .. } | GetPlace::Run { level, .. } => Some(level),
            _ => None,
        })
        .collect();
    assert!(levels.is_sorted() && levels.len() >= 2, "{explained}");
    let text = explained.to_string();
    assert_eq!(text.matches("<- decides").count(), 1, "{text}");
    assert!(text.contains("(hidden by a newer one)"), "{text}");
    let absent = db.explain_get("zzz").expect("open").to_string();
    assert!(absent.contains("out of the bounds of all"), "{absent}");
    assert!(absent.ends_with("there is no such key\n"), "{absent}");
}
