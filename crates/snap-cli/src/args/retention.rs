use std::str::FromStr;

use clap::Args;
use snap_engine::retention::{Policy, Span};

use super::FilterArgs;
use super::values::{self, Until};

/// How many to keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Count(pub u64);

impl FromStr for Count {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "unlimited" => Ok(Self(u64::MAX)),
            number => number.parse().map(Self).map_err(|_| "a number, or `unlimited`".to_owned()),
        }
    }
}

/// Tags that a snapshot must have all of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TagList(pub Vec<String>);

impl FromStr for TagList {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        text.split(',').map(values::tag).collect::<Result<_, _>>().map(Self)
    }
}

const FORGET_HELP: &str = "\
Snapshots are grouped by dataset and host. A snapshot stays if one of the rules keeps it, if it is pinned, or if it is the
newest of its key. Hours, days, ISO weeks, months and years are those of UTC. What is suspicious, such as snapshots with
times that do not fit or a flood of them, is judged apart, so that it displaces nothing.
Forgetting frees no space: what no snapshot needs any more stays until it is pruned (`snap prune`, or --prune).

Examples:
  snap forget --keep-daily 14 --keep-monthly 24 --dry-run
  snap forget --keep-last 3 --keep-within 7d --keep-tag keep
  snap forget --dataset orders --host db1 --keep-hourly 48 --keep-daily 30
  snap forget 4f2a 9c01                         these two";

/// What `forget` takes.
#[derive(Debug, Args)]
#[command(after_help = FORGET_HELP)]
pub struct ForgetArgs {
    /// Forget these instead of applying a policy: latest, latest~N or the first digits of an id.
    #[arg(value_name = "SNAPSHOT")]
    pub snapshots: Vec<String>,

    /// Keep the newest N.
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub keep_last: Option<Count>,

    /// Keep the newest of each of the last N hours that have any.
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub keep_hourly: Option<Count>,

    /// Keep the newest of each of the last N days that have any.
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub keep_daily: Option<Count>,

    /// Keep the newest of each of the last N weeks that have any.
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub keep_weekly: Option<Count>,

    /// Keep the newest of each of the last N months that have any.
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub keep_monthly: Option<Count>,

    /// Keep the newest of each of the last N years that have any.
    #[arg(long, value_name = "N", help_heading = "Policy")]
    pub keep_yearly: Option<Count>,

    /// Keep what is at most so much older than the newest: 7d, 2w, 1y6m (m are months), 48h.
    #[arg(long, value_name = "DURATION", help_heading = "Policy")]
    pub keep_within: Option<Span>,

    /// Keep what has this tag, or, separated by commas, all of these; if repeated, one of them is enough.
    #[arg(long, value_name = "TAG", help_heading = "Policy")]
    pub keep_tag: Vec<TagList>,

    /// Only show what would be forgotten, and why the rest stays.
    #[arg(long, short = 'n')]
    pub dry_run: bool,

    /// Prune afterwards: mark what no snapshot needs any more, delete what was marked the day before.
    #[arg(long)]
    pub prune: bool,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

impl ForgetArgs {
    /// The rules that are given.
    pub fn policy(&self) -> Policy {
        let count = |count: Option<Count>| count.unwrap_or_default().0;
        Policy {
            last: count(self.keep_last),
            hourly: count(self.keep_hourly),
            daily: count(self.keep_daily),
            weekly: count(self.keep_weekly),
            monthly: count(self.keep_monthly),
            yearly: count(self.keep_yearly),
            within: self.keep_within,
            tags: self.keep_tag.iter().map(|tags| tags.0.clone()).collect(),
        }
    }

    /// Whether a flag of the policy is given, whatever it says.
    pub fn has_policy(&self) -> bool {
        let counts = [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ];
        counts.iter().any(Option::is_some) || self.keep_within.is_some() || !self.keep_tag.is_empty()
    }
}

const PIN_HELP: &str = "\
A pinned snapshot stays, whatever a policy says, and is not forgotten by name either.

Examples:
  snap pin latest --reason 'before the migration' --until 90d
  snap pin 4f2a --reason 'audit of 2026' --until 2037-01-01
  snap pin --list
  snap pin --remove 4f2a";

/// What `pin` takes.
#[derive(Debug, Args)]
#[command(after_help = PIN_HELP)]
pub struct PinArgs {
    /// latest, latest~N or the first digits of an id.
    #[arg(value_name = "SNAPSHOT", required_unless_present = "list")]
    pub snapshots: Vec<String>,

    /// Why they must stay.
    #[arg(long, value_name = "TEXT", required_unless_present_any = ["list", "remove"])]
    pub reason: Option<String>,

    /// Until when: 2037-01-31 (to its end, UTC), 2037-01-31T12:00:00Z, or from now on 90d, 1y6m [default: for ever].
    #[arg(long, value_name = "TIME|DURATION")]
    pub until: Option<Until>,

    /// Take the pins away.
    #[arg(long, conflicts_with_all = ["reason", "until", "list"])]
    pub remove: bool,

    /// List the pins.
    #[arg(long, conflicts_with_all = ["reason", "until", "snapshots"])]
    pub list: bool,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

const TAG_HELP: &str = "\
Snapshots themselves are never changed: their tags are replaced by a signed record.

Examples:
  snap tag --add keep latest
  snap tag --remove nightly --add weekly 4f2a 9c01
  snap tag --set audit-2026 latest~3";

/// What `tag` takes.
#[derive(Debug, Args)]
#[command(after_help = TAG_HELP)]
pub struct TagArgs {
    /// latest, latest~N or the first digits of an id.
    #[arg(value_name = "SNAPSHOT", required = true)]
    pub snapshots: Vec<String>,

    /// Add this tag; may be repeated.
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = values::tag)]
    #[arg(required_unless_present_any = ["remove", "set"])]
    pub add: Vec<String>,

    /// Remove this tag; may be repeated.
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = values::tag)]
    pub remove: Vec<String>,

    /// Replace all tags by this one; may be repeated.
    #[arg(long, value_name = "TAG", value_delimiter = ',', value_parser = values::tag)]
    #[arg(conflicts_with_all = ["add", "remove"])]
    pub set: Vec<String>,

    /// Which snapshots are meant.
    #[command(flatten)]
    pub filter: FilterArgs,
}

impl TagArgs {
    /// What the tags `old` become.
    pub fn change(&self, old: &[String]) -> Vec<String> {
        let mut new: Vec<String> = Vec::new();
        let kept = old.iter().filter(|tag| self.set.is_empty() && !self.remove.contains(tag));
        for tag in kept.chain(&self.add).chain(&self.set) {
            if !new.contains(tag) {
                new.push(tag.clone());
            }
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(add: &[&str], remove: &[&str], set: &[&str], old: &[&str]) -> Vec<String> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let args = TagArgs {
            snapshots: Vec::new(),
            add: texts(add),
            remove: texts(remove),
            set: texts(set),
            filter: FilterArgs::default(),
        };
        args.change(&texts(old))
    }

    #[test]
    fn tags_change() {
        assert_eq!(change(&["c", "a"], &[], &[], &["a", "b"]), ["a", "b", "c"]);
        assert_eq!(change(&["c"], &["a", "x"], &[], &["a", "b"]), ["b", "c"]);
        assert_eq!(change(&["a"], &["a"], &[], &["a"]), ["a"]);
        assert_eq!(change(&[], &[], &["x", "y", "x"], &["a", "y"]), ["x", "y"]);
    }

    #[test]
    fn counts_and_tag_lists() {
        assert_eq!("7".parse(), Ok(Count(7)));
        assert_eq!("unlimited".parse(), Ok(Count(u64::MAX)));
        assert!("-1".parse::<Count>().is_err() && "".parse::<Count>().is_err());
        assert_eq!("a, b".parse(), Ok(TagList(vec!["a".into(), "b".into()])));
        assert!("a,,b".parse::<TagList>().is_err());
    }
}
