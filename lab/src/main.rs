use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Trains, evaluates and simulates tether's policies.
#[derive(Debug, Parser)]
#[command(name = "tether-lab", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Route among a zoo of models: the least cost at a guaranteed satisfaction (MESS+).
    Mess(tether_lab::mess::cli::MessCli),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Mess(mess) => tether_lab::mess::cli::run(mess),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, such as `head`, is no failure.
        Err(error) if tether_lab::report::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tether-lab: {error:#}");
            ExitCode::FAILURE
        }
    }
}
