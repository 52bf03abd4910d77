//! What `model` and `tether.route` ask for together.

use crate::daemon::{Daemon, Live};
use crate::execute::LocalModel;
use std::sync::Arc;
use tether_protocol::api::{ApiError, ChatTurn, RouteChoice};

/// The route asked for, and the model of the zoo, if one was named.
#[derive(Clone)]
pub(super) struct Routing {
    pub route: RouteChoice,
    pub cloud_model: Option<String>,
    /// A local model that was named; otherwise the zoo chooses, where there is one.
    pub local_model: Option<Arc<LocalModel>>,
}

impl Routing {
    /// # Errors
    /// 404 `model_not_found` with the names that would be found; 400 if `model` and `tether.route` contradict.
    pub(super) fn of(request: &ChatTurn, daemon: &Daemon, live: &Live) -> Result<Self, ApiError> {
        let Some(model) = request.model.as_deref() else {
            return Ok(Self { route: request.route, cloud_model: None, local_model: None });
        };
        let local = daemon.local_models().find(|local| local.name() == model).cloned();
        let named = if model == "local" || local.is_some() {
            Self { route: RouteChoice::Local, cloud_model: None, local_model: local }
        } else if model == "cloud" {
            Self { route: RouteChoice::Cloud, cloud_model: None, local_model: None }
        } else if let Some(name) = model.strip_prefix("cloud/").filter(|name| !name.is_empty()) {
            Self { route: RouteChoice::Cloud, cloud_model: Some(name.to_owned()), local_model: None }
        } else {
            return Err(unknown(model, daemon, live));
        };
        if request.route != RouteChoice::Auto && request.route != named.route {
            let message = format!("model {model:?} and tether.route contradict; leave one out");
            return Err(ApiError::bad_request("tether.route", "invalid_value", message));
        }
        Ok(named)
    }
}

fn unknown(model: &str, daemon: &Daemon, live: &Live) -> ApiError {
    let names = daemon.model_names(live);
    let message = format!("there is no model {model:?}; there are: {}", names.join(", "));
    ApiError::refused(404, "model_not_found", message).with_param("model")
}
