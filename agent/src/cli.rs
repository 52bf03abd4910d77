//! The command line: arguments in, exit code out. Each command is one module with its arguments and its `run`.

mod answer;
mod ask;
mod attach;
mod budget;
mod chat;
mod completions;
mod config;
mod doctor;
mod explain;
mod export;
mod feedback;
mod models;
mod output;
mod replay;
mod report;
mod serve;
mod status;
mod turn;
mod turns;
mod units;

use crate::client::{Client, address};
use clap::{Args, CommandFactory, Parser, Subcommand};
use output::note;
use std::future::Future;
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted by Ctrl-C.
pub const INTERRUPTED: u8 = 130;

const EXAMPLES: &str = "\
Examples:
  tether serve                                   run the daemon on this user's socket
  tether ask \"Is the kettle on?\" --view front=kettle.jpg
  echo \"Summarise the log\" | tether ask -         the prompt from standard input
  tether chat --session kitchen                  a dialogue that the daemon remembers
  tether doctor                                  what works, what does not, and the fix

Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted (Ctrl-C).
Environment: TETHER_HOST names the socket (unix:///path), TETHER_CONFIG the settings, NO_COLOR turns colours off.";

/// Answers dialogue turns on this device or in the cloud, whichever is worth it.
#[derive(Debug, Parser)]
#[command(name = "tether", version, after_help = EXAMPLES, max_term_width = 100)]
pub struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Socket of the daemon, a path or unix:///path [env: TETHER_HOST] [default: $XDG_RUNTIME_DIR/tether/tether.sock,
    /// then /run/tether/tether.sock]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<String>,
    /// Settings file [env: TETHER_CONFIG] [default: $XDG_CONFIG_HOME/tether/config.toml, then
    /// /etc/tether/config.toml]
    #[arg(long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Print JSON for programs instead of text for people
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon in the foreground
    Serve(serve::ServeArgs),
    /// Send one turn and print the answer
    Ask(ask::AskArgs),
    /// Talk, turn after turn, in one session
    Chat(chat::ChatArgs),
    /// Show the daemon's model, link, views, sessions and queue
    Status,
    /// List the newest turns: where each was answered, why, and what it cost
    Turns(turns::TurnsArgs),
    /// Show, set and reset budgets of money, energy and bytes
    #[command(after_help = budget::EXAMPLES)]
    Budget {
        #[command(subcommand)]
        command: Option<budget::BudgetCommand>,
    },
    /// Say in plain words what was known, permitted, chosen and spent in a turn
    Explain(explain::ExplainArgs),
    /// Write the ledger as a table, as records, or as training data for TMO
    Export(export::ExportArgs),
    /// Replay hours of a robot over recorded links in seconds, to compare policies
    Replay(Box<replay::ReplayArgs>),
    /// Make the page of a real ledger that a replay makes: battery, bytes, routes, satisfaction, budgets
    Report(report::ReportArgs),
    /// Rate a turn, so that the policy can learn from it
    Feedback(feedback::FeedbackArgs),
    /// Say what works, what does not, and the fix; needs no daemon
    #[command(after_help = doctor::EXAMPLES)]
    Doctor,
    /// List, fetch, check and delete model files
    #[command(subcommand)]
    Models(models::ModelsCommand),
    /// Show or check the settings
    #[command(subcommand)]
    Config(config::ConfigCommand),
    /// Print the completions of a shell
    Completions(completions::CompletionsArgs),
    /// Print the version of this program, and of the daemon if one runs
    Version,
}

impl Global {
    fn client(&self) -> anyhow::Result<Client> {
        let around = address::Surroundings::of_process();
        Ok(Client::new(address::choose(self.socket.as_deref(), &around)?))
    }
}

/// Runs one command to its exit code.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli { global, command } = cli;
    match command {
        Command::Serve(args) => serve::run(&args, &global),
        Command::Ask(args) => block_on(ask::run(args, &global)),
        Command::Chat(args) => block_on(chat::run(args, &global)),
        Command::Status => block_on(status::run(&global)),
        Command::Turns(args) => block_on(turns::run(args, &global)),
        Command::Budget { command } => block_on(budget::run(command, &global)),
        Command::Explain(args) => block_on(explain::run(args, &global)),
        Command::Export(args) => export::run(args, &global),
        Command::Replay(args) => replay::run(&args, &global),
        Command::Report(args) => report::run(&args, &global),
        Command::Feedback(args) => block_on(feedback::run(args, &global)),
        Command::Doctor => block_on(doctor::run(&global)),
        Command::Models(command) => models::run(&command, global.json),
        Command::Config(command) => config::run(&command, &global),
        Command::Completions(args) => completions::run(&args, Cli::command()),
        Command::Version => block_on(status::version(&global)),
    }
}

/// Prints an error and gives its exit code. A reader that went away (`tether turns | head`) is not an error.
pub fn report(error: &anyhow::Error) -> ExitCode {
    let broken_pipe = |cause: &(dyn std::error::Error + 'static)| {
        cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe)
    };
    if error.chain().any(broken_pipe) {
        return ExitCode::SUCCESS;
    }
    let code = if error.is::<UsageError>() { 2 } else { 1 };
    note(format_args!("{}error:{0:#} {}", output::BAD, told(error)));
    ExitCode::from(code)
}

/// An error and its causes, without those that the words before them tell already.
pub(crate) fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |told, cause| match told.as_str() {
        "" => cause,
        _ if told.contains(&cause) => told,
        _ => format!("{told}: {cause}"),
    })
}

/// What clap cannot see is wrong, such as an empty prompt: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct UsageError(pub String);

/// A client needs one thread only.
fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = anyhow::anyhow!("no such file").context("[cloud]: token_file: no such file").context("settings");
        assert_eq!(told(&error), "settings: [cloud]: token_file: no such file");
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
