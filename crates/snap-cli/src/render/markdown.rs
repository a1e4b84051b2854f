//! The command line reference, made from the clap tree.

use std::fmt::Write;

use clap::{Arg, ArgAction, Command};

/// The page of all commands.
pub fn reference(tree: &Command) -> String {
    let mut out = String::from("# The command line\n\nMade from `snap man --markdown`; do not edit.\n");
    section(tree, 2, &mut out);
    out
}

fn section(command: &Command, level: usize, out: &mut String) {
    let name = command.get_bin_name().unwrap_or_else(|| command.get_name());
    let _ = write!(out, "\n{} `{name}`\n", "#".repeat(level));
    if let Some(about) = command.get_about() {
        let _ = write!(out, "\n{about}\n");
    }
    let usage = command.clone().render_usage().to_string();
    let _ = write!(out, "\n```text\n{}\n```\n", usage.trim_start_matches("Usage: ").trim());
    let is_root = level == 2;
    let own: Vec<&Arg> = command
        .get_arguments()
        .filter(|arg| !arg.is_hide_set() && (is_root || !arg.is_global_set()))
        .filter(|arg| {
            !matches!(
                arg.get_action(),
                ArgAction::Help | ArgAction::Version | ArgAction::HelpShort | ArgAction::HelpLong
            )
        })
        .collect();
    if !own.is_empty() {
        out.push_str("\n| | |\n|---|---|\n");
        for arg in own {
            let _ = writeln!(out, "| `{}` | {} |", cell(&spelling(arg)), cell(&help(arg)));
        }
    }
    if let Some(after) = command.get_after_help() {
        let _ = write!(out, "\n```text\n{after}\n```\n");
    }
    for child in command.get_subcommands().filter(|child| !child.is_hide_set() && child.get_name() != "help")
    {
        section(child, (level + 1).min(4), out);
    }
}

fn spelling(arg: &Arg) -> String {
    let mut out = String::new();
    if let Some(short) = arg.get_short() {
        let _ = write!(out, "-{short}, ");
    }
    if let Some(long) = arg.get_long() {
        let _ = write!(out, "--{long}");
    }
    if arg.get_action().takes_values() || arg.is_positional() {
        let names: Vec<_> =
            arg.get_value_names().unwrap_or_default().iter().map(|name| name.as_str()).collect();
        let names = if names.is_empty() { arg.get_id().as_str().to_uppercase() } else { names.join(" ") };
        let gap = if out.is_empty() { "" } else { " " };
        let _ = write!(out, "{gap}{names}");
    }
    out
}

fn help(arg: &Arg) -> String {
    let mut out = arg.get_help().map(ToString::to_string).unwrap_or_default();
    let values: Vec<_> = arg.get_possible_values();
    if !values.is_empty() && arg.get_action().takes_values() {
        let names: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
        let _ = write!(out, ": {}", names.join(", "));
    }
    let has_default = arg.get_action().takes_values() && !arg.get_default_values().is_empty();
    if has_default && !arg.is_hide_default_value_set() {
        let values: Vec<_> = arg.get_default_values().iter().map(|value| value.to_string_lossy()).collect();
        let _ = write!(out, " [default: {}]", values.join(", "));
    }
    out
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}
