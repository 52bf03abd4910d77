//! One answer under way, local or from the cloud, seen the same. Dropping it stops whoever is answering.

mod local;
mod remote;
mod zoo;

pub(crate) use local::api_error;
pub use local::{LoadError, LocalModel, LocalPrompt};
pub use remote::CloudRun;
pub(crate) use remote::{CloudInputs, PictureForm, WrittenTurn};
pub(crate) use zoo::ZooChoice;
pub use zoo::{LocalZoo, ZooError};

use tether_protocol::api::ApiError;
use tether_protocol::record::{FinishReason, Upload, Usage};
use tether_protocol::wire::Vision;

/// What an answer under way says: any number of `Text`, then `Done` or `Failed` once.
#[derive(Debug)]
pub enum Step {
    /// Whole characters, never empty.
    Text(String),
    Done(Finished),
    Failed(ApiError),
}

/// The end of an answer, as its maker counted it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finished {
    pub finish_reason: FinishReason,
    pub usage: Usage,
    /// The far side did not count tokens; `usage` and `cost_usd` were estimated from bytes.
    pub usage_estimated: bool,
    pub cost_usd: Option<f64>,
    pub dropped_messages: u32,
    pub queue_ms: Option<f64>,
    /// Prompt tokens that were not computed again, where that is known.
    pub cached_tokens: Option<u32>,
}

/// An answer under way.
pub enum Running {
    Local(local::LocalRun),
    Cloud(remote::CloudRun),
}

impl Running {
    /// The next step. Safe to drop while it waits.
    pub async fn next(&mut self) -> Step {
        match self {
            Running::Local(run) => run.next().await,
            Running::Cloud(run) => run.next().await,
        }
    }

    /// The model that answers, as far as it is known by now.
    pub fn model(&self) -> &str {
        match self {
            Running::Local(run) => run.model(),
            Running::Cloud(run) => run.model(),
        }
    }

    /// How the images that travelled are seen; known with the first token.
    pub fn vision(&self) -> Option<Vision> {
        match self {
            Running::Local(_) => None,
            Running::Cloud(run) => run.vision(),
        }
    }

    /// Tokens so far, and whether they are estimated from bytes: what is known of an answer that does not come to its end.
    pub fn usage(&self) -> (Usage, bool) {
        match self {
            Running::Local(run) => (run.usage(), false),
            Running::Cloud(run) => (run.usage(), true),
        }
    }

    /// What went up to the cloud, as far as it is known by now.
    pub fn upload(&self) -> Option<Upload> {
        match self {
            Running::Local(_) => None,
            Running::Cloud(run) => Some(run.upload()),
        }
    }

    /// Bytes that crossed so far: up, down.
    pub fn bytes(&self) -> (u64, u64) {
        match self {
            Running::Local(_) => (0, 0),
            Running::Cloud(run) => run.bytes(),
        }
    }
}
