use snap_backend::ObjectName;
use snap_format::ObjectId;

/// Where objects of one sort lie (`docs/format.md` §2).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum Area {
    Epochs,
    Packs,
    Index,
    Snapshots,
    Records,
    Marks,
}

impl Area {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Epochs, Self::Packs, Self::Index, Self::Snapshots, Self::Records, Self::Marks];

    /// The prefix, with its slash.
    pub const fn prefix(self) -> &'static str {
        match self {
            Self::Epochs => "epochs/",
            Self::Packs => "packs/",
            Self::Index => "index/",
            Self::Snapshots => "snapshots/",
            Self::Records => "records/",
            Self::Marks => "marks/",
        }
    }
}

pub(crate) const CONFIG: &str = "config";
pub(crate) const CONFIG_BACKUP: &str = "config.bak";

/// The name of an object in the store.
pub fn object_name(area: Area, id: &ObjectId) -> ObjectName {
    let hex = id.to_hex();
    let name = match area {
        Area::Packs => format!("{}{}/{hex}", area.prefix(), &hex[..2]),
        _ => format!("{}{hex}", area.prefix()),
    };
    ObjectName::new(name).expect("hexadecimal names are valid")
}

pub(crate) fn fixed_name(name: &'static str) -> ObjectName {
    ObjectName::new(name).expect("the fixed names are valid")
}

/// The reverse of [`object_name`]; `None` for names that are not of this format.
pub fn parse_object_name(name: &str) -> Option<(Area, ObjectId)> {
    let area = Area::ALL.into_iter().find(|area| name.starts_with(area.prefix()))?;
    let rest = &name[area.prefix().len()..];
    let hex = match area {
        Area::Packs => rest.split_once('/').filter(|(shard, hex)| hex.get(..2) == Some(*shard))?.1,
        _ => rest,
    };
    Some((area, ObjectId::from_hex(hex)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back_and_foreign_ones_ignored() {
        let id = ObjectId([0xab; 32]);
        for area in Area::ALL {
            let name = object_name(area, &id);
            assert_eq!(parse_object_name(name.as_str()), Some((area, id)), "{name}");
        }
        let hex = id.to_hex();
        for foreign in [
            "config",
            "index/abc",
            &format!("packs/cd/{hex}"),
            &format!("packs/{hex}"),
            &format!("logs/{hex}"),
        ] {
            assert_eq!(parse_object_name(foreign), None, "{foreign}");
        }
    }
}
