//! The simulation answers as the operating system does.

use super::super::random::Random;
use super::*;
use crate::fs::OsFs;

/// One file system under test, with the directory that stands for its root.
struct Side {
    fs: Arc<dyn FileSystem>,
    root: PathBuf,
    files: Vec<Arc<dyn File>>,
}

/// What a call came back with, as far as both sides must agree.
#[derive(Debug, PartialEq)]
enum Answer {
    Failed(ErrorKind),
    Done,
    Bytes(Vec<u8>),
    Names(BTreeMap<String, bool>),
    Status(Option<Status>),
}

impl Side {
    fn new(fs: Arc<dyn FileSystem>, root: &Path) -> Self {
        Self {
            fs,
            root: root.to_owned(),
            files: Vec::new(),
        }
    }

    /// A path that follows from `random`: few names, so that calls meet each other.
    fn path(&self, random: &mut Random) -> PathBuf {
        let dir = ["", "d", "e", "f/g"][random.index(4)];
        self.root
            .join(dir)
            .join(["a", "b", "c", "d", "f"][random.index(5)])
    }

    fn call(&mut self, random: &mut Random) -> Answer {
        match self.try_call(random) {
            Ok(answer) => answer,
            Err(error) => Answer::Failed(error.kind()),
        }
    }

    fn try_call(&mut self, random: &mut Random) -> Result<Answer> {
        let path = self.path(random);
        let (kind, at) = (random.below(11), random.below(9000));
        match kind {
            0 => {
                let file = self.fs.create(&path)?;
                self.files.push(file);
            }
            1 => {
                // The system opens directories too; nobody here does.
                let is_dir = self.fs.status(&path)?.is_some_and(|status| status.is_dir);
                let found = (!is_dir).then(|| self.fs.open(&path)).transpose()?;
                self.files.extend(found);
            }
            2 => self.fs.remove_file(&path)?,
            3 => self.fs.rename(&path, &self.path(random))?,
            4 => self.fs.create_dir(&path)?,
            7 => self.fs.hard_link(&path, &self.path(random))?,
            5 => {
                let entries = self.fs.list(path.parent().expect("below the root"))?;
                let names = entries.into_iter().map(|entry| (entry.name, entry.is_dir));
                return Ok(Answer::Names(names.collect()));
            }
            6 => {
                let status = self.fs.status(&path)?;
                // The length of a directory means nothing.
                return Ok(Answer::Status(status.map(|status| Status {
                    len: if status.is_dir { 0 } else { status.len },
                    ..status
                })));
            }
            _ if self.files.is_empty() => {}
            _ => return self.call_file(random, at),
        }
        Ok(Answer::Done)
    }

    fn call_file(&mut self, random: &mut Random, at: u64) -> Result<Answer> {
        let file = &self.files[random.index(self.files.len())];
        match random.below(6) {
            0 => file.set_len(at)?,
            1 => drop(file.reserve(at + 1)?),
            2 => {
                let mut bytes = vec![0; 5000];
                let count = file.read_at(at, &mut bytes)?;
                bytes.truncate(count);
                return Ok(Answer::Bytes(bytes));
            }
            _ => {
                let fill = random.next_u64().to_le_bytes()[0];
                file.write_at(at, &vec![fill; random.index(5000)])?;
            }
        }
        Ok(Answer::Done)
    }
}

#[test]
fn both_answer_alike() {
    for seed in 0..20 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().expect("a directory");
        let mut os = Side::new(Arc::new(OsFs), dir.path());
        let mut sim = Side::new(SimFs::new(seed), Path::new("/"));
        let mut random = Random::new(seed);
        for step in 0..400 {
            let mut same = random.clone();
            let (expected, found) = (os.call(&mut random), sim.call(&mut same));
            assert_eq!(expected, found, "step {step}");
            random.next_u64();
        }
    }
}
