//! Which actions privacy, configuration, the request and hard facts permit. Pure; privacy is absolute here, because
//! every later stage can only choose among what this one returns.

use tether_protocol::api::{ApiError, RouteChoice};
use tether_protocol::context::ViewContext;
use tether_protocol::{Action, ActionSpace, Route, ViewName, ViewSet};

/// What the request asks for.
#[derive(Debug, Clone, Copy)]
pub struct Asked<'a> {
    pub route: RouteChoice,
    /// The only views that may travel; with `route = "cloud"` exactly these do.
    pub views: Option<&'a [ViewName]>,
    /// By the request, by a view that it shows, or by the daemon's configuration: why, in words for the client.
    pub local_only: Option<&'a str>,
}

/// Which sides exist; `Err` says why one does not, in words for the client.
#[derive(Debug, Clone, Copy)]
pub struct Means<'a> {
    pub local: Result<(), &'a str>,
    pub cloud: Result<(), &'a str>,
    /// The link was measured to be down.
    pub link_down: bool,
    /// Whether pictures may travel.
    pub pictures: Result<(), &'a str>,
}

/// The permitted actions, ascending, at least one.
///
/// # Errors
/// 400 for views that are unknown, private or have nothing to send; 503 if the route that was asked for does not
/// exist here.
pub fn permitted(
    space: &ActionSpace,
    views: &[ViewContext],
    asked: Asked<'_>,
    means: Means<'_>,
) -> Result<Vec<Action>, ApiError> {
    let wanted = asked.views.map(|names| wanted_views(space, names)).transpose()?;
    let local = asked.route != RouteChoice::Cloud && means.local.is_ok();
    let cloud_asked = asked.route != RouteChoice::Local && asked.local_only.is_none();
    // A link that is down is tried only if nothing else can answer: the attempt is the probe.
    let cloud = cloud_asked && means.cloud.is_ok() && !(means.link_down && local);
    let mut actions = Vec::new();
    if local {
        actions.push(Action::LOCAL);
    }
    if cloud {
        actions.extend(cloud_actions(space, views, asked.route, wanted, means.pictures)?);
    }
    if actions.is_empty() { Err(nothing(asked, means)) } else { Ok(actions) }
}

fn cloud_actions(
    space: &ActionSpace,
    views: &[ViewContext],
    route: RouteChoice,
    wanted: Option<ViewSet>,
    pictures: Result<(), &str>,
) -> Result<Vec<Action>, ApiError> {
    if let (RouteChoice::Cloud, Some(wanted)) = (route, wanted) {
        for view in wanted.iter() {
            sendable(&views[view], pictures).map_err(|problem| {
                ApiError::bad_request(
                    "tether.views",
                    "view_unavailable",
                    format!("view {}: {problem}", views[view].name),
                )
            })?;
        }
        return Ok(vec![space.cloud(wanted)]);
    }
    let free = (0..views.len()).filter(|&view| sendable(&views[view], pictures).is_ok());
    let free = free.filter(|&view| wanted.is_none_or(|wanted| wanted.contains(view)));
    let free = free.fold(ViewSet::EMPTY, ViewSet::with);
    let cloud = space.actions().filter(|action| action.route() == Route::Cloud);
    Ok(cloud.filter(|&action| space.sent(action).is_subset_of(free)).collect())
}

fn sendable(view: &ViewContext, pictures: Result<(), &str>) -> Result<(), String> {
    match &view.encoded_bytes {
        _ if view.local_only => Err("it is local_only in the configuration and never leaves the device".into()),
        tether_protocol::Reading::Unknown { unknown } => Err(format!("it has nothing to send: {unknown}")),
        tether_protocol::Reading::Known { .. } if view.is_text => Ok(()),
        tether_protocol::Reading::Known { .. } => pictures.map_err(str::to_owned),
    }
}

fn wanted_views(space: &ActionSpace, names: &[ViewName]) -> Result<ViewSet, ApiError> {
    names.iter().try_fold(ViewSet::EMPTY, |set, name| match space.view_index(name.as_str()) {
        Some(view) => Ok(set.with(view)),
        None => {
            let known: Vec<&str> = space.views().iter().map(ViewName::as_str).collect();
            let message = format!("no view is named {name}; configured: {}", known.join(", "));
            Err(ApiError::bad_request("tether.views", "unknown_view", message))
        }
    })
}

/// Says why nobody may answer, as precisely as it is known.
fn nothing(asked: Asked<'_>, means: Means<'_>) -> ApiError {
    let cloud = match (asked.local_only, means.cloud) {
        (Some(_), _) => "the turn is local_only",
        (None, Err(why)) => why,
        (None, Ok(())) => "not asked for",
    };
    let local = means.local.err().unwrap_or("not asked for");
    match asked.route {
        RouteChoice::Cloud => match asked.local_only {
            None => ApiError::server(503, "cloud_unavailable", format!("cloud: {cloud}")),
            Some(why) => {
                let message = "route \"cloud\" was asked for, but nothing of this turn may leave the device";
                ApiError::refused(403, "local_only", format!("{message}: {why}"))
            }
        },
        RouteChoice::Local => ApiError::server(503, "local_unavailable", format!("local: {local}")),
        RouteChoice::Auto => {
            ApiError::server(503, "nothing_can_answer", format!("nobody may answer: local: {local}; cloud: {cloud}"))
        }
    }
}

#[cfg(test)]
mod tests;
