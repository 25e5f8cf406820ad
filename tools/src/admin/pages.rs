//! `completions` and `man`: what shells and manual pages need to know of the command lines, made
//! from the same definitions that parse them.

use base::fs::{OsFs, create_dir_all};
use clap::{Command, CommandFactory};

use super::args::{CommandLine, Completions, Man, Tool};
use super::failure::{Failure, Outcome};
use super::output::Output;
use crate::bench::args::Args;
use crate::{sst_dump, torture};

fn command_of(tool: Tool) -> Command {
    match tool {
        Tool::Siltstone => CommandLine::command(),
        Tool::SstDump => sst_dump::command(),
        Tool::LsmBench => Args::command(),
        Tool::SiltstoneTorture => torture::command(),
    }
}

/// Prints the completions of one tool for one shell.
pub(crate) fn completions(args: &Completions, output: &mut Output<'_>) -> Outcome<()> {
    let mut command = command_of(args.tool);
    let name = command.get_name().to_owned();
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, name, &mut script);
    output.raw(&script)
}

/// Prints the page of one tool, or writes the pages of all tools and commands into a directory.
pub(crate) fn man(args: &Man, output: &mut Output<'_>) -> Outcome<()> {
    let Some(dir) = &args.dir else {
        return output.raw(&page(command_of(args.tool))?);
    };
    create_dir_all(&OsFs, dir)?;
    for tool in Tool::ALL {
        clap_mangen::generate_to(command_of(tool), dir)
            .map_err(|error| Failure::trouble(format!("writing a page failed: {error}")))?;
    }
    Ok(())
}

fn page(command: Command) -> Outcome<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(command)
        .render(&mut page)
        .map_err(|error| Failure::trouble(format!("making a page failed: {error}")))?;
    Ok(page)
}
