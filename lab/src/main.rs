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
    /// Predicted upload times against recorded links.
    Link(tether_lab::link::LinkCli),
    /// Route among a zoo of models: the least cost at a guaranteed satisfaction (MESS+).
    Mess(tether_lab::mess::cli::MessCli),
    /// What another policy would have earned on a recorded log (off-policy evaluation).
    Ope(tether_lab::ope::OpeCli),
    /// Local or cloud, and which views: the published environment, its figures, and policies in it (TMO).
    Tmo(tether_lab::tmo::cli::TmoCli),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Link(link) => tether_lab::link::run(link),
        Command::Mess(mess) => tether_lab::mess::cli::run(mess),
        Command::Ope(ope) => tether_lab::ope::run(ope),
        Command::Tmo(tmo) => tether_lab::tmo::cli::run(tmo),
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
