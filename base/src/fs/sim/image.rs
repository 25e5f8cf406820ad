//! What a power cut may leave of a simulated disk.

use std::collections::BTreeMap;

use super::content::Content;
use super::names::{Directory, NameChange, NameOp, Names};
use super::random::{Random, mix_two};
use super::state::{FileChange, FileNode, NodeId, ROOT, State};

/// The unit in which a disk writes; between two of them anything can be lost.
pub(super) const SECTOR_BYTES: u64 = 512;

/// Which of the changes that no sync covered reach the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashModel {
    /// M0: none.
    Synced,
    /// M1: all of them, even what a failed sync forgot: only the process died.
    Everything,
    /// M2: the first so many, in the order in which they were made.
    Prefix(usize),
    /// M3: every name and every length, and zeros for data that was not synced.
    NamesAndLengths,
    /// M4: all data and lengths, no change of names.
    Data,
    /// M5: for each sector the old bytes, the new ones or any between; for each file one of its
    /// lengths; each change of names or not, by itself.
    Sectors,
    /// M6: all of them, but the last write stopped in the middle.
    Torn {
        /// How much of the last write arrived; `None` lets the seed choose.
        kept: Option<usize>,
        /// What stands where the rest should be.
        filler: Filler,
    },
}

/// What stands where a torn write did not arrive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Filler {
    /// Nothing: the file is as it was before, there.
    Old,
    /// Bytes 0x00.
    Zeros,
    /// Bytes 0xff.
    Ones,
    /// Bytes that follow from the seed.
    Random,
    /// Bytes of a file that was deleted; zeros if none was.
    Stale,
}

impl Filler {
    /// Every filler.
    pub const ALL: [Self; 5] = [
        Self::Old,
        Self::Zeros,
        Self::Ones,
        Self::Random,
        Self::Stale,
    ];
}

/// The places of all pending changes in the order of the file system, ascending.
pub(super) fn pending_places(state: &State) -> Vec<u64> {
    let names = state.dirs.values().flat_map(|dir| &dir.pending);
    let data = state.files.values().flat_map(|file| &file.pending);
    let mut places: Vec<u64> = names
        .map(|op| op.seq)
        .chain(data.map(|pending| pending.seq))
        .collect();
    places.sort_unstable();
    // A move between directories is one change in two lists.
    places.dedup();
    places
}

/// Place and length of the last pending write.
pub(super) fn last_write(state: &State) -> Option<(u64, usize)> {
    let writes = state.files.values().filter_map(|file| {
        file.pending.iter().rev().find_map(|p| match &p.change {
            FileChange::Write { bytes, .. } => Some((p.seq, bytes.len())),
            FileChange::SetLen(_) => None,
        })
    });
    writes.max()
}

/// A disk on which everything is durable that `model` lets through.
pub(super) fn image(state: &State, model: CrashModel, seed: u64) -> State {
    let mut random = Random::new(seed);
    let torn = match model {
        CrashModel::Torn { kept, filler } => last_write(state).map(|(seq, len)| {
            let kept = kept.map_or_else(|| random.index(len + 1), |kept| kept.min(len));
            Tear { seq, kept, filler }
        }),
        _ => None,
    };
    let limit = match model {
        CrashModel::Prefix(count) => pending_places(state).get(count).copied(),
        _ => None,
    };
    let maker = Maker {
        state,
        model,
        seed,
        limit: limit.unwrap_or(u64::MAX),
        torn,
    };
    let mut made = State::new(mix_two(seed, 1));
    made.next_node = state.next_node;
    made.order_checked = state.order_checked;
    made.failed_sync = state.failed_sync;
    maker.directory(ROOT, &mut made);
    made
}

#[derive(Clone, Copy)]
struct Tear {
    seq: u64,
    kept: usize,
    filler: Filler,
}

struct Maker<'a> {
    state: &'a State,
    model: CrashModel,
    seed: u64,
    /// The place of the first change that a prefix leaves out.
    limit: u64,
    torn: Option<Tear>,
}

impl Maker<'_> {
    fn directory(&self, id: NodeId, made: &mut State) {
        let names = self.names(&self.state.dirs[&id]);
        made.dirs.insert(id, Directory::durable(names.clone()));
        for node in names.into_values() {
            if self.state.dirs.contains_key(&node) {
                // Renames cannot put a directory below itself, but a subset of them may.
                if !made.dirs.contains_key(&node) {
                    self.directory(node, made);
                }
            } else if let Some(file) = made.files.get_mut(&node) {
                file.links += 1;
            } else {
                let file = &self.state.files[&node];
                let content = self.content(node, file);
                made.charge(&content);
                let mut node_made = FileNode::new(content, id);
                node_made.snapshot.clone_from(&file.snapshot);
                made.files.insert(node, node_made);
            }
        }
    }

    fn names(&self, dir: &Directory) -> Names {
        match self.model {
            CrashModel::Synced | CrashModel::Data => return dir.durable.clone(),
            CrashModel::Everything | CrashModel::NamesAndLengths | CrashModel::Torn { .. } => {
                return dir.live.clone();
            }
            CrashModel::Prefix(_) | CrashModel::Sectors => {}
        }
        let mut names = dir.durable.clone();
        for op in dir.pending.iter().filter(|op| self.name_persists(op)) {
            op.change.apply(&mut names);
        }
        names
    }

    fn name_persists(&self, op: &NameOp) -> bool {
        if self.model != CrashModel::Sectors {
            return op.seq < self.limit;
        }
        let chosen = |salt| mix_two(self.seed ^ salt, op.seq) & 1 == 1;
        match &op.change {
            NameChange::Unlink {
                moved_to: Some(other),
                ..
            } => {
                let linked_later = &self.state.dirs[other].pending;
                let linked = !linked_later.iter().any(|link| link.seq == op.seq) || chosen(0);
                linked && chosen(1)
            }
            _ => chosen(0),
        }
    }

    fn content(&self, node: NodeId, file: &FileNode) -> Content {
        if file.is_synced() {
            // Equal to the durable bytes, and what a snapshot was made of.
            return file.current.clone();
        }
        match self.model {
            CrashModel::Synced => file.durable.clone(),
            CrashModel::Everything => file.current.clone(),
            CrashModel::Data => file.settled(),
            _ if file.pending.is_empty() => file.durable.clone(),
            CrashModel::Prefix(_) => {
                let mut content = file.durable.clone();
                for pending in file.pending.iter().take_while(|p| p.seq < self.limit) {
                    pending.change.apply(&mut content);
                }
                content
            }
            CrashModel::NamesAndLengths => lengths_only(file),
            CrashModel::Sectors => sectors(file, &mut Random::new(mix_two(self.seed, node))),
            CrashModel::Torn { .. } => match &self.torn {
                Some(tear) if file.pending.iter().any(|p| p.seq == tear.seq) => {
                    self.tear(file, *tear)
                }
                _ => file.settled(),
            },
        }
    }

    fn tear(&self, file: &FileNode, tear: Tear) -> Content {
        let mut content = file.durable.clone();
        for pending in &file.pending {
            match &pending.change {
                FileChange::Write { offset, bytes } if pending.seq == tear.seq => {
                    content.write(*offset, &bytes[..tear.kept]);
                    let rest = bytes.len() - tear.kept;
                    if let Some(filler) = self.filler(tear.filler, rest) {
                        content.write(offset + tear.kept as u64, &filler);
                    }
                }
                change => change.apply(&mut content),
            }
        }
        content
    }

    fn filler(&self, filler: Filler, len: usize) -> Option<Vec<u8>> {
        let mut random = Random::new(mix_two(self.seed, 2));
        let mut bytes = vec![0; len];
        match filler {
            Filler::Old => return None,
            Filler::Zeros => {}
            Filler::Ones => bytes.fill(0xff),
            Filler::Random => bytes.fill_with(|| random.next_u64().to_le_bytes()[0]),
            Filler::Stale => {
                let deleted = &self.state.deleted;
                let stale = deleted.get(random.index(deleted.len()));
                let from = stale.map_or(0, |stale| random.below(stale.len()));
                if let Some(stale) = stale {
                    stale.read(from, &mut bytes);
                }
            }
        }
        Some(bytes)
    }
}

fn lengths_only(file: &FileNode) -> Content {
    let mut content = file.durable.clone();
    for pending in &file.pending {
        content.set_len(pending.change.len_after(content.len()));
    }
    content
}

/// Each sector that a pending change touches, in any of the states it went through.
fn sectors(file: &FileNode, random: &mut Random) -> Content {
    let mut lengths = vec![file.durable.len()];
    let mut touched: BTreeMap<u64, Vec<usize>> = BTreeMap::new();
    let mut cuts = Vec::new();
    for (index, pending) in file.pending.iter().enumerate() {
        let len = lengths[index];
        match &pending.change {
            FileChange::Write { offset, bytes } => {
                let last = (offset + bytes.len() as u64 - 1) / SECTOR_BYTES;
                for sector in offset / SECTOR_BYTES..=last {
                    touched.entry(sector).or_default().push(index);
                }
            }
            FileChange::SetLen(cut) if *cut < len => cuts.push((index, *cut)),
            FileChange::SetLen(_) => {}
        }
        lengths.push(pending.change.len_after(len));
    }
    touch_cut_sectors(&file.durable, &cuts, &mut touched);
    let mut content = file.durable.clone();
    for (sector, changes) in &touched {
        let start = sector * SECTOR_BYTES;
        let mut bytes = [0; 512];
        file.durable.read(start, &mut bytes);
        let applied = random.index(changes.len() + 1);
        for index in &changes[..applied] {
            apply_to_sector(&file.pending[*index].change, start, &mut bytes);
        }
        content.write(start, &bytes);
    }
    content.set_len(lengths[random.index(lengths.len())]);
    content
}

/// Cutting a file and extending it again zeroes sectors: those that had bytes before, durable ones
/// or of an earlier write.
fn touch_cut_sectors(
    durable: &Content,
    cuts: &[(usize, u64)],
    touched: &mut BTreeMap<u64, Vec<usize>>,
) {
    for (index, cut) in cuts {
        let first = cut / SECTOR_BYTES;
        for sector in first..durable.stored_end().div_ceil(SECTOR_BYTES) {
            if durable.is_stored(sector * SECTOR_BYTES) {
                touched.entry(sector).or_default();
            }
        }
        for changes in touched.range_mut(first..).map(|(_, changes)| changes) {
            let at = changes.partition_point(|change| change < index);
            changes.insert(at, *index);
        }
    }
}

fn apply_to_sector(change: &FileChange, start: u64, sector: &mut [u8; 512]) {
    match change {
        FileChange::Write { offset, bytes } => {
            let end = offset + bytes.len() as u64;
            let from = start.max(*offset);
            let upto = (start + SECTOR_BYTES).min(end);
            let source = index(from - offset)..index(upto - offset);
            sector[index(from - start)..index(upto - start)].copy_from_slice(&bytes[source]);
        }
        FileChange::SetLen(len) => {
            sector[index(len.saturating_sub(start))..].fill(0);
        }
    }
}

fn index(value: u64) -> usize {
    usize::try_from(value).expect("within a sector or a write in memory")
}
