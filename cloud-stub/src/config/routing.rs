//! `[routing]`, `[[tenants]]` and `[state]`.

mod state;

use super::form::{EncoderForm, RoutingForm, StateForm, TenantForm};
use super::resolve::{Wrong, name};
use super::{BackendSettings, EncoderSettings, RoutingSettings};
use std::path::{Path, PathBuf};
use tether_policies::mess::TenantConfig;
use tether_protocol::limits::{MAX_TENANTS, MAX_ZOO_MODELS};

/// The level where tenants are named and no other is given: a guess, five answers of six.
const DEFAULT_ALPHA: f64 = 0.85;

pub(super) fn resolve(
    routing: Option<RoutingForm>,
    tenants: Vec<TenantForm>,
    state: Option<StateForm>,
    zoo: &[BackendSettings],
    folder: &Path,
) -> Result<Option<RoutingSettings>, Wrong> {
    if routing.is_none() && tenants.is_empty() {
        let unused = "nothing is learned without [routing] or [[tenants]]; add `[routing]` with alpha, or remove it";
        return if state.is_some() { Err(("state".into(), unused.into())) } else { Ok(None) };
    }
    if zoo.len() > MAX_ZOO_MODELS {
        let problem = format!("{} backends are given, MESS+ routes among at most {MAX_ZOO_MODELS}", zoo.len());
        return Err(("zoo".into(), problem));
    }
    if tenants.len() > MAX_TENANTS {
        let problem = format!("{} are given, at most {MAX_TENANTS} are allowed", tenants.len());
        return Err(("tenants".into(), problem));
    }
    let RoutingForm { alpha, models, encoder, encoder_weights, encoder_tokenizer } = routing.unwrap_or_default();
    let encoder = self::encoder(encoder, encoder_weights, encoder_tokenizer, folder)?;
    let default = level("routing", alpha.unwrap_or(DEFAULT_ALPHA), models, zoo)?;
    let mut agreed = Vec::with_capacity(tenants.len());
    let mut names = std::collections::HashSet::new();
    for form in tenants {
        let name = name("tenants.name", form.name)?;
        if !names.insert(name.clone()) {
            return Err((format!("tenants.{name}"), "two tenants have this name".into()));
        }
        let models = form.models.or_else(|| default.models.clone());
        let config = level(&format!("tenants.{name}"), form.alpha.unwrap_or(default.alpha), models, zoo)?;
        agreed.push((name, config));
    }
    let state = state::resolve(state.unwrap_or_default(), folder)?;
    Ok(Some(RoutingSettings { default, tenants: agreed, encoder, state }))
}

fn encoder(
    kind: EncoderForm,
    weights: Option<PathBuf>,
    tokenizer: Option<PathBuf>,
    folder: &Path,
) -> Result<EncoderSettings, Wrong> {
    let wrong = |key: &str, problem: &str| (format!("routing.{key}"), problem.to_owned());
    match (kind, weights, tokenizer) {
        (EncoderForm::Hashed, None, None) => Ok(EncoderSettings::Hashed),
        (EncoderForm::Hashed, Some(_), _) => {
            Err(wrong("encoder_weights", "only encoder = \"sentence\" has weights; remove it"))
        }
        (EncoderForm::Hashed, None, Some(_)) => {
            Err(wrong("encoder_tokenizer", "only encoder = \"sentence\" has a tokenizer; remove it"))
        }
        (EncoderForm::Sentence, None, None) => Ok(EncoderSettings::Sentence(None)),
        (EncoderForm::Sentence, Some(weights), Some(tokenizer)) => {
            Ok(EncoderSettings::Sentence(Some((folder.join(weights), folder.join(tokenizer)))))
        }
        (EncoderForm::Sentence, None, Some(_)) => {
            Err(wrong("encoder_weights", "encoder_tokenizer needs it; give both, or neither to use what was pulled"))
        }
        (EncoderForm::Sentence, Some(_), None) => {
            Err(wrong("encoder_tokenizer", "encoder_weights needs it; give both, or neither to use what was pulled"))
        }
    }
}

fn level(key: &str, alpha: f64, models: Option<Vec<String>>, zoo: &[BackendSettings]) -> Result<TenantConfig, Wrong> {
    if !(alpha > 0.0 && alpha < 1.0) {
        let problem = format!("{alpha} must lie above 0 and below 1, such as 0.85");
        return Err((format!("{key}.alpha"), problem));
    }
    let names = || zoo.iter().map(|backend| backend.name.as_str()).collect::<Vec<_>>().join(", ");
    if models.as_ref().is_some_and(Vec::is_empty) {
        let problem = format!("no model is allowed; name some of {}, or leave it out to allow all", names());
        return Err((format!("{key}.models"), problem));
    }
    let unknown = |name: &&String| !zoo.iter().any(|backend| backend.name == **name);
    if let Some(name) = models.iter().flatten().find(unknown) {
        return Err((format!("{key}.models"), format!("the zoo has no model {name:?}; it has {}", names())));
    }
    Ok(TenantConfig { alpha, models })
}
