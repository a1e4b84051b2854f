use clap::{Command, CommandFactory};
use clap_mangen::Man;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::{Cli, ManArgs};
use crate::exit::Failure;
use crate::render::markdown;

pub fn run(app: &App, args: &ManArgs) -> Outcome {
    let mut tree = Cli::command();
    // Gives every command its full name and the global flags.
    tree.build();
    if args.markdown {
        app.out.raw(markdown::reference(&tree).as_bytes());
        return Ok(Done::plain());
    }
    if let Some(dir) = &args.dir {
        let failed = |error| Failure::io(format!("cannot write manual pages to {}", dir.display()), &error);
        std::fs::create_dir_all(dir).map_err(failed)?;
        let mut pages = Vec::new();
        collect(&tree, &mut pages);
        for command in &pages {
            std::fs::write(dir.join(format!("{}.1", page_name(command))), page(command)).map_err(failed)?;
        }
        app.out.done(&format!("wrote {} pages to {}", pages.len(), dir.display()));
        return Ok(Done::plain());
    }
    let mut command = &tree;
    for name in &args.command {
        command = command.find_subcommand(name).ok_or_else(|| {
            Failure::usage(format!("there is no command {}", args.command.join(" ")))
                .hint("`snap --help` lists them")
        })?;
    }
    app.out.raw(&page(command));
    Ok(Done::plain())
}

fn collect<'a>(command: &'a Command, out: &mut Vec<&'a Command>) {
    out.push(command);
    for child in command.get_subcommands().filter(|child| child.get_name() != "help") {
        collect(child, out);
    }
}

/// `snap-key-add`.
fn page_name(command: &Command) -> String {
    command.get_bin_name().unwrap_or("snap").replace(' ', "-")
}

fn page(command: &Command) -> Vec<u8> {
    let mut out = Vec::new();
    Man::new(command.clone())
        .title(page_name(command))
        .render(&mut out)
        .expect("writing to memory does not fail");
    out
}
