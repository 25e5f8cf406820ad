//! Directories: names that are there, names that are durable, and the changes between.

use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use rustix::io::Errno;

use super::content::Content;
use super::state::{FileNode, NodeId, State, os_error};
use crate::error::Result;
use crate::fs::fault::OpKind;
use crate::fs::parent_of;
use crate::sync::{Arc, Bell};

pub(super) type Names = BTreeMap<String, NodeId>;

/// A change of names that no sync of the directory has covered yet.
#[derive(Clone, Debug)]
pub(super) struct NameOp {
    /// Place in the order of all changes of the file system.
    pub(super) seq: u64,
    pub(super) change: NameChange,
}

#[derive(Clone, Debug)]
pub(super) enum NameChange {
    Link {
        name: String,
        node: NodeId,
    },
    /// `moved_to` is the directory that got the name instead, in the change of the same place in
    /// the order: a move between directories may leave both names, but never none.
    Unlink {
        name: String,
        moved_to: Option<NodeId>,
    },
    Rename {
        from: String,
        to: String,
        node: NodeId,
    },
}

impl NameChange {
    /// Applies the change to names to which earlier ones may be missing.
    pub(super) fn apply(&self, names: &mut Names) {
        match self {
            Self::Link { name, node } => {
                names.insert(name.clone(), *node);
            }
            Self::Unlink { name, .. } => {
                names.remove(name);
            }
            Self::Rename { from, to, node } => {
                if names.get(from) == Some(node) {
                    names.remove(from);
                }
                names.insert(to.clone(), *node);
            }
        }
    }

    fn node(&self) -> Option<NodeId> {
        match self {
            Self::Link { node, .. } | Self::Rename { node, .. } => Some(*node),
            Self::Unlink { .. } => None,
        }
    }

    fn concerns(&self, wanted: &str) -> bool {
        match self {
            Self::Link { name, .. } | Self::Unlink { name, .. } => name == wanted,
            Self::Rename { from, to, .. } => from == wanted || to == wanted,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Directory {
    pub(super) live: Names,
    pub(super) durable: Names,
    pub(super) pending: Vec<NameOp>,
    /// Rung at every change, once somebody watches.
    pub(super) bell: Option<Arc<Bell>>,
}

impl Directory {
    /// A directory whose `names` are all durable.
    pub(super) fn durable(names: Names) -> Self {
        Self {
            live: names.clone(),
            durable: names,
            pending: Vec::new(),
            bell: None,
        }
    }

    pub(super) fn collect_nodes(&self, nodes: &mut HashSet<NodeId>) {
        nodes.extend(self.live.values());
        nodes.extend(self.durable.values());
        nodes.extend(self.pending.iter().filter_map(|op| op.change.node()));
    }

    /// Makes durable what is pending of `name` up to the change `seq`.
    fn settle(&mut self, seq: u64) {
        let Some(op) = self.pending.iter().find(|op| op.seq == seq) else {
            return;
        };
        let NameChange::Link { name, .. } = &op.change else {
            return;
        };
        let name = name.clone();
        let durable = &mut self.durable;
        self.pending.retain(|op| {
            let settled = op.seq <= seq && op.change.concerns(&name);
            if settled {
                op.change.apply(durable);
            }
            !settled
        });
    }
}

impl State {
    /// The directory that shall hold `path`, and the name in it.
    fn place(&self, kind: OpKind, path: &Path) -> Result<(NodeId, String)> {
        let name = path.file_name().and_then(|name| name.to_str());
        let name = name.ok_or_else(|| os_error(kind, path, Errno::INVAL))?;
        let dir = self
            .resolve_dir(parent_of(path))
            .map_err(|errno| os_error(kind, path, errno))?;
        Ok((dir, name.to_owned()))
    }

    pub(super) fn dir_mut(&mut self, id: NodeId) -> &mut Directory {
        self.dirs.get_mut(&id).expect("directories are never gone")
    }

    pub(super) fn create_file(&mut self, path: &Path) -> Result<NodeId> {
        let (dir, name) = self.place(OpKind::Create, path)?;
        if self.dirs[&dir].live.contains_key(&name) {
            return Err(os_error(OpKind::Create, path, Errno::EXIST));
        }
        let node = self.next_node;
        self.next_node += 1;
        self.files
            .insert(node, FileNode::new(Content::default(), dir));
        self.link(dir, name, node);
        Ok(node)
    }

    /// Puts a file with this content at `path`, durably and outside all rules.
    pub(super) fn install(&mut self, path: &Path, content: Content) -> Result<()> {
        if let Ok(id) = self.resolve_file(path) {
            self.unlinked(id);
        }
        let (dir, name) = self.place(OpKind::Create, path)?;
        let node = self.next_node;
        self.next_node += 1;
        self.charge(&content);
        self.files.insert(node, FileNode::new(content, dir));
        let directory = self.dir_mut(dir);
        directory.live.insert(name.clone(), node);
        directory.pending.retain(|op| !op.change.concerns(&name));
        directory.durable.insert(name, node);
        self.ring(dir);
        Ok(())
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> Result<()> {
        if let Ok(id) = self.resolve(path) {
            return if self.dirs.contains_key(&id) {
                Ok(())
            } else {
                Err(os_error(OpKind::CreateDir, path, Errno::EXIST))
            };
        }
        let (dir, name) = self.place(OpKind::CreateDir, path)?;
        let node = self.next_node;
        self.next_node += 1;
        self.dirs.insert(node, Directory::default());
        self.link(dir, name, node);
        Ok(())
    }

    fn link(&mut self, dir: NodeId, name: String, node: NodeId) {
        let seq = self.next_seq();
        let change = NameChange::Link { name, node };
        self.change_names(dir, seq, change);
    }

    /// Gives the file `from` one name more.
    pub(super) fn hard_link(&mut self, from: &Path, to: &Path) -> Result<()> {
        let (from_dir, from_name) = self.place(OpKind::Link, from)?;
        let Some(&node) = self.dirs[&from_dir].live.get(&from_name) else {
            return Err(os_error(OpKind::Link, to, Errno::NOENT));
        };
        let (to_dir, to_name) = self.place(OpKind::Link, to)?;
        if self.dirs[&to_dir].live.contains_key(&to_name) {
            return Err(os_error(OpKind::Link, to, Errno::EXIST));
        }
        let Some(file) = self.files.get_mut(&node) else {
            return Err(os_error(OpKind::Link, to, Errno::PERM));
        };
        file.links += 1;
        self.link(to_dir, to_name, node);
        Ok(())
    }

    fn change_names(&mut self, dir: NodeId, seq: u64, change: NameChange) {
        let directory = self.dir_mut(dir);
        change.apply(&mut directory.live);
        directory.pending.push(NameOp { seq, change });
        self.ring(dir);
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> Result<()> {
        let (from_dir, from_name) = self.place(OpKind::Rename, from)?;
        let (to_dir, to_name) = self.place(OpKind::Rename, to)?;
        let Some(&node) = self.dirs[&from_dir].live.get(&from_name) else {
            return Err(os_error(OpKind::Rename, from, Errno::NOENT));
        };
        let replaced = self.dirs[&to_dir].live.get(&to_name).copied();
        if replaced == Some(node) {
            return Ok(());
        }
        if let Some(replaced) = replaced {
            self.check_replaced(node, replaced, to)?;
        }
        if self.dirs.contains_key(&node) && to.starts_with(from) {
            return Err(os_error(OpKind::Rename, to, Errno::INVAL));
        }
        self.check_rename(node, from, to)?;
        let seq = self.next_seq();
        if from_dir == to_dir {
            let change = NameChange::Rename {
                from: from_name,
                to: to_name,
                node,
            };
            self.change_names(to_dir, seq, change);
        } else {
            let link = NameChange::Link {
                name: to_name,
                node,
            };
            self.change_names(to_dir, seq, link);
            let unlink = NameChange::Unlink {
                name: from_name,
                moved_to: Some(to_dir),
            };
            self.change_names(from_dir, seq, unlink);
        }
        if let Some(file) = self.files.get_mut(&node) {
            file.dir = to_dir;
        }
        if let Some(replaced) = replaced {
            self.unlinked(replaced);
        }
        Ok(())
    }

    /// Whether a rename to `to` may replace what is there: a file by a file, an empty directory by
    /// a directory.
    fn check_replaced(&self, node: NodeId, replaced: NodeId, to: &Path) -> Result<()> {
        let errno = match (self.dirs.contains_key(&node), self.dirs.get(&replaced)) {
            (false, None) => return Ok(()),
            (true, Some(dir)) if dir.live.is_empty() => return Ok(()),
            (true, Some(_)) => Errno::NOTEMPTY,
            (true, None) => Errno::NOTDIR,
            (false, Some(_)) => Errno::ISDIR,
        };
        Err(os_error(OpKind::Rename, to, errno))
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> Result<()> {
        let (dir, name) = self.place(OpKind::Remove, path)?;
        let Some(&node) = self.dirs[&dir].live.get(&name) else {
            return Err(os_error(OpKind::Remove, path, Errno::NOENT));
        };
        if self.dirs.contains_key(&node) {
            return Err(os_error(OpKind::Remove, path, Errno::ISDIR));
        }
        let seq = self.next_seq();
        let change = NameChange::Unlink {
            name,
            moved_to: None,
        };
        self.change_names(dir, seq, change);
        self.unlinked(node);
        Ok(())
    }

    pub(super) fn sync_dir(&mut self, path: &Path) -> Result<()> {
        let id = self
            .resolve_dir(path)
            .map_err(|errno| os_error(OpKind::SyncDir, path, errno))?;
        let directory = self.dir_mut(id);
        let pending = std::mem::take(&mut directory.pending);
        for op in &pending {
            op.change.apply(&mut directory.durable);
        }
        for op in pending {
            if let NameChange::Unlink {
                moved_to: Some(other),
                ..
            } = op.change
            {
                self.dir_mut(other).settle(op.seq);
            }
        }
        Ok(())
    }

    /// Whether every name of `path` from the root on survives a power cut and means the same then.
    pub(super) fn is_name_durable(&self, path: &Path) -> bool {
        let mut at = super::state::ROOT;
        for component in path.components() {
            let std::path::Component::Normal(name) = component else {
                continue;
            };
            let (Some(dir), Some(name)) = (self.dirs.get(&at), name.to_str()) else {
                return false;
            };
            match (dir.live.get(name), dir.durable.get(name)) {
                (Some(live), Some(durable)) if live == durable => at = *live,
                _ => return false,
            }
        }
        true
    }
}
