//! Whether the copies of each dataset are enough, and apart: 3-2-1, by evidence.
//!
//! Three steps: facts are gathered ([`CopyFacts`], by whoever can open copies; [`Whereabouts`], by [`Machine`] and from
//! URIs), [`groups`] says which datasets there are, and [`judge`] judges one. The last two are pure.

mod judge;
mod machine;
#[cfg(test)]
mod tests;
mod whereabouts;

pub use judge::{groups, judge};
pub use machine::Machine;
pub use whereabouts::{Evidence, EvidenceKind, Whereabouts};

use snap_format::{ObjectId, Time};

/// Where a source is that nobody says anything about.
pub const ONSITE: &str = "onsite";

/// What is known of a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CopyFacts {
    /// Its name.
    pub name: String,
    /// What it is kept on.
    pub media: String,
    /// Where that is, if anybody knows.
    pub location: Option<String>,
    /// The configuration says that nothing in it can be deleted.
    pub is_declared_immutable: bool,
    /// What it may share with others.
    pub whereabouts: Whereabouts,
    /// Its snapshots, or why it does not answer.
    pub snapshots: Result<Vec<SnapshotFacts>, String>,
}

/// What is known of a snapshot in a copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Its id, the same in every copy.
    pub id: ObjectId,
    /// What it is of.
    pub dataset: String,
    /// Where that was read.
    pub host: String,
    /// When.
    pub time: Time,
    /// Its time lies ahead of the store's.
    pub is_from_the_future: bool,
    /// What keeps it from being deleted from this copy.
    pub lock: LockFacts,
}

/// What the store itself says of all that a snapshot needs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum LockFacts {
    /// Nobody asked, or it cannot be asked.
    #[default]
    NotAsked,
    /// Something that it needs can be deleted, and why.
    Open(String),
    /// Nothing that it needs can be deleted before then.
    Until {
        /// When the first lock ends.
        time: Time,
        /// Nobody can end one before; else whoever may bypass governance can.
        is_final: bool,
    },
}

/// What is known of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFacts {
    /// What it is kept on.
    pub media: String,
    /// Where that is.
    pub location: String,
    /// What it may share with copies; empty if nobody knows.
    pub whereabouts: Whereabouts,
}

/// A dataset of a host, configured or found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// The dataset.
    pub dataset: String,
    /// The host; none if it is configured and was never backed up.
    pub host: Option<String>,
    /// Its newest snapshot in any copy.
    pub newest: Option<SnapshotFacts>,
}

/// How a dataset stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetPolicy {
    /// Which, and its newest snapshot.
    pub group: Group,
    /// Copies that hold the newest snapshot.
    pub holding: Vec<String>,
    /// Copies that answer and do not hold it.
    pub lacking: Vec<String>,
    /// Copies that do not answer.
    pub silent: Vec<String>,
    /// What source and holding copies are kept on, without repetition.
    pub media: Vec<String>,
    /// Holding copies that are not where the source is.
    pub elsewhere: Vec<String>,
    /// The best that a holding copy has.
    pub immutable: Immutable,
    /// Source and holding copies, those counted once that share anything.
    pub places: usize,
    /// What is wrong.
    pub findings: Vec<PolicyFinding>,
}

/// Whether a copy can be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Immutable {
    /// Nothing is said.
    No,
    /// The configuration says so, and nobody has tried.
    Declared,
    /// The store says so, of all that the newest snapshot needs; whoever may bypass governance can all the same.
    Governed(Time),
    /// The store says so, and nobody can change it.
    Until(Time),
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyFinding {
    /// What.
    pub code: PolicyCode,
    /// The source is concerned.
    pub with_source: bool,
    /// The copies that are concerned.
    pub copies: Vec<String>,
    /// What they share.
    pub evidence: Vec<Evidence>,
    /// Why, where code and evidence do not tell.
    pub why: Option<String>,
}

/// Kinds of [`PolicyFinding`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PolicyCode {
    /// What takes one of them away takes the other too.
    CoLocated,
    /// Fewer than two copies hold the newest snapshot.
    FewCopies,
    /// Source and copies are kept on one kind of medium.
    OneMedium,
    /// No copy is elsewhere.
    NoneElsewhere,
    /// A copy is called immutable, and something can be deleted from it.
    NotImmutable,
}

impl PolicyCode {
    /// The name in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CoLocated => "co-located",
            Self::FewCopies => "few-copies",
            Self::OneMedium => "one-medium",
            Self::NoneElsewhere => "none-elsewhere",
            Self::NotImmutable => "not-immutable",
        }
    }
}

impl PolicyFinding {
    /// In a sentence.
    pub fn message(&self) -> String {
        match self.code {
            PolicyCode::FewCopies if self.copies.is_empty() => {
                "no copy that answers holds a snapshot of it: 3-2-1 wants two".to_owned()
            }
            // One, since two are enough.
            PolicyCode::FewCopies => format!(
                "only the copy {} holds its newest snapshot: 3-2-1 wants two beside the source",
                self.copies.join(", ")
            ),
            PolicyCode::OneMedium => {
                "source and copies are on one kind of medium: 3-2-1 wants two".to_owned()
            }
            PolicyCode::NoneElsewhere => {
                "no copy is known to be elsewhere than the source: 3-2-1 wants one".to_owned()
            }
            PolicyCode::NotImmutable => format!(
                "the copy {} is called immutable, and its newest snapshot can be deleted: {}",
                self.copies.join(", "),
                self.why.as_deref().unwrap_or("it is not locked")
            ),
            PolicyCode::CoLocated => {
                let copies = self.copies.join(" and the copy ");
                let source = if self.with_source { "the source and " } else { "" };
                let shared: Vec<_> = self.evidence.iter().map(|it| format!("the same {it}")).collect();
                format!("{source}the copy {copies} are not apart: {}", shared.join(", "))
            }
        }
    }
}
