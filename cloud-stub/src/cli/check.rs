use super::ConfigFile;
use crate::config::{BackendSettings, Kind, Settings};
use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

/// Check the settings and show what they mean
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tether-cloud check --config gateway.toml --json | jq .zoo")]
pub(super) struct Check {
    #[command(flatten)]
    file: ConfigFile,
    /// One JSON object
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(&self) -> anyhow::Result<ExitCode> {
        let settings = Settings::load(&self.file.config)?;
        // Not one of the keys is wrong; a model's file may be.
        for backend in &settings.zoo {
            if let Kind::Candle(candle) = &backend.kind {
                let whole = candle.resolve_model().map_err(anyhow::Error::from);
                let whole = whole.and_then(|path| Ok(tether_models::check_file(&path)?));
                whole.with_context(|| format!("zoo model {}", backend.name))?;
            }
        }
        match self.json {
            true => println!("{:#}", as_json(&settings)),
            false => print(&settings),
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Keys and token hashes are not shown.
fn as_json(settings: &Settings) -> Value {
    let backend = |backend: &BackendSettings| {
        json!({
            "name": backend.name, "kind": backend.kind.as_str(), "vision": backend.vision,
            "context_tokens": backend.context_tokens, "concurrency": backend.concurrency, "queue": backend.queue,
            "max_tokens": backend.max_tokens, "default_max_tokens": backend.default_max_tokens,
            "prices": backend.prices,
        })
    };
    json!({
        "listen": settings.listen, "cert": settings.cert, "key": settings.key, "client_ca": settings.client_ca,
        "clients": settings.tokens.iter().map(|token| &token.name).collect::<Vec<_>>(),
        "metrics": settings.metrics, "drain_ms": settings.drain.as_millis() as u64,
        "turn_limit_ms": settings.turn_limit.as_millis() as u64,
        "routing": settings.routing.as_ref().map(|routing| json!({
            "alpha": routing.default.alpha, "models": routing.default.models,
            "encoder": routing.encoder.to_string(), "state": routing.state.to_string(),
            "tenants": routing.tenants.iter().map(|(name, level)| {
                json!({"name": name, "alpha": level.alpha, "models": level.models})
            }).collect::<Vec<_>>(),
        })),
        "zoo": settings.zoo.iter().map(backend).collect::<Vec<_>>(),
    })
}

fn print(settings: &Settings) {
    let names: Vec<&str> = settings.tokens.iter().map(|token| token.name.as_str()).collect();
    let metrics = settings.metrics.map_or("none".to_owned(), |address| format!("http://{address}"));
    println!("listen   quic://{}", settings.listen);
    println!("metrics  {metrics}");
    println!("clients  {}", if names.is_empty() { "by certificate only".to_owned() } else { names.join(", ") });
    for backend in &settings.zoo {
        let BackendSettings { name, kind, concurrency, queue, .. } = backend;
        let vision = format!("{:?}", backend.vision).to_lowercase();
        println!("model    {name} ({}, vision {vision}, {concurrency} at once, {queue} may wait)", kind.as_str());
    }
    match &settings.routing {
        None => println!("routing  the first able model, in this order"),
        Some(routing) => {
            let (encoder, state) = (&routing.encoder, &routing.state);
            println!("routing  MESS+, alpha {}, encoder {encoder}, state in {state}", routing.default.alpha);
            for (name, level) in &routing.tenants {
                let models = level.models.as_ref().map_or("all models".to_owned(), |models| models.join(", "));
                println!("tenant   {name} alpha {}, {models}", level.alpha);
            }
        }
    }
}
