//! `tether status` and `tether version`.

use super::output::{self, BAD, BOLD, DIM, WARN};
use super::{Global, units};
use crate::client::ClientError;
use serde_json::json;
use std::io::Write;
use std::process::ExitCode;
use tether_policies::link::send_time;
use tether_protocol::Reading;
use tether_protocol::api::{
    CloudStatus, LocalModelStatus, MemoryStatus, ModelCacheStatus, ModelState, Status, Version, ViewStatus, ZooStatus,
};
use tether_protocol::context::{Battery, Link, Machine};

/// About a camera's picture at the default size.
const SHOWN_BYTES: u64 = 50_000;

pub(crate) async fn run(global: &Global) -> anyhow::Result<ExitCode> {
    let status: Status = global.client()?.get("/v1/status").await?;
    if global.json {
        output::json(&status)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = output::stdout();
    for (name, text) in lines(&status) {
        writeln!(out, "{BOLD}{name:<9}{BOLD:#} {text}")?;
    }
    for problem in &status.problems {
        writeln!(out, "{BAD}problem{BAD:#}   {problem}")?;
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}

fn lines(status: &Status) -> Vec<(&'static str, String)> {
    let up = units::duration_ms(status.uptime_s * 1e3);
    let local_only = if status.local_only { ", local only: nothing leaves this device" } else { "" };
    let mut lines = vec![("daemon", format!("{} (pid {}, up {up})", status.version, status.pid))];
    match (&status.model, &status.model_problem) {
        (Some(model), _) => lines.extend(model_lines(model)),
        (None, why) => lines.push(("model", format!("{WARN}none{WARN:#}: {}", why.as_deref().unwrap_or("not set")))),
    }
    lines.extend(status.zoo.as_ref().map(zoo_lines).unwrap_or_default());
    lines.extend(status.memory.map(|memory| ("memory", memory_line(&memory))));
    lines.push(("battery", reading(&status.battery, battery_line)));
    lines.push(("power", reading(&status.power, |power| format!("{:.1} W ({})", power.watts, power.covers))));
    lines.push(("load", reading(&status.machine, machine_line)));
    lines.extend(cloud_lines(&status.cloud));
    lines.push(("policy", format!("{} over {} actions{local_only}", status.policy, status.actions)));
    lines.extend(status.views.iter().map(|view| ("view", view_line(view))));
    lines.extend(status.sensors.iter().map(|sensor| ("sensor", view_line(sensor))));
    lines.extend(status.budgets.iter().map(|budget| ("budget", super::budget::line(budget))));
    lines.push(("sessions", status.sessions.to_string()));
    lines.push(("turns", format!("{} recorded, {} being answered", status.turns, status.active_turns)));
    lines
}

fn model_lines(model: &LocalModelStatus) -> [(&'static str, String); 3] {
    let rate = |rate: Option<f64>| rate.map_or("unknown".into(), |rate| format!("{rate:.1} tokens/s"));
    let kind =
        format!("{} {}, {:.0}M parameters", model.architecture, model.quantization, model.parameter_count as f64 / 1e6);
    let file = format!("{}, context {} tokens", units::bytes(model.file_bytes), model.context_tokens);
    let load = &model.load;
    let rates = format!("prompt {}, answer {}", rate(load.prefill_tokens_per_s), rate(load.decode_tokens_per_s));
    [
        ("model", format!("{} {DIM}({kind}, {file}){DIM:#}", model.name)),
        ("", format!("{rates}, queue {}, {}", load.queue, residence(model))),
        ("", cache_line(&model.cache)),
    ]
}

fn residence(model: &LocalModelStatus) -> String {
    let load = units::duration_ms(model.load_ms);
    match model.state {
        ModelState::Loaded => format!("loaded in {load}"),
        ModelState::Loading => format!("{WARN}being loaded{WARN:#}, which took {load} the last time"),
        ModelState::Unloaded => format!("not in memory now; the next turn loads it in about {load}"),
    }
}

fn cache_line(cache: &ModelCacheStatus) -> String {
    let (held, most) = (units::bytes(cache.bytes), units::bytes(cache.max_bytes));
    let mut line = format!("keeps {} dialogues computed ({held} of {most}", cache.sequences);
    if cache.disk_sequences > 0 {
        line += &format!("; {} on disk, {}", cache.disk_sequences, units::bytes(cache.disk_bytes));
    }
    line + &format!("), {} of {} prompt tokens needed no computing", cache.cached_tokens, cache.prompt_tokens)
}

fn zoo_lines(zoo: &ZooStatus) -> Vec<(&'static str, String)> {
    let share = |share: Option<f64>| share.map_or("unknown".to_owned(), |share| format!("{share:.3}"));
    let level = format!(
        "alpha {}: satisfied {} (at least {:.3}), {} of {} answers rated, queue {:.1}",
        zoo.alpha,
        share(zoo.satisfaction),
        zoo.satisfaction_at_least,
        zoo.rated,
        zoo.answered,
        zoo.queue
    );
    let mut lines = vec![("zoo", level)];
    lines.extend(zoo.warning.iter().map(|warning| ("", format!("{WARN}{warning}{WARN:#}"))));
    lines.extend(zoo.models.iter().map(|model| {
        let cost = model.mean_cost.map_or("cost unknown".to_owned(), |cost| format!("{cost:.3} {}", zoo.cost_unit));
        let satisfied = share(model.satisfaction);
        ("", format!("{}: {} answers, {cost} each, satisfied {satisfied}", model.name, model.calls))
    }));
    lines
}

fn memory_line(memory: &MemoryStatus) -> String {
    format!("{}, at most {} so far", units::bytes(memory.resident_bytes), units::bytes(memory.peak_resident_bytes))
}

fn cloud_lines(cloud: &CloudStatus) -> Vec<(&'static str, String)> {
    let place = match (cloud.kind.as_str(), &cloud.address) {
        ("none", _) => "not configured: every turn is answered here".to_owned(),
        (kind, Some(address)) => format!("{kind} {address}"),
        (kind, None) => format!("{kind}, not used: every turn is answered here"),
    };
    let mut lines = vec![("cloud", place)];
    if let Some(problem) = &cloud.problem {
        lines.push(("", format!("{WARN}{problem}{WARN:#}")));
        lines.extend(cloud.fix.as_ref().map(|fix| ("", format!("{DIM}fix:{DIM:#} {fix}"))));
    }
    if cloud.address.is_some() {
        lines.push(("link", link_line(&cloud.link)));
        lines.extend(cloud.link.value().and_then(upload_line).map(|line| ("", line)));
        let words = |metered: &bool| if *metered { "yes" } else { "no" }.to_owned();
        lines.push(("metered", reading(&cloud.metered, words)));
    }
    lines
}

/// A reading's value in words with its source, or why there is none.
fn reading<T>(reading: &Reading<T>, words: impl FnOnce(&T) -> String) -> String {
    match reading {
        Reading::Known { value, source, .. } => format!("{} {DIM}({source}){DIM:#}", words(value)),
        Reading::Unknown { unknown } => format!("unknown: {unknown}"),
    }
}

fn battery_line(battery: &Battery) -> String {
    let parts = [
        Some(format!("{:.0} %", battery.percent)),
        Some(if battery.on_ac { "on mains".to_owned() } else { "in use".to_owned() }),
        battery.power_w.map(|power_w| match power_w < 0.0 {
            true => format!("charged with {:.1} W", -power_w),
            false => format!("{power_w:.1} W drawn"),
        }),
        battery.energy_j.map(|energy_j| format!("{:.1} Wh left", energy_j / 3_600.0)),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn machine_line(machine: &Machine) -> String {
    let percent = |name: &str, ratio: Option<f64>| match ratio {
        Some(ratio) => format!("{name} {:.0} %", ratio * 100.0),
        None => format!("{name} unknown"),
    };
    let temperature = machine.temperature_c.map_or("temperature unknown".into(), |celsius| format!("{celsius:.0} °C"));
    let pressure = percent("waiting for memory", machine.memory_pressure_ratio);
    format!("{}, {pressure}, {temperature}", percent("processors", machine.cpu_ratio))
}

/// What a picture of the usual size would take.
fn upload_line(link: &Link) -> Option<String> {
    let time = send_time(link, SHOWN_BYTES)?;
    let shown = |seconds: f64| units::duration_ms(seconds * 1e3);
    let (low, high) = (shown(time.low_s), shown(time.high_s));
    Some(format!("{} up in {} ({low} to {high})", units::bytes(SHOWN_BYTES), shown(time.median_s)))
}

pub(crate) fn link_line(link: &Reading<Link>) -> String {
    let (value, age_ms) = match link {
        Reading::Known { value, age_ms, .. } => (value, age_ms),
        Reading::Unknown { unknown } => return format!("unknown: {unknown}"),
    };
    let rate = |name: &str, rate: Option<f64>| rate.map(|rate| format!("{name} {:.2} Mbit/s", rate / 1e6));
    let state = format!("{:?}", value.state).to_lowercase();
    let parts = [
        Some(state),
        value.rtt_ms.map(|rtt| format!("round trip {rtt:.1} ms")),
        rate("up", value.uplink_bits_per_s),
        rate("down", value.downlink_bits_per_s),
        value.loss_ratio.map(|loss| format!("loss {:.1} %", loss * 100.0)),
        value.congestion_window_bytes.map(|window| format!("window {}", units::bytes(window))),
        value.delivered_bytes.map(|delivered| format!("{} delivered", units::bytes(delivered))),
        Some(format!("{} ago", units::duration_ms(*age_ms as f64))),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn view_line(view: &ViewStatus) -> String {
    let held = match &view.bytes {
        Reading::Known { value, age_ms, .. } => {
            format!("{}, {} old", units::bytes(*value), units::duration_ms(*age_ms as f64))
        }
        Reading::Unknown { unknown } => format!("{DIM}{unknown}{DIM:#}"),
    };
    let kept = if view.local_only { ", local only" } else { "" };
    format!("{:<10} {:<8} {held}{kept}", view.name, view.kind)
}

/// The client's version needs no daemon.
pub(crate) async fn version(global: &Global) -> anyhow::Result<ExitCode> {
    let client = env!("CARGO_PKG_VERSION");
    let daemon: Option<Version> = match global.client()?.get("/version").await {
        Ok(version) => Some(version),
        Err(ClientError::NotRunning { .. }) => None,
        Err(error) => return Err(error.into()),
    };
    if global.json {
        output::json(&json!({"client": client, "daemon": daemon}))?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = output::stdout();
    writeln!(out, "tether {client}")?;
    match daemon {
        Some(daemon) => writeln!(out, "daemon {} ({})", daemon.version, daemon.protocol)?,
        None => writeln!(out, "daemon not running")?,
    }
    out.flush()?;
    Ok(ExitCode::SUCCESS)
}
