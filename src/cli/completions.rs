//! `laptop-diff completions` and `laptop-diff man`: files for shells and for `man`, made from the definition of the commands.

use std::io::{self, Write};
use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::Shell;

use super::error::CliError;
use super::output::print;
use super::target;
use crate::base::FileError;

/// Print the completions of a shell
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff completions bash > ~/.local/share/bash-completion/completions/laptop-diff
  laptop-diff completions zsh > ~/.zfunc/_laptop-diff       # with `fpath+=~/.zfunc` in ~/.zshrc, before compinit
  laptop-diff completions fish > ~/.config/fish/completions/laptop-diff.fish")]
pub(super) struct Completions {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

/// Print the manual page, or write the pages of all commands
#[derive(Args)]
#[command(after_help = "\
Examples:
  laptop-diff man | man -l -
  laptop-diff man --out ~/.local/share/man/man1")]
pub(super) struct Man {
    /// Write a page for the program and one for each command into this folder
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
}

impl Completions {
    pub(super) fn execute(self, mut program: Command) -> Result<(), CliError> {
        let (name, mut text) = (program.get_name().to_owned(), Vec::new());
        clap_complete::generate(self.shell, &mut program, name, &mut text);
        print(&String::from_utf8_lossy(&text))
    }
}

impl Man {
    pub(super) fn execute(self, program: Command) -> Result<(), CliError> {
        let Some(out) = self.out else {
            let mut text = Vec::new();
            clap_mangen::Man::new(program).render(&mut text).map_err(FileError::at("stdout".as_ref()))?;
            return match io::stdout().write_all(&text) {
                Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
                    Err(FileError::at("stdout".as_ref())(error).into())
                }
                _ => Ok(()),
            };
        };
        target::folder(&out)?;
        std::fs::create_dir_all(&out).map_err(FileError::at(&out))?;
        clap_mangen::generate_to(program, &out).map_err(FileError::at(&out))?;
        print(&format!("{}\n", out.display()))
    }
}
