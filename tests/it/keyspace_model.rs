//! Random operations over keyspaces that come and go, against maps, on a disk whose power is cut:
//! what is recovered is one of the states there were, in every keyspace the same one, and not older
//! than what was promised.

use std::collections::BTreeMap;
use std::sync::Arc;

use base::fs::sim::{CrashModel, SimFs};
use siltstone::{
    Db, Durability, ErrorKind, Keyspace, KeyspaceOptions, Result, Snapshot, WriteBatch,
    WriteOptions,
};

use crate::images::check_no_leak;
use crate::support::{
    DIR, Model, PrintOnPanic, Rng, World, assert_models_equal, contents, for_each_seed, key_pool,
    rounds, value,
};

/// What every keyspace holds. Maps are shared between states that have them in common.
type State = BTreeMap<String, Arc<Model>>;

/// Keyspace, key, and value unless it was a delete.
type Written = (String, Vec<u8>, Option<Vec<u8>>);

const NAMES: [&str; 5] = ["a", "b", "c", "\u{fc}/..", "a longer name"];

/// Every state that the database was in, one after the other.
#[derive(Clone)]
struct Course {
    states: Vec<State>,
    /// A power cut leaves the database in this state or a later one.
    durable: usize,
}

impl Course {
    fn new() -> Self {
        let default = ("default".to_owned(), Arc::new(Model::new()));
        Self {
            states: vec![State::from([default])],
            durable: 0,
        }
    }

    fn now(&self) -> &State {
        self.states.last().expect("there is one at least")
    }

    fn promise(&mut self) {
        self.durable = self.states.len() - 1;
    }

    /// Which state this is, the newest of those that look the same.
    fn locate(&self, found: &State) -> usize {
        let at = self.states.iter().rposition(|state| state == found);
        let Some(at) = at else {
            panic!("no state there ever was: {}", self.nearest(found));
        };
        assert!(
            at >= self.durable,
            "state {at} is back, and {} was promised",
            self.durable
        );
        at
    }

    /// How `found` differs from the last state.
    fn nearest(&self, found: &State) -> String {
        let now = self.now();
        let names = |state: &State| state.keys().cloned().collect::<Vec<_>>();
        if names(found) != names(now) {
            return format!("{:?} rather than {:?}", names(found), names(now));
        }
        let differ = |name: &&String| found[*name] != now[*name];
        let differing: Vec<_> = now.keys().filter(differ).collect();
        let count = self.states.len();
        format!("unlike the last of {count}, it differs in {differing:?}")
    }

    /// The database is in this state for good.
    fn settle(&mut self, at: usize) {
        self.states.truncate(at + 1);
        self.promise();
    }
}

/// Everything in every keyspace.
fn read_all(db: &Db) -> Result<State> {
    let names = db.keyspaces()?;
    let read = |name: String| {
        let keyspace = db.keyspace(&name)?;
        Ok((name, Arc::new(contents(&keyspace)?)))
    };
    names.into_iter().map(read).collect()
}

/// A snapshot and what it must show of each keyspace there was.
struct Shot {
    snapshot: Snapshot,
    spaces: Vec<(Keyspace, Arc<Model>)>,
}

/// A read-only handle and what it showed at first.
struct Beside {
    db: Db,
    state: State,
}

struct Player {
    rng: Rng,
    world: World,
    /// Always there, except while the power is off.
    open: Option<Db>,
    hands: BTreeMap<String, Keyspace>,
    course: Course,
    keys: Vec<Vec<u8>>,
    tag: u64,
    shots: Vec<Shot>,
    ghosts: Vec<Keyspace>,
    beside: Vec<Beside>,
}

impl Player {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x4e1);
        let world = World::new(seed);
        let count = 20 + rng.below(20);
        let keys = key_pool(&mut rng, count);
        Self {
            rng,
            world,
            open: None,
            hands: BTreeMap::new(),
            course: Course::new(),
            keys,
            tag: 0,
            shots: Vec::new(),
            ghosts: Vec::new(),
            beside: Vec::new(),
        }
    }

    fn db(&self) -> Db {
        self.open.clone().expect("it is open")
    }

    /// Opens the database and finds it in one of the states it may be in.
    fn open(&mut self) -> Result<()> {
        let db = self.world.open()?;
        let at = self.course.locate(&read_all(&db)?);
        self.course.settle(at);
        for name in self.course.now().keys() {
            let keyspace = db.keyspace(name).expect("it was listed");
            self.hands.insert(name.clone(), keyspace);
        }
        self.open = Some(db);
        Ok(())
    }

    /// Lets go of every handle.
    fn let_go(&mut self) {
        self.hands.clear();
        self.shots.clear();
        self.ghosts.clear();
        self.beside.clear();
        self.open = None;
    }

    /// One operation. An error leaves the last state as one that may be there or not.
    fn anything(&mut self) -> Result<()> {
        match self.rng.below(100) {
            0..30 => self.write_one(),
            30..52 => self.write_across(),
            52..58 => self.create(),
            58..62 => self.drop_one(),
            62..80 => {
                self.background();
                Ok(())
            }
            80..86 => self.flush_or_compact(),
            86..88 => {
                self.db().sync()?;
                self.course.promise();
                Ok(())
            }
            88..92 => self.take_shot(),
            92..96 => self.look(),
            96 => self.look_beside(),
            97 => {
                self.ask_ghosts();
                Ok(())
            }
            98 => self.reopen(),
            _ => {
                assert_eq!(read_all(&self.db())?, *self.course.now());
                self.world.check_order();
                Ok(())
            }
        }
    }

    fn name(&mut self) -> String {
        let at = self.rng.below(self.hands.len());
        let name = self.hands.keys().nth(at);
        name.expect("the index is below the count").clone()
    }

    fn options(&mut self) -> (WriteOptions, Durability) {
        let durability = if self.rng.chance(12) {
            Durability::Disk
        } else {
            Durability::Os
        };
        (WriteOptions::new().durability(durability), durability)
    }

    fn write_one(&mut self) -> Result<()> {
        let (name, key) = (self.name(), self.rng.pick(&self.keys).clone());
        let (options, durability) = self.options();
        let keyspace = self.hands[&name].clone();
        if self.rng.chance(70) {
            self.tag += 1;
            let value = value(&mut self.rng, self.tag);
            self.become_after(&[(name, key.clone(), Some(value.clone()))]);
            keyspace.put_with(&key, &value, &options)?;
        } else {
            self.become_after(&[(name, key.clone(), None)]);
            keyspace.delete_with(&key, &options)?;
        }
        self.acknowledge(durability);
        Ok(())
    }

    fn write_across(&mut self) -> Result<()> {
        let mut batch = WriteBatch::new();
        let mut writes = Vec::new();
        for _ in 0..=self.rng.below(8) {
            let (name, key) = (self.name(), self.rng.pick(&self.keys).clone());
            let keyspace = &self.hands[&name];
            if self.rng.chance(75) {
                self.tag += 1;
                let value = value(&mut self.rng, self.tag);
                batch.put_in(keyspace, &key, &value);
                writes.push((name, key, Some(value)));
            } else {
                batch.delete_in(keyspace, &key);
                writes.push((name, key, None));
            }
        }
        let (options, durability) = self.options();
        self.become_after(&writes);
        self.db().write_with(&batch, &options)?;
        self.acknowledge(durability);
        Ok(())
    }

    /// The state after some writes is there, or may be.
    fn become_after(&mut self, writes: &[Written]) {
        let mut state = self.course.now().clone();
        for (name, key, value) in writes {
            let model = Arc::make_mut(state.get_mut(name).expect("it has a handle"));
            match value {
                Some(value) => model.insert(key.clone(), value.clone()),
                None => model.remove(key),
            };
        }
        self.course.states.push(state);
    }

    fn acknowledge(&mut self, durability: Durability) {
        if durability == Durability::Disk {
            self.course.promise();
            self.world.check_acknowledged();
        }
    }

    fn create(&mut self) -> Result<()> {
        let name = (*self.rng.pick(&NAMES)).to_owned();
        let options = KeyspaceOptions::new()
            .memtable_bytes_max(*self.rng.pick(&[4 << 10, 4 << 10, 16 << 10]))
            .level0_table_count_trigger(1 + self.rng.below(3))
            .table_bytes_target(4 << 10)
            .level_base_bytes(16 << 10);
        let db = self.db();
        if self.hands.contains_key(&name) {
            let error = db
                .create_keyspace(&name, &options)
                .expect_err("it is there");
            assert_eq!(error.kind(), ErrorKind::Conflict);
            return Ok(());
        }
        let mut state = self.course.now().clone();
        state.insert(name.clone(), Arc::new(Model::new()));
        self.course.states.push(state);
        let keyspace = db.create_keyspace(&name, &options)?;
        assert_models_equal(&contents(&keyspace)?, &Model::new());
        self.hands.insert(name, keyspace);
        self.acknowledge(Durability::Disk);
        Ok(())
    }

    fn drop_one(&mut self) -> Result<()> {
        let name = self.name();
        if name == "default" {
            return Ok(());
        }
        let mut state = self.course.now().clone();
        state.remove(&name);
        self.course.states.push(state);
        self.db().drop_keyspace(&name)?;
        let ghost = self.hands.remove(&name).expect("it was picked");
        self.ghosts.push(ghost);
        self.acknowledge(Durability::Disk);
        Ok(())
    }

    fn background(&mut self) {
        self.world.clock.advance(self.rng.next() % 100_000);
        for _ in 0..=self.rng.below(6) {
            self.world.executor.step();
        }
        if self.rng.chance(30) {
            self.world.executor.step_named("siltstone-helper");
        }
    }

    fn flush_or_compact(&mut self) -> Result<()> {
        let name = self.name();
        let keyspace = &self.hands[&name];
        if self.rng.chance(50) {
            keyspace.flush()
        } else {
            keyspace.compact_range(..)
        }
    }

    fn take_shot(&mut self) -> Result<()> {
        let snapshot = self.db().snapshot()?;
        let state = self.course.now();
        let hands = self.hands.iter();
        let spaces = hands.map(|(name, hand)| (hand.clone(), Arc::clone(&state[name])));
        let spaces = spaces.collect();
        self.shots.push(Shot { snapshot, spaces });
        if self.shots.len() > 4 {
            let at = self.rng.below(self.shots.len());
            self.shots.swap_remove(at);
        }
        Ok(())
    }

    /// Snapshots and read-only handles show what they showed, whatever was dropped since.
    fn look(&self) -> Result<()> {
        for shot in &self.shots {
            for (keyspace, model) in &shot.spaces {
                let past = shot.snapshot.keyspace(keyspace)?;
                assert_models_equal(&contents(&past)?, model);
            }
        }
        for beside in &self.beside {
            assert_eq!(read_all(&beside.db)?, beside.state);
        }
        Ok(())
    }

    /// A read-only handle shows every keyspace of now; those from before do not change.
    fn look_beside(&mut self) -> Result<()> {
        let options = self
            .world
            .options()
            .file_system(self.world.fs.for_reading());
        let db = options.open_read_only(DIR)?;
        let state = self.course.now().clone();
        assert_eq!(read_all(&db)?, state, "shown by a read-only handle");
        self.beside.push(Beside { db, state });
        if self.beside.len() > 3 {
            self.beside.remove(0);
        }
        Ok(())
    }

    fn ask_ghosts(&self) {
        for ghost in &self.ghosts {
            let mut batch = WriteBatch::new();
            batch.put("key", "value").put_in(ghost, "key", "value");
            for result in [
                ghost.get("key").map(drop),
                ghost.put("key", "value").map(drop),
                self.db().write(&batch).map(drop),
                ghost.flush(),
                ghost.compact_range(..),
            ] {
                assert_eq!(result.expect_err("gone").kind(), ErrorKind::NotFound);
            }
        }
    }

    fn reopen(&mut self) -> Result<()> {
        if self.rng.chance(50) {
            self.db().close()?;
            self.course.promise();
        }
        self.let_go();
        self.world.restart(self.rng.next());
        // Everything that returned is in the hands of the operating system.
        let durable = self.course.states.len() - 1;
        self.open()?;
        assert_eq!(
            self.course.states.len() - 1,
            durable,
            "a reopen loses nothing"
        );
        Ok(())
    }

    /// Switches the machine off and on again, and plays on with what is left.
    fn cut(&mut self) {
        let mut models = self.world.fs.crash_models(6, 2);
        models.push(CrashModel::Sectors);
        let model = *self.rng.pick(&models);
        let _place = PrintOnPanic(format!("cut {model:?}"));
        self.let_go();
        let seed = self.rng.next();
        let image = self.world.fs.crash_image(&model, seed);
        self.world = World::on(image, seed);
        self.open().expect("a recovery");
    }

    /// Recovers an image of the disk beside the machine, which goes on.
    fn check_image(&mut self, model: &CrashModel) {
        let _place = PrintOnPanic(format!("image {model:?}"));
        let seed = self.rng.next();
        let image = self.world.fs.crash_image(model, seed);
        check(image, seed, &self.course);
    }
}

/// Recovers `image`, and does to it whatever could bring back or lose something.
fn check(image: Arc<SimFs>, seed: u64, course: &Course) {
    let mut world = World::on(image, seed);
    let db = world.open().expect("a recovery");
    let found = read_all(&db).expect("a scan");
    course.locate(&found);
    for name in found.keys() {
        let keyspace = db.keyspace(name).expect("it was listed");
        keyspace.compact_range(..).expect("a compaction");
    }
    assert_eq!(read_all(&db).expect("a scan"), found, "compacted");
    // Ids in the log or MANIFEST are not given out again.
    let made = db.create_keyspace("made afterwards", &KeyspaceOptions::new());
    let made = made.expect("a new keyspace");
    assert_models_equal(&contents(&made).expect("a scan"), &Model::new());
    made.put("key", "value").expect("a put");
    db.drop_keyspace("made afterwards").expect("a drop");
    drop((made, db));
    world.restart(seed ^ 2);
    let db = world.open().expect("a second open");
    assert_eq!(read_all(&db).expect("a scan"), found, "a second recovery");
    world.executor.run_until_idle();
    db.close().expect("a clean close");
    check_no_leak(&world.fs);
}

#[test]
fn keyspaces_that_come_and_go_agree_with_maps_across_power_cuts() {
    let name = "keyspaces_that_come_and_go_agree_with_maps_across_power_cuts";
    for_each_seed(name, 60, |seed| {
        let mut player = Player::new(seed);
        player.open().expect("a new database");
        for op in 0..250 {
            let _place = PrintOnPanic(format!("operation {op}"));
            player.anything().expect("no fault is planned");
            match player.rng.below(100) {
                0 => player.cut(),
                1 => {
                    let models = player.world.fs.crash_models(6, 1);
                    let model = *player.rng.pick(&models);
                    player.check_image(&model);
                }
                _ => {}
            }
        }
        player.look().expect("reads");
        player.check_image(&CrashModel::Everything);
        player.check_image(&CrashModel::Synced);
        let db = player.db();
        player.let_go();
        player.world.executor.run_until_idle();
        db.close().expect("a clean close");
        check_no_leak(&player.world.fs);
    });
}

#[test]
fn a_power_cut_in_any_call_leaves_all_keyspaces_in_one_state() {
    let name = "a_power_cut_in_any_call_leaves_all_keyspaces_in_one_state";
    for_each_seed(name, 80, |seed| {
        let mut player = Player::new(seed ^ 0xc0_0000);
        let call = 1 + player.rng.next() % 700;
        player.world.fs.crash_after(call);
        let _place = PrintOnPanic(format!("power cut in call {call}"));
        let mut result = player.open();
        for _ in 0..600 {
            if result.is_err() || player.world.fs.has_crashed() {
                break;
            }
            result = player.anything();
        }
        player.let_go();
        let models = player.world.fs.crash_models(6, 2);
        for _ in 0..2 * rounds() {
            let model = *player.rng.pick(&models);
            player.check_image(&model);
        }
    });
}
