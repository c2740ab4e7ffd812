//! The command line: one file per command. Data goes to stdout, messages to stderr.

mod cache;
mod cancel;
mod clean;
mod completions;
mod doctor;
mod ending;
mod error;
mod export;
mod generate;
mod graph;
mod init;
mod inspect;
mod job;
mod list;
mod options;
mod output;
mod plan;
mod ranks;
mod recorded;
mod report;
mod run;
mod run_folder;
mod runs;
mod schema;
mod status;
mod subject;
mod submit;
mod sweep;
mod target;
mod told;
mod verify;
mod why;

use std::io::{self, Write};
use std::panic;
use std::process::ExitCode as ProcessExitCode;

use clap::{CommandFactory, Parser, Subcommand};

use crate::base::{mapping, shown};
use crate::run::ExitCode;
use error::CliError;

/// The exit codes, which `--help` of the whole program ends with.
fn exit_codes() -> String {
    let mut text = String::from("Exit codes:\n");
    for code in ExitCode::ALL {
        text.push_str(&format!("  {:>3}  {}\n", code.number(), code.meaning()));
    }
    text
}

/// Compress the U-Nets of Stable Diffusion: prune layers in one shot, retrain by distillation, measure, report.
#[derive(Parser)]
#[command(name = "laptop-diff", version, after_help = exit_codes(), max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Init(init::Init),
    Run(run::Run),
    Sweep(sweep::Sweep),
    Plan(plan::PlanCommand),
    Graph(graph::GraphCommand),
    Report(report::Report),
    Runs(runs::Runs),
    Status(status::StatusCommand),
    Cancel(cancel::Cancel),
    Verify(verify::Verify),
    Why(why::Why),
    Clean(clean::Clean),
    Export(export::ExportCommand),
    Inspect(inspect::Inspect),
    Doctor(doctor::Doctor),
    Generate(generate::Generate),
    List(list::List),
    Cache(cache::CacheCommand),
    Schema(schema::Schema),
    Completions(completions::Completions),
    Man(completions::Man),
    #[command(hide = true)]
    Job(job::JobCommand),
}

/// Runs the program; the exit codes are those of [`ExitCode`].
pub fn main() -> ProcessExitCode {
    panic::set_hook(Box::new(|info| {
        // Where stderr is closed, `eprintln!` would panic again and abort.
        let text = shown::message(&info.to_string());
        let ask = "This is a bug in laptop-diff. Please report it with the command and the lines above.";
        let _ = writeln!(io::stderr(), "BUG: {text}\n{ask}");
    }));
    mapping::report_faults(ExitCode::File.number());
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version arrive here too and are not errors.
            let code = if error.use_stderr() { ExitCode::Arguments } else { ExitCode::Done };
            return match error.print() {
                // A reader that stops reading, as `| head` does, is not an error, and an error has its code in any case.
                Err(print) if code == ExitCode::Done && print.kind() != io::ErrorKind::BrokenPipe => {
                    ExitCode::File.into()
                }
                _ => code.into(),
            };
        }
    };
    match panic::catch_unwind(|| dispatch(cli.command)) {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => {
            let code = error.exit_code();
            if code != ExitCode::Interrupted {
                told::tell(&error);
            }
            code.into()
        }
        Err(_) => ExitCode::Bug.into(),
    }
}

fn dispatch(command: Command) -> Result<ProcessExitCode, CliError> {
    match command {
        Command::Run(run) => return run.execute(),
        Command::Sweep(sweep) => return sweep.execute(),
        Command::Plan(plan) => return plan.execute(),
        Command::Job(job) => return job.execute(),
        Command::Init(init) => init.execute()?,
        Command::Graph(graph) => graph.execute()?,
        Command::Report(report) => report.execute()?,
        Command::Runs(runs) => runs.execute()?,
        Command::Status(status) => status.execute()?,
        Command::Cancel(cancel) => cancel.execute()?,
        Command::Verify(verify) => return verify.execute(),
        Command::Why(why) => why.execute()?,
        Command::Clean(clean) => clean.execute()?,
        Command::Export(export) => export.execute()?,
        Command::Doctor(doctor) => return doctor.execute(),
        Command::Inspect(inspect) => inspect.execute()?,
        Command::Generate(generate) => generate.execute()?,
        Command::List(list) => list.execute()?,
        Command::Cache(cache) => return cache.execute(),
        Command::Schema(schema) => schema.execute()?,
        Command::Completions(completions) => completions.execute(Cli::command())?,
        Command::Man(man) => man.execute(Cli::command())?,
    }
    Ok(ExitCode::Done.into())
}

#[cfg(test)]
mod tests {
    use clap::{Command, CommandFactory};

    #[test]
    fn the_arguments_are_consistent_and_every_command_shows_an_example() {
        let mut command = super::Cli::command();
        command.build();
        command.clone().debug_assert();
        show_examples(&command);
    }

    fn show_examples(command: &Command) {
        for one in command.get_subcommands().filter(|one| one.get_name() != "help" && !one.is_hide_set()) {
            let help = one.clone().render_long_help().to_string();
            assert!(help.contains("Example"), "{}:\n{help}", one.get_name());
            show_examples(one);
        }
    }
}
