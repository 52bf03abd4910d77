//! What a policy sees of one turn.

use crate::budget::Prices;
use crate::decision::Candidate;
use crate::ratings::Ratings;
use std::sync::Arc;
use tether_protocol::{Action, ActionSpace, Context, Cost, Route, ViewSet};

/// One earlier turn of the same dialogue.
#[derive(Debug, Clone, PartialEq)]
pub struct PastTurn {
    pub route: Route,
    /// The views that travelled.
    pub views: ViewSet,
    pub task: Option<String>,
}

/// Everything a decision may depend on, beside the permitted actions and what each would cost.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    pub space: ActionSpace,
    /// Earlier turns of this dialogue, oldest first.
    pub history: Vec<PastTurn>,
    /// The task category of the prompt, where it is known (TMO, section 3.1).
    pub task: Option<String>,
    /// Lower-case text of the newest user message; rules look for the names of views in it.
    pub text: String,
    /// Tokens of the whole prompt as the local model would see it; estimated where no local model is loaded.
    pub prompt_tokens: u32,
    /// The local model's context length in tokens, if there is a local model.
    pub local_context_tokens: Option<u32>,
    /// Tokens that the answer may take.
    pub max_tokens: u32,
    pub context: Context,
    /// What is left of each budget; `None` in a field: no budget there.
    pub remaining: Cost,
    /// The shadow prices of paced budgets: an action's price, in rewards, is `prices.of(&candidate.predicted)`.
    pub prices: Prices,
    /// Of earlier answers, whichever dialogue they were in.
    pub ratings: Arc<Ratings>,
    /// How many turns may follow this one, where somebody knows.
    pub turns_left: Option<u32>,
    pub deadline_ms: Option<u64>,
    /// The actions among which the permitted ones were left over by budgets, these included: what an action's costs are
    /// compared with. Empty: the permitted ones.
    pub considered: Vec<Candidate>,
}

impl Observation {
    /// Pictures that an action sends; sensors' readings are text.
    pub fn images(&self, action: Action) -> u32 {
        let views = self.space.sent(action);
        views.iter().filter(|&view| self.context.views.get(view).is_some_and(|view| !view.is_text)).count() as u32
    }
}
