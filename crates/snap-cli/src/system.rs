//! What is asked of the machine: environment, directories, host name, device numbers.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::process::{Resource, getrlimit, setrlimit};
use snap_format::Time;

/// The environment as it was at the start. Variables that are set to nothing count as unset.
#[derive(Default)]
pub struct Env(BTreeMap<String, OsString>);

impl Env {
    /// The process's own.
    pub fn of_process() -> Self {
        std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value))).collect()
    }

    /// A variable's value.
    pub fn get(&self, name: &str) -> Option<&OsString> {
        self.0.get(name)
    }

    /// A variable's value, if it is UTF-8.
    pub fn text(&self, name: &str) -> Option<String> {
        self.get(name).and_then(|value| value.to_str()).map(str::to_owned)
    }

    fn directory(&self, variable: &str, below_home: &str) -> Option<PathBuf> {
        // The XDG base directory specification: relative paths are to be ignored.
        let own = self.get(variable).map(PathBuf::from).filter(|path| path.is_absolute());
        own.or_else(|| Some(PathBuf::from(self.get("HOME")?).join(below_home)))
    }

    /// The user's data directory of snap.
    pub fn data_dir(&self) -> Option<PathBuf> {
        Some(self.directory("XDG_DATA_HOME", ".local/share")?.join("snap"))
    }

    /// The user's configuration directory of snap.
    pub fn config_dir(&self) -> Option<PathBuf> {
        Some(self.directory("XDG_CONFIG_HOME", ".config")?.join("snap"))
    }

    /// The user's cache directory of snap.
    pub fn cache_dir(&self) -> Option<PathBuf> {
        Some(self.directory("XDG_CACHE_HOME", ".cache")?.join("snap"))
    }

    /// Whether a program is in the search path.
    pub fn finds_program(&self, name: &str) -> bool {
        let path = self.get("PATH");
        path.is_some_and(|path| std::env::split_paths(path).any(|dir| dir.join(name).is_file()))
    }
}

impl FromIterator<(String, OsString)> for Env {
    fn from_iter<T: IntoIterator<Item = (String, OsString)>>(vars: T) -> Self {
        Self(vars.into_iter().filter(|(_, value)| !value.is_empty()).collect())
    }
}

/// The machine's name.
pub fn host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if name.is_empty() { "localhost".to_owned() } else { name }
}

/// The time, by the machine's clock.
pub fn now() -> Time {
    let now = jiff::Timestamp::now();
    let (secs, nanos) = (now.as_second(), now.subsec_nanosecond());
    if nanos < 0 {
        return Time::new(secs - 1, (nanos + 1_000_000_000).unsigned_abs());
    }
    Time::new(secs, nanos.unsigned_abs())
}

/// Device and inode of what is at `path`, links followed.
pub fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

/// Makes a directory and its parents, for this user alone.
pub fn make_private_dir(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Raises the number of files that may be open to what the system allows.
pub fn raise_open_files() {
    let mut limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        limit.current = limit.maximum;
        let _ = setrlimit(Resource::Nofile, limit);
    }
}

/// How many threads compute.
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(2, std::num::NonZero::get)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn env(vars: &[(&str, &str)]) -> Env {
        vars.iter().map(|(name, value)| ((*name).to_owned(), (*value).into())).collect()
    }

    #[test]
    fn directories_follow_the_xdg_specification() {
        let home = env(&[("HOME", "/home/me")]);
        assert_eq!(home.data_dir().unwrap(), Path::new("/home/me/.local/share/snap"));
        assert_eq!(home.cache_dir().unwrap(), Path::new("/home/me/.cache/snap"));
        let own = env(&[("HOME", "/home/me"), ("XDG_DATA_HOME", "/data"), ("XDG_CACHE_HOME", "relative")]);
        assert_eq!(own.data_dir().unwrap(), Path::new("/data/snap"));
        assert_eq!(own.cache_dir().unwrap(), Path::new("/home/me/.cache/snap"));
        assert_eq!(home.config_dir().unwrap(), Path::new("/home/me/.config/snap"));
        assert_eq!(env(&[]).data_dir(), None);
    }

    #[test]
    fn empty_variables_are_unset() {
        assert_eq!(env(&[("SNAP_REPO", "")]).get("SNAP_REPO"), None);
    }
}
