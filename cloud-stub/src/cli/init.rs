use crate::server::init::{InitOptions, init};
use clap::Args;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Make certificates, a client's token, and the settings of both sides
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  tether-cloud init --dir ~/tether-cloud                                  try it on this machine
  tether-cloud init --dir gw --address gw.example.org:4433 --client arm1  for a device named arm1")]
pub(super) struct Init {
    /// Folder for the new files; it is made if it is missing
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// Where devices reach the gateway
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:4433")]
    address: String,
    /// Another DNS name or IP address of the gateway; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Name of the first device
    #[arg(long, value_name = "NAME", default_value = "robot")]
    client: String,
    /// Make a certificate for the device too (mutual TLS)
    #[arg(long)]
    client_certificate: bool,
    /// Replace files that exist; devices then need the new ones
    #[arg(long)]
    force: bool,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Init {
    pub(super) fn run(self) -> anyhow::Result<ExitCode> {
        let Self { dir, address, names, client, client_certificate, force, json } = self;
        let made = init(&InitOptions { dir, address, names, client, client_certificate, force })?;
        if json {
            let object = json!({
                "files": made.files, "token": made.token, "server_sha256": made.server_sha256,
                "gateway_config": made.gateway_config, "cloud_section": made.cloud_section,
            });
            println!("{object:#}");
            return Ok(ExitCode::SUCCESS);
        }
        println!("made:");
        made.files.iter().for_each(|file| println!("  {}", file.display()));
        println!("\nthe device's token, shown this once (it also stands in the .token file):\n  {}", made.token);
        println!("\nfor the device's config.toml:\n\n{}", made.cloud_section);
        println!("start the gateway:\n  tether-cloud serve --config {}", made.gateway_config.display());
        Ok(ExitCode::SUCCESS)
    }
}
