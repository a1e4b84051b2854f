use std::collections::BTreeSet;
use std::fmt;

use snap_backend::Site;

/// What two places can share, the most telling first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EvidenceKind {
    /// The number of the file system's device.
    Device,
    /// A disk, below partitions, mappings and loops.
    Disk,
    /// A bucket or container.
    Bucket,
    /// A server.
    Host,
    /// An account, or the key that opens it.
    Account,
    /// A region of a cloud.
    Region,
}

impl EvidenceKind {
    /// The name in JSON and in sentences.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Disk => "disk",
            Self::Bucket => "bucket",
            Self::Host => "host",
            Self::Account => "account",
            Self::Region => "region",
        }
    }
}

/// One thing that is known of a place. What two places both have, they may lose together.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Evidence {
    /// What sort of thing.
    pub kind: EvidenceKind,
    /// Which one.
    pub value: String,
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind.as_str(), self.value)
    }
}

/// All that is known of where something is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Whereabouts(BTreeSet<Evidence>);

impl Whereabouts {
    /// Nothing.
    pub fn unknown() -> Self {
        Self::default()
    }

    /// What a URI tells.
    pub fn of_site(site: &Site) -> Self {
        let mut out = Self::default();
        if let Some(bucket) = &site.bucket {
            let server = site.host.as_ref().map(|host| format!("{host}/")).unwrap_or_default();
            out.add(EvidenceKind::Bucket, format!("{}://{server}{bucket}", site.scheme));
        }
        let rest = [
            (EvidenceKind::Host, &site.host),
            (EvidenceKind::Region, &site.region),
            (EvidenceKind::Account, &site.account),
        ];
        for (kind, value) in rest {
            if let Some(value) = value {
                out.add(kind, value.clone());
            }
        }
        out
    }

    /// One thing more.
    pub fn add(&mut self, kind: EvidenceKind, value: impl Into<String>) {
        self.0.insert(Evidence { kind, value: value.into() });
    }

    /// All that another place has: a source of several paths is wherever one of them is.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// What both have, the most telling first.
    pub fn shared(&self, other: &Self) -> Vec<Evidence> {
        let mut out: Vec<_> = self.0.intersection(&other.0).cloned().collect();
        let has = |kind| out.iter().any(|it: &Evidence| it.kind == kind);
        // A device lies on its disk, a bucket on its server.
        let (device, bucket) = (has(EvidenceKind::Device), has(EvidenceKind::Bucket));
        out.retain(|it| match it.kind {
            EvidenceKind::Disk => !device,
            EvidenceKind::Host => !bucket,
            _ => true,
        });
        out
    }

    /// In order.
    pub fn iter(&self) -> impl Iterator<Item = &Evidence> {
        self.0.iter()
    }
}
