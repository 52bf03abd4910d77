//! `tether`: the daemon and its client in one program.

use clap::Parser;
use std::process::ExitCode;
use tether::cli::{self, Cli};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => cli::report(&error),
    }
}
