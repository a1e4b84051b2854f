use clap::CommandFactory;
use clap_complete::Shell;

use super::{Done, Outcome};
use crate::app::App;
use crate::args::Cli;

pub fn run(app: &App, shell: Shell) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "snap", &mut script);
    app.out.raw(&script);
    Ok(Done::plain())
}
