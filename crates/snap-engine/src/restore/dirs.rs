//! The directories of a restore, and a bounded number of handles of them.

use std::collections::HashMap;
use std::io;
use std::sync::{Mutex, PoisonError};

use snap_format::Node;
use snap_source::TargetDir;

use crate::browse::join;

/// Handles kept open, of those that this process may have: the directories of what is planned at a time, each of which is
/// needed again when its files are written, and in the end.
const MAX_HANDLES: u64 = 8192;
const MIN_HANDLES: u64 = 400;

/// A directory to restore into.
pub(super) struct DirInfo {
    /// Position of the directory above; the target itself has none.
    pub(super) above: Option<u32>,
    pub(super) name: Vec<u8>,
    /// Its own node; the target of a whole restore has none.
    pub(super) node: Option<Node>,
    /// It is there: made, or found.
    pub(super) made: bool,
    /// It was there before.
    pub(super) existed: bool,
    pub(super) ending: Ending,
}

/// What becomes of a directory's attributes in the end.
#[derive(Clone, Copy)]
pub(super) enum Ending {
    /// They are those of its node.
    Apply,
    /// They stay; this was the mode, if it had to be changed to get in.
    Leave(Option<u32>),
}

/// All directories of a restore; a child always stands behind the directory above it.
pub(super) struct Dirs {
    pub(super) infos: Vec<DirInfo>,
    target: Option<TargetDir>,
    handles: Mutex<Handles>,
}

/// Handles used lately, in two generations: when the younger is full, the older goes.
struct Handles {
    young: HashMap<u32, TargetDir>,
    old: HashMap<u32, TargetDir>,
    /// Of each generation.
    most: usize,
}

impl Handles {
    fn new(most: u64) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), most: (most / 2) as usize }
    }

    fn keep(&mut self, dir: u32, handle: TargetDir) {
        if self.young.len() >= self.most {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(dir, handle);
    }

    fn find(&mut self, dir: u32) -> Option<TargetDir> {
        if let Some(handle) = self.young.get(&dir) {
            return Some(handle.clone());
        }
        let handle = self.old.remove(&dir)?;
        self.keep(dir, handle.clone());
        Some(handle)
    }
}

impl Dirs {
    /// `target` is `None` in a rehearsal with a target that is not there.
    pub(super) fn new(target: Option<TargetDir>, node: Option<Node>, existed: bool) -> Self {
        let top = DirInfo { above: None, name: Vec::new(), node, made: true, existed, ending: Ending::Apply };
        let most = (snap_source::open_files_limit() / 4).clamp(MIN_HANDLES, MAX_HANDLES);
        Self { infos: vec![top], target, handles: Mutex::new(Handles::new(most)) }
    }

    pub(super) fn add(&mut self, above: u32, node: Node) -> u32 {
        let name = node.name.clone();
        let (above, node) = (Some(above), Some(node));
        let ending = Ending::Apply;
        self.infos.push(DirInfo { above, name, node, made: false, existed: false, ending });
        (self.infos.len() - 1) as u32
    }

    /// Path below the target, for messages.
    pub(super) fn path(&self, dir: u32, name: &[u8]) -> Vec<u8> {
        let mut parts = vec![name];
        let mut at = Some(dir);
        while let Some(info) = at.map(|at| &self.infos[at as usize]) {
            parts.push(&info.name);
            at = info.above;
        }
        parts
            .into_iter()
            .rev()
            .filter(|part| !part.is_empty())
            .fold(Vec::new(), |path, part| join(&path, part))
    }

    /// A handle of a directory that is made.
    pub(super) fn open(&self, dir: u32) -> io::Result<TargetDir> {
        let target = self.target.as_ref().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
        if dir == 0 {
            return Ok(target.clone());
        }
        // Up to the nearest handle, then down again: no recursion, a tree may be thousands of levels deep.
        let mut way = vec![dir];
        let mut handle = loop {
            let at = *way.last().expect("the way begins with the directory itself");
            if let Some(handle) = self.cached(at) {
                way.pop();
                break handle;
            }
            match self.infos[at as usize].above {
                Some(0) | None => break target.clone(),
                Some(above) => way.push(above),
            }
        };
        while let Some(at) = way.pop() {
            handle = handle.open_child(&self.infos[at as usize].name)?;
            self.keep(at, &handle);
        }
        Ok(handle)
    }

    pub(super) fn keep(&self, dir: u32, handle: &TargetDir) {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).keep(dir, handle.clone());
    }

    fn cached(&self, dir: u32) -> Option<TargetDir> {
        self.handles.lock().unwrap_or_else(PoisonError::into_inner).find(dir)
    }
}
