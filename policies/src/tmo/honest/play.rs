//! A policy through dialogues: the next observation follows the action taken, and four budgets are kept or not.

use crate::tmo::data::{Dialogue, Turn};
use crate::tmo::honest::link::Costs;
use crate::tmo::honest::moment::{Moment, limits, refused, spend};
use crate::tmo::honest::response::ResponseModel;
use crate::tmo::mask::{ROUNDING, Reserve};
use crate::tmo::paper::Weights;
use crate::tmo::tether::scene::{Amounts, Past, Scene};
use tether_protocol::ViewSet;

/// What does not change while dialogues are played.
#[derive(Debug, Clone, Copy)]
pub struct Scoring<'a> {
    /// Fitted to dialogues that no policy under test saw.
    pub model: &'a ResponseModel,
    pub costs: &'a Costs,
    pub actions: &'a [Option<ViewSet>],
    pub weights: &'a Weights,
}

/// What a decision is made from: what a network sees, and the logged turn for those who may look.
#[derive(Debug, Clone, Copy)]
pub struct Now<'a> {
    pub scene: Scene<'a>,
    pub moment: &'a Moment,
    /// The turns up to this one, which is the last: what was asked, for those who read it.
    pub asked: &'a [Turn],
    /// This turn and those after it: for bounds only.
    pub coming: &'a [Moment],
}

/// How one dialogue went.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Played {
    /// Mean over the dialogue's turns, refused ones included.
    pub reward: f64,
    /// Of that the answers' own score, without association and costs; 0 for a refused turn.
    pub response: f64,
    pub turns: usize,
    pub refused: usize,
    /// Whether a budget was passed at the end.
    pub over: bool,
    /// Whether some sequence of actions would have served all of it.
    pub servable: bool,
}

/// Plays one dialogue whose length is known. `choose` gives an action's place, or `None` to refuse the turn.
pub fn play(
    dialogue: &Dialogue,
    budget: &Amounts,
    scoring: &Scoring<'_>,
    choose: &mut dyn FnMut(&Now<'_>) -> Option<usize>,
) -> Played {
    let view_count = dialogue.turns[0].association.len();
    let moments: Vec<Moment> = dialogue
        .turns
        .iter()
        .map(|turn| {
            let Scoring { model, costs, actions, weights } = scoring;
            Moment::new(Some(turn.task), &turn.association, actions, costs, model, weights)
        })
        .collect();
    let turns = moments.len();
    let free = |cost: [f64; 4]| std::array::from_fn(|r| if budget[r].is_none() { 0.0 } else { cost[r] });
    let reserve = Reserve::new(scoring.costs.levels(view_count).map(free));
    let servable = reserve.can_finish(limits(budget), turns as u32);
    let (mut remaining, mut history, mut reward, mut response, mut refusals) = (*budget, Vec::new(), 0.0, 0.0, 0);
    for (at, moment) in moments.iter().enumerate() {
        let scene = Scene {
            history: &history,
            before: at,
            task: moment.task,
            view_count,
            remaining,
            following: (turns - at - 1) as u32,
            following_known: true,
        };
        let now = Now { scene, moment, asked: &dialogue.turns[..=at], coming: &moments[at..] };
        let task = moment.task;
        match choose(&now) {
            Some(n) => {
                let facts = &moment.facts[n];
                remaining = spend(&remaining, &facts.cost);
                // A step over a budget earns nothing, as in the journal's form; the mask leaves no such step.
                if remaining.iter().flatten().all(|&left| left >= -ROUNDING) {
                    reward += moment.rewards[n];
                    response += scoring.model.predict(task, facts.cloud, facts.views.len());
                }
                history.push(Past { cloud: facts.cloud, views: facts.views, task });
            }
            None => {
                refusals += 1;
                reward += refused(scoring.weights);
                history.push(Past { cloud: false, views: ViewSet::EMPTY, task });
            }
        }
    }
    let over = remaining.iter().flatten().any(|&left| left < -ROUNDING);
    let [reward, response] = [reward, response].map(|sum| sum / turns as f64);
    Played { reward, response, turns, refused: refusals, over, servable }
}

/// The best sum of rewards over the coming turns within the budgets, and its first action; every sequence is tried, of
/// actions of one cost only the best. `None`: nothing fits.
pub fn optimum(coming: &[Moment], remaining: &Amounts) -> Option<(f64, usize)> {
    let (moment, rest) = coming.split_first()?;
    let mut best: Option<(f64, usize)> = None;
    for n in 0..moment.facts.len() {
        let beaten =
            |m: usize| moment.facts[m].cost == moment.facts[n].cost && (moment.rewards[m], n) > (moment.rewards[n], m);
        let left = spend(remaining, &moment.facts[n].cost);
        if left.iter().flatten().any(|&left| left < -ROUNDING) || (0..moment.facts.len()).any(beaten) {
            continue;
        }
        let mut sum = moment.rewards[n];
        if !rest.is_empty() {
            let Some((later, _)) = optimum(rest, &left) else { continue };
            sum += later;
        }
        if best.is_none_or(|(known, _)| sum > known) {
            best = Some((sum, n));
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::honest::hardware::HARDWARE;
    use crate::tmo::honest::link::Link;
    use crate::tmo::honest::moment::actions;
    use crate::tmo::paper::NETWORKS;
    use crate::tmo::synthetic;
    use crate::tmo::tether::policy::permit;

    #[test]
    fn the_mask_serves_what_can_be_served_and_the_optimum_is_best() {
        let data = synthetic::dataset(40, 3, 3);
        let turns: Vec<&Turn> = data.dialogues.iter().flat_map(|dialogue| &dialogue.turns).collect();
        let model = ResponseModel::fit(&turns, 4);
        let costs = Costs::new(&HARDWARE[3], &Link::Table(NETWORKS[0]));
        let (actions, weights) = (actions(3).unwrap(), Weights::default());
        let scoring = Scoring { model: &model, costs: &costs, actions: &actions, weights: &weights };
        let budget = [Some(25.0), Some(0.012), Some(500.0), Some(250e3)];
        let mut unserved = 0;
        for dialogue in &data.dialogues {
            let mut dearest = |now: &Now<'_>| {
                let mut open = vec![false; now.moment.facts.len()];
                permit(&now.scene, &now.moment.facts, &mut open).then(|| open.iter().rposition(|&open| open)).flatten()
            };
            let masked = play(dialogue, &budget, &scoring, &mut dearest);
            let mut best = |now: &Now<'_>| optimum(now.coming, &now.scene.remaining).map(|(_, n)| n);
            let bound = play(dialogue, &budget, &scoring, &mut best);
            assert!(!masked.over && !bound.over);
            assert_eq!(masked.servable, masked.refused == 0);
            assert_eq!(bound.servable, bound.refused == 0);
            assert!(!masked.servable || bound.reward >= masked.reward - 1e-9);
            unserved += usize::from(!masked.servable);
        }
        assert!(unserved > 0 && unserved < 40, "{unserved}");
    }
}
