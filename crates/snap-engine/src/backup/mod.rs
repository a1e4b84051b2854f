//! Backing up: a source becomes a snapshot.

mod copies;
mod dir;
mod dir_state;
mod entries;
mod files;
mod plan;
mod queue;
mod run;
mod stream;
mod streams;
mod tree_cache;
mod tree_fetch;
pub(crate) mod tree_look;
mod tree_store;
mod trees;

use std::ffi::OsStr;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

use snap_chunker::CutKey;
use snap_format::{BlobId, Node, NodeKind, ObjectId, Summary, Time};
use snap_repo::{Cache, Lagging, NewSnapshot, Repository, Scratch, Snapshot, Writer, WriterOptions};
use snap_source::{Filter, FilterOptions, Names, StreamSource};

pub use self::copies::Lag;
use self::copies::{Loaded, load_all};
use self::dir_state::{DirState, Expected};
use self::plan::Plan;
use self::queue::Queue;
use self::run::{Counts, Run, Worker};
use self::tree_cache::{Trees, cache_name};
use crate::{Context, EngineError, Event, Phase, Result};

/// Where a run reads from.
pub enum BackupSource {
    /// Files and directories.
    Paths {
        /// As given; made absolute lexically against `working_dir`.
        paths: Vec<PathBuf>,
        /// Absolute.
        working_dir: PathBuf,
        /// What to leave out.
        filter: FilterOptions,
        /// Stored under this absolute path instead of its own; one path only.
        as_path: Option<PathBuf>,
    },
    /// A stream that becomes one file in the root.
    Stream {
        /// The file's name.
        name: String,
        /// The bytes.
        stream: Box<dyn CommandStream>,
    },
    /// Streams that become files below the root: a database.
    Streams(Arc<dyn StreamSource>),
}

/// The bytes of a stream, and whether they are all.
pub trait CommandStream: Read + Send {
    /// Called after the last byte: an error (the command failed) means that no snapshot is made.
    fn finish(&mut self) -> std::result::Result<(), String>;
}

/// What to back up and how.
pub struct BackupOptions {
    /// Where from.
    pub source: BackupSource,
    /// Dataset name.
    pub dataset: String,
    /// Host name.
    pub host: String,
    /// Tags.
    pub tags: Vec<String>,
    /// Label.
    pub label: String,
    /// When the run begins.
    pub time: Time,
    /// zstd level, 1 to 19.
    pub level: i32,
    /// Threads that read, if more than the context's.
    pub readers: Option<usize>,
    /// Make no snapshot if nothing differs from the parent.
    pub skip_if_unchanged: bool,
    /// Read and count, write nothing.
    pub dry_run: bool,
}

/// What a run did.
#[derive(Debug, Clone, Default)]
pub struct BackupReport {
    /// The snapshot, unless skipped or a dry run.
    pub snapshot: Option<ObjectId>,
    /// What it was compared with.
    pub parent: Option<ObjectId>,
    /// Counters; `duration_ms` is left 0.
    pub summary: Summary,
    /// Given paths that could not be read, as bytes: exit code 3.
    pub missing_sources: Vec<Vec<u8>>,
    /// Copies that could not be written; all others have the snapshot.
    pub lagging: Vec<Lag>,
}

/// Backs up. The order is that of `snap-repo`: nothing is named before it is stored.
pub fn backup(
    repository: &Repository,
    cache: Option<&Cache>,
    options: BackupOptions,
    context: Context<'_>,
) -> Result<BackupReport> {
    backup_copies(std::slice::from_ref(repository), cache, options, context)
}

/// Backs up into several copies at once: the source is read, and what is new sealed, once. A copy that fails is left behind
/// and told of in the report; the run fails with the last one. The first is compared with, and tells what came before.
pub fn backup_copies(
    copies: &[Repository],
    cache: Option<&Cache>,
    options: BackupOptions,
    context: Context<'_>,
) -> Result<BackupReport> {
    backup_in_packs(copies, cache, options, context, WriterOptions::default().pack_target)
}

/// As [`backup_copies()`], with packs of another size: for tests that want many of little data.
#[doc(hidden)]
pub fn backup_in_packs(
    copies: &[Repository],
    cache: Option<&Cache>,
    options: BackupOptions,
    context: Context<'_>,
    pack_target: usize,
) -> Result<BackupReport> {
    let lagging = Arc::<Lagging>::default();
    let outcome = write_copies(copies, &lagging, cache, options, context, pack_target);
    let lagging = copies::told(&lagging);
    match outcome {
        Ok(report) => Ok(BackupReport { lagging, ..report }),
        Err(error) => {
            for lag in lagging {
                let text = format!("{}: {}", copies[lag.copy].backend().location(), lag.why);
                context.observer.event(Event::Warning { text: &text });
            }
            Err(error)
        }
    }
}

fn write_copies(
    copies: &[Repository],
    lagging: &Arc<Lagging>,
    cache: Option<&Cache>,
    options: BackupOptions,
    context: Context<'_>,
    pack_target: usize,
) -> Result<BackupReport> {
    context.progress.begin(Phase::Opening, 0, 0);
    let threads = context.threads.max(options.readers.unwrap_or(1));
    for repository in copies {
        repository.keyring().require_writer("backup")?;
        cache.iter().for_each(|cache| repository.remember_in(cache));
    }
    let prepared = Prepared::new(options.source, context)?;
    let Loaded { first, mut members, set, findings } = load_all(copies, cache, lagging)?;
    for finding in findings.iter().chain(&set.findings) {
        context.observer.event(Event::Finding(finding));
    }
    for text in members.iter().filter_map(|member| member.index.cache_failure()) {
        context.observer.event(Event::Warning { text: &text });
    }
    let history = History::find(&first, &set.snapshots, &options.dataset, &options.host);
    if options.dry_run {
        members.iter_mut().for_each(|member| member.repository = member.repository.rehearsal());
    }
    let cache = cache.filter(|_| !options.dry_run);
    let backends: Vec<_> = members.iter().map(|member| Arc::clone(member.repository.backend())).collect();
    let writer_options = WriterOptions {
        pack_target,
        level: options.level,
        now: Some(options.time),
        ..copies::writer_options(&backends, context, threads)
    };
    let writer = Writer::begin_all(members, Arc::clone(lagging), cache, writer_options)?;
    note_unreadable_packs(&writer, context);
    let mut trees = Trees::open(cache, &cache_name(&options.dataset, &options.host), &writer);
    let (parent, parent_root) = history.parent(&first, trees.cached());
    trees.expect(parent_root, options.level);
    let cut_key = CutKey::new(*writer.domain().cut);
    let run = Run {
        context,
        writer,
        filter: prepared.filter,
        names: Names::new(),
        trees,
        counts: Counts::default(),
        queue: Queue::new(segments(context, threads)),
        cut_key,
        level: options.level,
        root: Mutex::default(),
        failure: Mutex::default(),
    };
    let total = parent.and_then(|id| set.snapshots.iter().find(|snapshot| snapshot.id == id));
    let total = total.map(|snapshot| snapshot.envelope.summary).unwrap_or_default();
    context.progress.begin(Phase::Storing, total.files, total.source_bytes);
    start(&run, prepared.source, parent_root, options.time, options.level)?;
    let root = run.work(threads, parent_root)?;
    let details = prepared.streams.as_deref().map(streams::finish).transpose()?;
    context.progress.begin(Phase::Finishing, 0, 0);
    let Run { writer, trees, counts, .. } = run;
    let flushed = writer.finish()?;
    let summary = counts.summary(flushed.stats());
    let missing_sources = prepared.missing;
    let mut report = BackupReport { parent, summary, missing_sources, ..BackupReport::default() };
    if options.dry_run || options.skip_if_unchanged && parent_root == Some(root) {
        flushed.abandon();
        if let Some(parent) = parent.filter(|_| !options.dry_run) {
            keep_trees(trees, parent, root, context);
        }
        return Ok(report);
    }
    let id = flushed.commit(NewSnapshot {
        time: options.time,
        dataset: options.dataset,
        host: options.host,
        previous: history.previous,
        tags: options.tags,
        label: options.label,
        summary,
        root,
        paths: prepared.paths,
        details,
    })?;
    report.snapshot = Some(id);
    keep_trees(trees, id, root, context);
    Ok(report)
}

/// Leaves the trees of a snapshot to the next run.
fn keep_trees(trees: Trees, snapshot: ObjectId, root: BlobId, context: Context<'_>) {
    if let Err(error) = trees.commit(snapshot, root) {
        let text =
            format!("the local cache cannot be written ({error}); the next run reads more than it needs to");
        context.observer.event(Event::Warning { text: &text });
    }
}

/// Nothing is lost by that, and nobody who may not read packs can do anything about it.
fn note_unreadable_packs(writer: &Writer, context: Context<'_>) {
    let count = writer.stats().unreadable_packs.load(Ordering::Relaxed);
    if count > 0 {
        let text = format!(
            "packs in no index, left by interrupted runs of any key: {count}. These credentials may not read packs, so \
             none is taken over; what an interrupted run of this key stored there is stored again"
        );
        context.note(b"", &text);
    }
}

/// Pieces of large files that may be held: one for each thread that reads, and one more, within half of the memory.
fn segments(context: Context<'_>, threads: usize) -> usize {
    let affordable = usize::try_from(context.memory_bytes / 2 / queue::SEGMENT as u64).unwrap_or(usize::MAX);
    (threads + 1).min(affordable.max(context.threads + 1))
}

/// The sources, looked at.
struct Prepared {
    source: PreparedSource,
    filter: Filter,
    paths: Vec<Vec<u8>>,
    missing: Vec<Vec<u8>>,
    /// To be asked at the end.
    streams: Option<Arc<dyn StreamSource>>,
}

enum PreparedSource {
    Plan(Plan),
    Stream(String, Box<dyn CommandStream>),
    Streams(Arc<dyn StreamSource>),
}

impl Prepared {
    fn new(source: BackupSource, context: Context<'_>) -> Result<Self> {
        let pattern = |error: snap_source::FilterError| EngineError::Pattern(error.to_string());
        match source {
            BackupSource::Paths { paths, working_dir, mut filter, as_path } => {
                if as_path.is_some() && paths.len() != 1 {
                    return Err(EngineError::Usage("--as-path needs exactly one path".into()));
                }
                let mut plan = Plan::new(&paths, &working_dir, as_path.as_deref(), context.observer)?;
                filter.roots = plan.paths.iter().map(|path| PathBuf::from(OsStr::from_bytes(path))).collect();
                let (paths, missing) = (plan.paths.clone(), std::mem::take(&mut plan.missing));
                let filter = Filter::new(filter).map_err(pattern)?;
                Ok(Self { source: PreparedSource::Plan(plan), filter, paths, missing, streams: None })
            }
            BackupSource::Stream { name, stream } => {
                if !Node::name_is_safe(name.as_bytes()) {
                    return Err(EngineError::Usage(format!("{name:?} cannot be the name of a file")));
                }
                let paths = vec![format!("/{name}").into_bytes()];
                let filter = Filter::new(FilterOptions::default()).map_err(pattern)?;
                let source = PreparedSource::Stream(name, stream);
                Ok(Self { source, filter, paths, missing: Vec::new(), streams: None })
            }
            BackupSource::Streams(set) => {
                let paths = streams::tops(&set.entries());
                let filter = Filter::new(FilterOptions::default()).map_err(pattern)?;
                let source = PreparedSource::Streams(Arc::clone(&set));
                Ok(Self { source, filter, paths, missing: Vec::new(), streams: Some(set) })
            }
        }
    }
}

fn start(
    run: &Run<'_>,
    source: PreparedSource,
    parent_root: Option<BlobId>,
    time: Time,
    level: i32,
) -> Result<()> {
    let scratch = Scratch::new(level).map_err(|error| EngineError::io("preparing", b"compression", error))?;
    let mut worker = Worker { scratch, buffer: Vec::new(), cuts: Vec::new() };
    let parent_root = parent_root.map(|tree| Node::new(Vec::new(), NodeKind::Dir { tree }, Time::default()));
    match source {
        PreparedSource::Plan(plan) => plan.start(run, parent_root, &mut worker),
        PreparedSource::Stream(name, stream) => {
            let top = DirState::new(b"/".to_vec(), None);
            top.expect(Expected::waiting(1), None);
            let mut item = plan::stream_item(name.as_bytes(), time, snap_source::process_owner());
            item.profile = plan::stream_profile(run, parent_root.as_ref(), &name, &mut worker);
            stream::start_stream(run, &top, item, stream);
            dir_state::listed(run, &top, &mut worker.scratch)
        }
        PreparedSource::Streams(set) => streams::start(run, &set, parent_root, time, &mut worker),
    }
}

/// What came before of the same dataset and host.
struct History {
    /// Of the same slot: the chain that `check` follows.
    previous: Option<ObjectId>,
    /// Of the same domain: what a reader compares with.
    newest: Option<(ObjectId, BlobId)>,
}

impl History {
    fn find(repository: &Repository, snapshots: &[Snapshot], dataset: &str, host: &str) -> Self {
        let keyring = repository.keyring();
        let mut same: Vec<&Snapshot> = snapshots
            .iter()
            .filter(|snapshot| snapshot.envelope.dataset == dataset && snapshot.envelope.host == host)
            .collect();
        // As for `latest`: what lies ahead is not what came before while another is there.
        same.sort_by_key(|snapshot| !snapshot.is_from_the_future());
        let previous =
            same.iter().rev().find(|snapshot| snapshot.slot == keyring.slot()).map(|snapshot| snapshot.id);
        let own_domain =
            same.iter().rev().filter(|snapshot| snapshot.envelope.domain == keyring.own_domain());
        let newest = own_domain
            .filter(|_| keyring.can_read())
            .find_map(|snapshot| Some((snapshot.id, repository.open_body(snapshot).ok()?.root)));
        Self { previous, newest }
    }

    /// The snapshot to compare with and its root: for a slot that cannot read, what its cache has kept.
    fn parent(
        &self,
        repository: &Repository,
        cached: Option<(ObjectId, BlobId)>,
    ) -> (Option<ObjectId>, Option<BlobId>) {
        let found = if repository.keyring().can_read() { self.newest } else { cached };
        found.unzip()
    }
}
