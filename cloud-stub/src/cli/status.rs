use super::ConfigFile;
use crate::config::{DEFAULT_METRICS, Settings};
use crate::status::Status;
use anyhow::{Context, bail};
use clap::Args;
use std::process::ExitCode;
use std::time::Duration;

/// Show the zoo of a running gateway
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  tether-cloud status\n  tether-cloud status --url http://127.0.0.1:9464 --json")]
pub(super) struct ShowStatus {
    /// The gateway's metrics address; otherwise it is read from the settings
    #[arg(long, value_name = "URL")]
    url: Option<String>,
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl ShowStatus {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let url = self.url()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let status = runtime.block_on(fetch(&url))?;
        match self.json {
            true => println!("{}", serde_json::to_string_pretty(&status)?),
            false => print!("{status}"),
        }
        Ok(if status.ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn url(&self) -> anyhow::Result<String> {
        if let Some(url) = &self.url {
            return Ok(url.trim_end_matches('/').to_owned());
        }
        // Without any settings file the default address is the best guess.
        if !self.file.config.exists() {
            return Ok(format!("http://{DEFAULT_METRICS}"));
        }
        match Settings::load(&self.file.config)?.metrics {
            Some(address) => Ok(format!("http://{address}")),
            None => bail!("{} says metrics = \"none\", so there is nothing to ask", self.file.config.display()),
        }
    }
}

async fn fetch(url: &str) -> anyhow::Result<Status> {
    // Another part of the process may have installed it already, and there is only one in this program.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = reqwest::Client::builder().timeout(Duration::from_secs(5)).no_proxy().tls_certs_only([]).build()?;
    let asked = client.get(format!("{url}/status")).send().await;
    let answer = asked.with_context(|| format!("no gateway answers at {url}; is `tether-cloud serve` running?"))?;
    answer.error_for_status()?.json().await.with_context(|| format!("{url} is no tether gateway"))
}
