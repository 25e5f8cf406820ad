//! Crashes in the middle of random work, against an account of what was promised.

use std::collections::BTreeSet;

use super::super::random::Random;
use super::*;

/// What is known of one file: every value that each byte had since the last sync, and every length.
struct Account {
    name: String,
    file: Arc<dyn File>,
    bytes: Vec<u8>,
    synced: Vec<u8>,
    values: Vec<BTreeSet<u8>>,
    lengths: BTreeSet<usize>,
}

const FILE_BYTES_MAX: usize = 2000;

impl Account {
    fn new(fs: &SimFs, name: String) -> Self {
        let mut account = Self {
            file: fs.create(&path(&name)).expect("created"),
            name,
            bytes: Vec::new(),
            synced: Vec::new(),
            values: Vec::new(),
            lengths: BTreeSet::new(),
        };
        account.synced_now();
        account
    }

    fn synced_now(&mut self) {
        self.synced.clone_from(&self.bytes);
        self.values = vec![BTreeSet::new(); FILE_BYTES_MAX];
        self.lengths.clear();
        self.note();
    }

    fn note(&mut self) {
        self.lengths.insert(self.bytes.len());
        for (at, values) in self.values.iter_mut().enumerate() {
            // Beyond the end a file may come to read as zeros.
            values.insert(self.bytes.get(at).copied().unwrap_or(0));
        }
    }

    fn write(&mut self, random: &mut Random) {
        let at = random.index(self.bytes.len() + 1);
        let len = random.index(700).min(FILE_BYTES_MAX - at);
        let written = vec![random.next_u64().to_le_bytes()[0]; len];
        self.file.write_at(at as u64, &written).expect("written");
        self.bytes.resize(self.bytes.len().max(at + len), 0);
        self.bytes[at..at + len].copy_from_slice(&written);
        self.note();
    }

    fn resize(&mut self, random: &mut Random) {
        let len = random.index(FILE_BYTES_MAX);
        self.file.set_len(len as u64).expect("resized");
        self.bytes.resize(len, 0);
        self.note();
    }

    fn check(&self, found: &[u8], model: CrashModel) {
        if model == CrashModel::Synced {
            assert_eq!(found, self.synced);
        }
        assert!(
            self.lengths.contains(&found.len()),
            "length {}",
            found.len()
        );
        for (at, byte) in found.iter().enumerate() {
            // A length may persist without the write that made it.
            let possible =
                self.values[at].contains(byte) || (*byte == 0 && at >= self.synced.len());
            assert!(possible, "byte {at} is {byte}: {:?}", self.values[at]);
        }
    }
}

#[test]
fn images_hold_what_was_synced_and_nothing_that_was_never_there() {
    let mut vanished = 0;
    for seed in 0..60 {
        println!("seed {seed}");
        let fs = prepared(seed);
        let mut random = Random::new(seed);
        let mut durable: Vec<Account> = Vec::new();
        let mut named: Vec<Account> = Vec::new();
        for step in 0..80 {
            let accounts = if random.coin() {
                &mut durable
            } else {
                &mut named
            };
            if accounts.is_empty() || random.below(12) == 0 {
                named.push(Account::new(&fs, format!("{step:06}")));
                continue;
            }
            let index = random.index(accounts.len());
            match random.below(6) {
                0 => accounts[index].resize(&mut random),
                1 | 2 => {
                    accounts[index].file.sync().expect("synced");
                    accounts[index].synced_now();
                }
                3 if random.coin() => {
                    fs.sync_dir(Path::new("/db")).expect("synced");
                    durable.append(&mut named);
                }
                _ => accounts[index].write(&mut random),
            }
            let models = fs.crash_models(4, 3);
            let model = models[random.index(models.len())];
            if matches!(model, CrashModel::Torn { .. }) {
                // Its fillers are bytes that were never there; it has a test of its own.
                continue;
            }
            let image = fs.crash_image(&model, random.next_u64());
            for account in &durable {
                let found = image.contents(&path(&account.name));
                account.check(&found.expect("its name was synced"), model);
            }
            for account in &named {
                match image.contents(&path(&account.name)) {
                    Some(found) => account.check(&found, model),
                    None => vanished += 1,
                }
            }
        }
    }
    assert!(
        vanished > 100,
        "names that were not synced may vanish: {vanished}"
    );
}

#[test]
fn a_sector_is_old_or_new_and_sectors_choose_alone() {
    let fs = prepared(1);
    let file = write_durably(&fs, "a", &[1; 1024]);
    file.write_at(0, &[2; 1024]).expect("written");
    file.write_at(0, &[3; 1024]).expect("written");
    let mut seen = BTreeSet::new();
    for seed in 0..200 {
        let image = fs.crash_image(&CrashModel::Sectors, seed);
        let bytes = image.contents(&path("a")).expect("durable");
        let sectors: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
        for (sector, value) in bytes.chunks(512).zip(&sectors) {
            assert!(sector.iter().all(|byte| byte == value), "a torn sector");
        }
        seen.insert(sectors);
    }
    assert_eq!(seen.len(), 9);
}

#[test]
fn a_file_cut_and_extended_may_keep_its_bytes_or_its_length() {
    let fs = prepared(1);
    let file = write_durably(&fs, "a", &[1; 1024]);
    file.set_len(100).expect("cut");
    file.set_len(1100).expect("extended");
    let (mut lengths, mut zeroed) = (BTreeSet::new(), BTreeSet::new());
    for seed in 0..200 {
        let image = fs.crash_image(&CrashModel::Sectors, seed);
        let bytes = image.contents(&path("a")).expect("durable");
        lengths.insert(bytes.len());
        assert_eq!(bytes[..100], [1; 100]);
        if bytes.len() == 1100 {
            assert_eq!(bytes[1024..], [0; 76]);
            assert!(bytes[100..512].iter().all(|byte| *byte == bytes[100]));
            assert!(bytes[512..1024].iter().all(|byte| *byte == bytes[512]));
            zeroed.insert((bytes[100], bytes[512]));
        }
    }
    assert_eq!(lengths, [100, 1024, 1100].into_iter().collect());
    assert_eq!(zeroed.len(), 4);
}

#[test]
fn all_pages_of_a_write_are_synced() {
    let fs = prepared(1);
    let bytes: Vec<u8> = (0..20_000u32).map(|at| at.to_le_bytes()[1]).collect();
    let file = write_durably(&fs, "a", &bytes);
    file.write_at(0, b"later").expect("written");
    let image = fs.crash_image(&CrashModel::Synced, 1);
    assert_eq!(image.contents(&path("a")).expect("durable"), bytes);
}

#[test]
fn a_torn_tail_leaves_everything_synced_alone() {
    for seed in 0..100 {
        println!("seed {seed}");
        let fs = prepared(seed);
        let mut random = Random::new(seed);
        let synced = vec![7; random.index(3000)];
        let file = write_durably(&fs, "a", &synced);
        let added = vec![8; 1 + random.index(3000)];
        file.write_at(synced.len() as u64, &added).expect("written");
        for filler in Filler::ALL {
            let model = CrashModel::Torn { kept: None, filler };
            let image = fs.crash_image(&model, random.next_u64());
            let found = image.contents(&path("a")).expect("durable");
            assert_eq!(found[..synced.len()], synced);
        }
    }
}

/// Some work that touches every kind of mutating call; stops at the first error.
fn work(fs: &SimFs) -> Result<()> {
    create_dir_all(fs, Path::new("/db"))?;
    let _guard = fs.lock(&path("LOCK"))?;
    let log = fs.create(&path("000001.log"))?;
    log.reserve(4096)?;
    for record in 0..5 {
        log.write_at(record * 100, &[b'r'; 100])?;
        log.sync()?;
    }
    fs.create_dir(&path("lost"))?;
    fs.sync_dir(Path::new("/db"))?;
    log.set_len(500)?;
    log.sync()?;
    fs.rename(&path("000001.log"), &path("lost/000001.log"))?;
    fs.remove_file(&path("LOCK"))?;
    fs.sync_dir(Path::new("/db"))
}

#[test]
fn it_crashes_at_every_call_and_stays_down() {
    let whole = SimFs::new(1);
    work(&whole).expect("nothing fails");
    let count = whole.mutation_count();
    assert_eq!(count, 22);
    for at in 1..=count {
        let fs = SimFs::new(at);
        fs.crash_after(at);
        assert!(!fs.has_crashed());
        let error = work(&fs).expect_err("it crashes");
        assert_eq!(error.kind(), ErrorKind::Io);
        assert!(error.to_string().contains("crashed"), "{error}");
        assert!(fs.has_crashed());
        assert_eq!(fs.mutation_count(), at);
        fs.list(Path::new("/")).expect_err("reads fail too");
        fs.create(Path::new("/x"))
            .expect_err("and so do later calls");
        assert_eq!(fs.mutation_count(), at, "which are not counted");
        let image = fs.crash_image(&CrashModel::Everything, at);
        image
            .list(Path::new("/"))
            .expect("an image is another machine");
    }
    let fs = SimFs::new(1);
    fs.crash_after(count + 1);
    work(&fs).expect("the crash is still to come");
}

#[test]
fn the_call_that_crashes_may_be_done_in_part() {
    let mut lengths = BTreeSet::new();
    let mut created = BTreeSet::new();
    for seed in 0..64 {
        let fs = prepared(seed);
        let file = write_durably(&fs, "a", b"");
        fs.crash_after(1);
        file.write_at(0, &[1; 8]).expect_err("crashed");
        let image = fs.crash_image(&CrashModel::Everything, seed);
        let found = image.contents(&path("a")).expect("durable");
        assert!(found.iter().all(|byte| *byte == 1));
        lengths.insert(found.len());

        let fs = prepared(seed);
        fs.crash_after(1);
        fs.create(&path("a")).expect_err("crashed");
        created.insert(fs.crash_image(&CrashModel::Everything, seed).paths().len());
    }
    assert_eq!(lengths, (0..=8).collect());
    assert_eq!(created, [0, 1].into_iter().collect());
}

#[test]
fn the_same_seed_makes_the_same_crash_and_the_same_image() {
    let run = |seed| {
        let fs = SimFs::new(seed);
        fs.crash_after(9);
        work(&fs).expect_err("it crashes");
        let models = fs.crash_models(8, 5).into_iter();
        let images = models.zip(seed..);
        let dumps = images.map(|(model, seed)| dump(&fs.crash_image(&model, seed)));
        dumps.collect::<Vec<_>>()
    };
    for seed in 0..20 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
}

#[test]
fn models_are_listed_without_repeating_prefixes() {
    let fs = prepared(1);
    assert_eq!(fs.crash_models(32, 0).len(), 4, "nothing is pending");
    for index in 0..40 {
        write(&fs, &format!("{index}"), b"x");
    }
    let pending = fs.pending_count();
    assert_eq!(pending, 80);
    let prefixes = |count_max| {
        let models = fs.crash_models(count_max, 0).into_iter();
        let prefixes = models.filter_map(|model| match model {
            CrashModel::Prefix(count) => Some(count),
            _ => None,
        });
        prefixes.collect::<Vec<_>>()
    };
    assert_eq!(prefixes(1000), (1..pending).collect::<Vec<_>>());
    let few = prefixes(32);
    assert_eq!(few.len(), 32);
    assert!(few.windows(2).all(|pair| pair[0] < pair[1]));
}
