//! Policies by name.

use crate::config::{PolicyName, PolicySettings};
use crate::policy;
use std::path::PathBuf;
use tether_policies::Policy;
use tether_policies::fixed::{AlwaysCloud, AlwaysLocal};
use tether_policies::rule::Rule;

/// A policy that flies, and what it is called in the tables.
pub struct Contender {
    pub name: String,
    pub policy: Box<dyn Policy>,
    /// Whether its spending is held to the line over the window, as the daemon does.
    pub paced: bool,
}

pub const NAMES: &str = "tether, rule, always-local, always-cloud, cloud-then-local, or the path of a policy's .json";

#[derive(Debug, thiserror::Error)]
pub enum ContenderError {
    #[error("no policy is named {0:?}; there are {NAMES}")]
    Unknown(String),
    #[error("the policy {name}: {problem}")]
    File { name: String, problem: String },
}

impl Contender {
    /// # Errors
    /// An unknown name, or a file that is no policy.
    pub fn named(name: &str) -> Result<Contender, ContenderError> {
        let of = |policy: Box<dyn Policy>, paced| Ok(Contender { name: name.to_owned(), policy, paced });
        match name {
            "tether" => of(learned(name, None)?, true),
            "rule" => of(Box::new(Rule), true),
            "always-local" => of(Box::new(AlwaysLocal), true),
            "always-cloud" => of(Box::new(AlwaysCloud), true),
            // Without a pace the caps alone end it: the cloud with every view until the budget is gone, then local.
            "cloud-then-local" => of(Box::new(AlwaysCloud), false),
            path if path.ends_with(".json") => of(learned(name, Some(path.into()))?, true),
            other => Err(ContenderError::Unknown(other.to_owned())),
        }
    }
}

fn learned(name: &str, file: Option<PathBuf>) -> Result<Box<dyn Policy>, ContenderError> {
    let settings = PolicySettings { name: PolicyName::Tether, file };
    policy::load(&settings).map_err(|error| ContenderError::File { name: name.to_owned(), problem: error.to_string() })
}
