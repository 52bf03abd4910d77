//! The commands of `tether-cloud`.

mod check;
mod init;
mod serve;
mod status;

use clap::{Args, Parser, Subcommand};
use std::path::PathBuf;
use std::process::ExitCode;

/// The gateway: answers dialogue turns that devices send over QUIC from a zoo of models.
#[derive(Debug, Parser)]
#[command(name = "tether-cloud", version, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  tether-cloud init --dir gw                  certificates, a token, settings to start from
  tether-cloud check --config gw/gateway.toml what the settings mean, or what is wrong
  tether-cloud serve --config gw/gateway.toml run until SIGTERM; SIGHUP re-reads the zoo
  tether-cloud status                         the zoo of a running gateway

Exit codes: 0 done, 1 failed, 2 wrong usage.";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Init(init::Init),
    Check(check::Check),
    Status(status::ShowStatus),
}

/// Where the settings are.
#[derive(Debug, Clone, Args)]
struct ConfigFile {
    /// The settings file (TOML)
    #[arg(long, short, value_name = "FILE", env = "TETHER_CLOUD_CONFIG", default_value = "/etc/tether/gateway.toml")]
    config: PathBuf,
}

/// Runs one command.
///
/// # Errors
/// Names what failed and, where there is one, the fix.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Serve(serve) => serve.run(),
        Command::Init(init) => init.run(),
        Command::Check(check) => check.run(),
        Command::Status(status) => status.run(),
    }
}
