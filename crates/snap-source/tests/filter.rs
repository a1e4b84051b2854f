//! What is left out of a backup, and what is chosen from one.

#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod common;

use std::fs;
use std::path::PathBuf;

use common::target;
use snap_source::{Filter, FilterError, FilterOptions, PathMatcher, SourceDir, Verdict};

fn strings(lines: &[&str]) -> Vec<String> {
    lines.iter().map(|line| (*line).to_owned()).collect()
}

fn filter(lines: &[&str]) -> Filter {
    Filter::new(FilterOptions {
        roots: vec![PathBuf::from("/srv/app"), PathBuf::from("/home/[x] y/")],
        exclude: strings(lines),
        ..FilterOptions::default()
    })
    .unwrap()
}

#[test]
fn patterns_mean_what_they_mean_in_gitignore() {
    // Lines, path, whether it is a directory, whether it is left out.
    let table: &[(&[&str], &str, bool, bool)] = &[
        (&[], "/srv/app/a", false, false),
        (&["*.tmp"], "/srv/app/a.tmp", false, true),
        (&["*.tmp"], "/srv/app/deep/er/a.tmp", false, true),
        (&["*.tmp"], "/srv/app/a.tmp.txt", false, false),
        (&["*.tmp", "!keep.tmp"], "/srv/app/x/keep.tmp", false, false),
        (&["!keep.tmp", "*.tmp"], "/srv/app/x/keep.tmp", false, true),
        (&["cache/"], "/srv/app/x/cache", true, true),
        (&["cache/"], "/srv/app/x/cache", false, false),
        (&["cache"], "/srv/app/x/cache", false, true),
        (&["cache"], "/srv/app/x/cached", false, false),
        (&["/srv/app/log"], "/srv/app/log", true, true),
        (&["/srv/app/log"], "/srv/app/x/srv/app/log", true, false),
        (&["/log"], "/srv/app/log", true, false),
        (&["/srv/*/log"], "/srv/app/log", true, true),
        (&["/srv/*/log"], "/srv/app/x/log", true, false),
        (&["/srv/**/log"], "/srv/app/x/y/log", true, true),
        (&["a/b"], "/srv/app/a/b", false, true),
        (&["a/b"], "/srv/app/x/a/b", false, false),
        (&["a/b"], "/home/[x] y/a/b", false, true),
        (&["a/b"], "/home/x y/a/b", false, false),
        (&["a/b/"], "/srv/app/a/b", true, true),
        (&["a/b/"], "/srv/app/a/b", false, false),
        (&["**/a/b"], "/srv/app/x/a/b", false, true),
        (&["a/*", "!a/b"], "/srv/app/a/b", false, false),
        (&["a/*", "!a/b"], "/srv/app/a/c", false, true),
        (&["a/**"], "/srv/app/a", true, false),
        (&["a/**"], "/srv/app/a/x/y", false, true),
        (&["# a"], "/srv/app/# a", false, false),
        (&["\\#a"], "/srv/app/#a", false, true),
        (&["\\!a"], "/srv/app/!a", false, true),
        (&["a  ", "  "], "/srv/app/a", false, true),
        (&["a\\ "], "/srv/app/a ", false, true),
        (&["[ab].txt"], "/srv/app/b.txt", false, true),
        (&["x?z"], "/srv/app/xyz", false, true),
        (&["*"], "/srv/app/.hidden", false, true),
        (&["é*"], "/srv/app/été", false, true),
    ];
    for (lines, path, is_dir, expected) in table {
        let found = filter(lines).excludes(path.as_bytes(), *is_dir);
        assert_eq!(found, *expected, "{lines:?} on {path} (directory: {is_dir})");
    }
}

#[test]
fn names_that_are_not_text_can_be_matched() {
    assert!(filter(&["*.tmp"]).excludes(b"/srv/app/\xff\n.tmp", false));
    assert!(!filter(&["*.tmp"]).excludes(b"/srv/app/\xff", false));
    assert!(!filter(&[]).has_patterns());
}

#[test]
fn files_of_patterns_come_before_the_patterns_given() {
    let (directory, _) = target();
    let path = directory.path().join("excludes");
    fs::write(&path, "\u{feff}# comment\r\n\r\n*.log\r\n*.tmp\r\n").unwrap();
    let options = |path| FilterOptions {
        exclude: strings(&["!a.log"]),
        exclude_files: vec![path],
        ..FilterOptions::default()
    };
    let filter = Filter::new(options(path.clone())).unwrap();
    assert!(filter.excludes(b"/x/b.log", false) && filter.excludes(b"/x/b.tmp", false));
    assert!(!filter.excludes(b"/x/a.log", false));
    assert!(matches!(Filter::new(options(path.join("no"))), Err(FilterError::File { .. })));
    fs::write(&path, b"caf\xe9\n").unwrap();
    assert!(matches!(Filter::new(options(path)), Err(FilterError::File { .. })));
}

#[test]
fn what_is_wrong_is_named() {
    let wrong = FilterOptions { exclude: strings(&["a", "b{"]), ..FilterOptions::default() };
    match Filter::new(wrong).unwrap_err() {
        FilterError::Pattern { line, .. } => assert_eq!(line, "b{"),
        other => panic!("{other}"),
    }
    for marker in ["", "a/b", ":header", ".."] {
        let options = FilterOptions { exclude_if_present: strings(&[marker]), ..FilterOptions::default() };
        assert!(matches!(Filter::new(options), Err(FilterError::Marker { .. })), "{marker}");
    }
}

#[test]
fn a_marker_leaves_out_its_directory_but_for_itself() {
    let (directory, made) = target();
    let marker_of = |options: &FilterOptions| {
        let filter = Filter::new(options.clone()).unwrap();
        let dir = made.as_source();
        let entries = dir.entries().unwrap();
        let marker = filter.marker(&dir, &entries).map(<[u8]>::to_vec);
        assert_eq!(filter.marks_excluded(&dir, &entries), marker.is_some());
        marker.map(|name| String::from_utf8(name).unwrap())
    };
    let write = |name: &str, content: &str| fs::write(directory.path().join(name), content).unwrap();
    let cachedir = FilterOptions { cachedir_tag: true, ..FilterOptions::default() };
    let nobackup =
        FilterOptions { exclude_if_present: strings(&[".no", "tag:yes:no"]), ..FilterOptions::default() };

    write("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc5");
    assert_eq!(marker_of(&cachedir), None, "cut short");
    write("CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# a cache");
    assert_eq!(marker_of(&cachedir).as_deref(), Some("CACHEDIR.TAG"));
    assert_eq!(marker_of(&FilterOptions::default()), None);

    assert_eq!(marker_of(&nobackup), None);
    write("tag", "yes");
    assert_eq!(marker_of(&nobackup), None);
    write("tag", "yes:no and more");
    assert_eq!(marker_of(&nobackup).as_deref(), Some("tag"));
    made.make_child(b".no").unwrap();
    assert_eq!(marker_of(&nobackup).as_deref(), Some(".no"), "of any type, where no content is asked for");
}

#[test]
fn other_file_systems_are_told_apart() {
    let stat = |path: &str| SourceDir::open(path.as_ref()).unwrap().stat().unwrap();
    let (root, other, same) = (stat("/"), stat("/proc"), stat("/"));
    for one_file_system in [true, false] {
        let filter = Filter::new(FilterOptions { one_file_system, ..FilterOptions::default() }).unwrap();
        assert_eq!(filter.crosses_device(&root, &other), one_file_system);
        assert!(!filter.crosses_device(&root, &same));
    }
}

#[test]
fn the_repository_is_known_by_its_inode() {
    let (_directory, made) = target();
    let repository = made.make_child(b"repository").unwrap().0.stat().unwrap();
    let options =
        FilterOptions { protected: vec![(repository.device, repository.inode)], ..FilterOptions::default() };
    let filter = Filter::new(options).unwrap();
    let (other, _) = target();
    made.rename(b"repository", &made, b"renamed").unwrap();
    assert!(filter.is_protected(&made.stat_child(b"renamed").unwrap().unwrap()));
    assert!(!filter.is_protected(&made.stat().unwrap()));
    drop(other);
}

#[test]
fn a_restore_takes_skips_or_looks_further() {
    /// Includes, excludes, path, whether it is a directory, verdict.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a str, bool, Verdict);
    use Verdict::{Descend, Skip, Take};
    let table: &[Row<'_>] = &[
        (&[], &[], "/srv", true, Take),
        (&[], &["*.log"], "/srv/a.log", false, Skip),
        (&[], &["/srv/log"], "/srv/log/a/b", false, Skip),
        (&["/srv/app"], &[], "/", true, Descend),
        (&["/srv/app"], &[], "/srv", true, Descend),
        (&["/srv/app"], &[], "/sr", true, Skip),
        (&["/srv/app"], &[], "/srv/app", true, Take),
        (&["/srv/app"], &[], "/srv/app/x/y", false, Take),
        (&["/srv/app"], &[], "/srv/application", true, Skip),
        (&["/srv/app"], &[], "/srv", false, Skip),
        (&["/srv/app/"], &[], "/srv/app", false, Skip),
        (&["/srv/app"], &["*.log"], "/srv/app/a.log", false, Skip),
        (&["/srv/app"], &["app/log"], "/srv/app/log", true, Take),
        (&["srv/app"], &[], "/srv/app/a", false, Take),
        (&["/srv/*/etc"], &[], "/srv/app", true, Descend),
        (&["/srv/*/etc"], &[], "/usr", true, Skip),
        (&["/srv/*/etc"], &[], "/srv/app/etc/x", false, Take),
        (&["*.conf"], &[], "/any/where", true, Descend),
        (&["*.conf"], &[], "/any/where/a.conf", false, Take),
        (&["*.conf"], &[], "/any/where/a.txt", false, Skip),
        (&["/srv", "!/srv/tmp"], &[], "/srv/tmp/x", false, Skip),
        (&["/srv", "!/srv/tmp"], &[], "/srv/x", false, Take),
    ];
    for (include, exclude, path, is_dir, expected) in table {
        let matcher = PathMatcher::new(&strings(include), &strings(exclude)).unwrap();
        let found = matcher.matches(path.as_bytes(), *is_dir);
        assert_eq!(found, *expected, "+{include:?} -{exclude:?} on {path}");
        assert_eq!(matcher.takes_all(), include.is_empty() && exclude.is_empty());
    }
    let below = PathMatcher::below(&["/srv/app".into()], &strings(&["etc/a"]), &[]).unwrap();
    assert_eq!(below.matches(b"/srv/app/etc/a", false), Take);
    assert_eq!(below.matches(b"/etc/a", false), Skip);
    assert_eq!(below.matches(b"/srv/app/lib", true), Skip);
}
