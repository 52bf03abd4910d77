//! Everything that is not a turn: pushed views, models, status, health, metrics.

use super::body;
use super::reply::Refusal;
use crate::config::Settings;
use crate::daemon::{Daemon, Live};
use crate::execute::LocalZoo;
use crate::metrics::Readings;
use crate::views::{PushError, ViewKind};
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tether_models::WorkerStats;
use tether_protocol::Reading;
use tether_protocol::api::{
    ApiError, CameraPushed, CloudStatus, LocalModelStatus, MemoryStatus, ModelCacheStatus, ModelCard, ModelList,
    SensorPushed, Status, Version, ViewStatus,
};
use tether_protocol::limits::{MAX_IMAGE_BYTES, MAX_SENSOR_BYTES};
use tether_protocol::wire::ALPN;

/// One step of the model (a chunk of a prompt) takes longer than this only if the thread hangs: that would be a
/// model at two prompt tokens a second.
const MODEL_PATIENCE: Duration = Duration::from_secs(60);

pub(super) async fn push_camera(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<CameraPushed>, Refusal> {
    let bytes = body::read(&headers, body, MAX_IMAGE_BYTES).await?;
    let now = Instant::now();
    let (info, frame) = {
        let mut views = daemon.views();
        let info = views.push_frame(&name, bytes, now).map_err(|error| push_error(&error))?;
        (info, views.newest_frame(&name))
    };
    if let (Some(sight), Some(frame)) = (daemon.sight(), frame) {
        sight.pushed(frame, now);
    }
    daemon.measure_camera(&name);
    let view = daemon.live().settings.space.views().iter().find(|view| view.as_str() == name).cloned();
    let view = view.ok_or_else(|| ApiError::server(500, "internal", format!("view {name} vanished")))?;
    Ok(Json(CameraPushed { view, width: info.width, height: info.height, bytes: info.bytes as u64 }))
}

pub(super) async fn push_sensor(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<SensorPushed>, Refusal> {
    let bytes = body::read(&headers, body, MAX_SENSOR_BYTES).await?;
    daemon.views().push_sensor(&name, &bytes, Instant::now()).map_err(|error| push_error(&error))?;
    Ok(Json(SensorPushed { sensor: name, bytes: bytes.len() as u64 }))
}

fn push_error(error: &PushError) -> ApiError {
    let message = error.to_string();
    match error {
        PushError::UnknownView { .. } | PushError::NotACamera { .. } | PushError::NoSensorView => {
            ApiError::refused(404, "unknown_view", message).with_param("name")
        }
        PushError::Image { .. } => ApiError::refused(400, "invalid_image", message),
        PushError::Sensor(_) => ApiError::refused(400, "invalid_sensor", message),
        PushError::TooManySensors { .. } => ApiError::refused(409, "too_many_sensors", message),
    }
}

pub(super) async fn models(State(daemon): State<Arc<Daemon>>) -> Json<ModelList> {
    let created = daemon.started().1 / 1_000;
    let owner = |id: &str| match id {
        "auto" => "tether",
        "cloud" => "cloud",
        _ => "local",
    };
    let card = |id: String| ModelCard { owned_by: owner(&id).into(), id, object: "model".into(), created };
    let data = daemon.model_names(&daemon.live()).into_iter().map(card).collect();
    Json(ModelList { object: "list".into(), data })
}

pub(super) async fn status(State(daemon): State<Arc<Daemon>>) -> Json<Status> {
    let live = daemon.live();
    let settings = &live.settings;
    let (views, sensors) = views(&daemon, &live);
    let sessions = daemon.store().session_count(settings.sessions, daemon.now_ms()).await;
    let turns = daemon.store().turn_count().await;
    let mut problems = daemon.problems();
    problems.extend([sessions.as_ref().err(), turns.as_ref().err()].into_iter().flatten().map(ToString::to_string));
    Json(Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_s: daemon.started().0.elapsed().as_secs_f64(),
        model: daemon.local().ok().map(|model| {
            let info = model.info();
            let (state, load_ms) = model.state();
            LocalModelStatus {
                name: model.name().into(),
                path: model.path().display().to_string(),
                architecture: info.architecture.clone(),
                quantization: info.quantization.clone(),
                parameter_count: info.parameter_count,
                file_bytes: info.file_bytes,
                context_tokens: info.context_tokens as u64,
                load: model.load_now(),
                load_ms,
                state,
                keep_alive_s: model.keep_alive().map(|time| time.as_secs_f64()),
                cache: cache_status(&model.stats(), settings),
            }
        }),
        model_problem: daemon.local().err().cloned(),
        zoo: daemon.zoo().map(LocalZoo::status),
        cloud: cloud_status(&daemon, &live),
        battery: daemon.sampler().battery(),
        power: daemon.sampler().power(),
        machine: daemon.sampler().machine(),
        policy: live.policy.name().into(),
        local_only: settings.local_only,
        actions: settings.space.action_count() as u32,
        views,
        sensors,
        sessions: sessions.unwrap_or(0),
        turns: turns.unwrap_or(0),
        active_turns: daemon.active_turns() as u32,
        budgets: daemon.budget_status().budgets,
        memory: process_memory(),
        problems,
    })
}

fn cloud_status(daemon: &Daemon, live: &Live) -> CloudStatus {
    let kind = live.settings.cloud.kind();
    let trouble = live.cloud().ok().and_then(|cloud| cloud.problem());
    let unused = live.cloud().err().filter(|_| kind != "none").map(str::to_owned);
    CloudStatus {
        kind: kind.into(),
        address: live.cloud().ok().map(|cloud| cloud.address()),
        link: daemon.link(live),
        metered: daemon.metered(live),
        probe_bytes: live.cloud().map_or(0, |cloud| cloud.probe_bytes()),
        fix: trouble.as_ref().map(|trouble| trouble.fix().to_owned()),
        problem: unused.or_else(|| trouble.map(|trouble| trouble.to_string())),
    }
}

fn cache_status(stats: &WorkerStats, settings: &Settings) -> ModelCacheStatus {
    ModelCacheStatus {
        sequences: stats.slots.count as u64,
        bytes: stats.slots.bytes as u64,
        max_bytes: settings.model.as_ref().map_or(0, |model| model.cache.max_bytes as u64),
        evicted: stats.slots.evicted,
        disk_sequences: stats.disk.count as u64,
        disk_bytes: stats.disk.bytes,
        restored: stats.disk.restored,
        prompt_tokens: stats.prompt_tokens,
        cached_tokens: stats.cached_tokens,
        drafted_tokens: stats.drafted_tokens,
        accepted_tokens: stats.accepted_tokens,
    }
}

/// `VmRSS` and `VmHWM` of proc(5).
fn process_memory() -> Option<MemoryStatus> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |name: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        Some(line.split_whitespace().next()?.parse::<u64>().ok()? * 1024)
    };
    Some(MemoryStatus { resident_bytes: bytes("VmRSS:")?, peak_resident_bytes: bytes("VmHWM:")? })
}

fn views(daemon: &Daemon, live: &Live) -> (Vec<ViewStatus>, Vec<ViewStatus>) {
    let now = Instant::now();
    let (snapshot, context) = {
        let views = daemon.views();
        (views.snapshot(now), views.view_context(now))
    };
    let config = &live.settings.views.0;
    let views = config.iter().zip(context).map(|(view, context)| ViewStatus {
        name: view.name.to_string(),
        kind: match view.kind {
            ViewKind::Camera => "camera".into(),
            ViewKind::Sensors => "sensors".into(),
        },
        local_only: view.local_only,
        bytes: context.encoded_bytes,
    });
    let local_only = config.iter().any(|view| view.kind == ViewKind::Sensors && view.local_only);
    let sensors = snapshot.sensors.into_iter().map(|(name, json, age_ms)| ViewStatus {
        name,
        kind: "sensor".into(),
        local_only,
        bytes: Reading::known(json.len() as u64, age_ms, "pushed"),
    });
    (views.collect(), sensors.collect())
}

/// Alive: the database's thread and the model's thread answer.
pub(super) async fn healthz(State(daemon): State<Arc<Daemon>>) -> Result<&'static str, Refusal> {
    let unhealthy = |problem: String| ApiError::server(503, "unhealthy", problem);
    daemon.store().ping().await.map_err(|error| unhealthy(error.to_string()))?;
    match daemon.local().ok().and_then(|model| model.stalled_for()).filter(|stalled| *stalled > MODEL_PATIENCE) {
        Some(stalled) => Err(unhealthy(format!("the model's thread has not moved for {} s", stalled.as_secs())).into()),
        None => Ok("ok\n"),
    }
}

/// Ready: somebody can answer a turn.
pub(super) async fn readyz(State(daemon): State<Arc<Daemon>>) -> Result<&'static str, Refusal> {
    match (daemon.local(), daemon.live().cloud()) {
        (Err(local), Err(cloud)) => {
            Err(ApiError::server(503, "not_ready", format!("local: {local}; cloud: {cloud}")).into())
        }
        _ => Ok("ready\n"),
    }
}

pub(super) async fn metrics(State(daemon): State<Arc<Daemon>>) -> Result<Response, Refusal> {
    let live = daemon.live();
    if !live.settings.metrics_enabled {
        let message = "metrics are turned off (metrics.enabled in the settings)";
        return Err(ApiError::refused(404, "metrics_disabled", message).into());
    }
    let sessions = daemon.store().session_count(live.settings.sessions, daemon.now_ms()).await.unwrap_or(0);
    let queue = daemon.local().map_or(0, |model| model.load_now().queue);
    daemon.metrics().surroundings(&Readings {
        link: daemon.link(&live),
        probe_bytes: live.cloud().map_or(0, |cloud| cloud.probe_bytes()),
        battery: daemon.sampler().battery(),
        power: daemon.sampler().power(),
        machine: daemon.sampler().machine(),
    });
    daemon.metrics().budgets(&daemon.budget_status().budgets);
    let stats = daemon.local().map_or_else(|_| WorkerStats::default(), |model| model.stats());
    daemon.metrics().cache(&stats, process_memory());
    let text = daemon.metrics().text(queue, daemon.active_turns(), sessions);
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    Ok(([(header::CONTENT_TYPE, kind)], text).into_response())
}

pub(super) async fn version() -> Json<Version> {
    let protocol = String::from_utf8_lossy(ALPN).into_owned();
    Json(Version { version: env!("CARGO_PKG_VERSION").into(), protocol })
}
