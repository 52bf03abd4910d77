//! What the tether policy is compared with in the honest environment. All but one are given the same mask.

mod read;

pub use read::Reader;

use super::a2c::A2c;
use tether_policies::tmo::data::Dialogue;
use tether_policies::tmo::honest::moment::Moment;
use tether_policies::tmo::honest::play::{Now, Scoring, optimum};
use tether_policies::tmo::tether::TetherPolicy;
use tether_policies::tmo::tether::policy::permit;

pub enum Rival<'a> {
    Tether(&'a TetherPolicy),
    /// As the daemon has it: the task and the association from the text, no joules where they have no budget.
    Deployed(&'a TetherPolicy, &'a Reader<'a>),
    /// The documented rule, on the question's words.
    Rule(&'a Reader<'a>),
    A2c(&'a A2c),
    /// As published: nothing keeps it within budgets but what it learned.
    Unmasked(&'a A2c),
    /// The best mean reward of each action by task, over the training dialogues.
    Table(Vec<Vec<f64>>),
    /// The best reward now, by the training dialogues' own response model.
    Greedy(Scoring<'a>),
    /// Knows the coming turns and what scores them: no policy can do better.
    Optimum,
}

impl Rival<'_> {
    pub fn table(training: &[&Dialogue], scoring: &Scoring<'_>, tasks: usize) -> Rival<'static> {
        let mut sums = vec![vec![0.0; scoring.actions.len()]; tasks];
        let mut counts = vec![0.0f64; tasks];
        for turn in training.iter().flat_map(|dialogue| &dialogue.turns) {
            let Scoring { model, costs, actions, weights } = scoring;
            let moment = Moment::new(Some(turn.task), &turn.association, actions, costs, model, weights);
            counts[turn.task] += 1.0;
            sums[turn.task].iter_mut().zip(&moment.rewards).for_each(|(sum, reward)| *sum += reward);
        }
        for (row, count) in sums.iter_mut().zip(counts) {
            row.iter_mut().for_each(|sum| *sum /= count.max(1.0));
        }
        Rival::Table(sums)
    }

    /// An action's place, or `None` where nothing fits.
    pub fn choose(&self, now: &Now<'_>, scoring: &Scoring<'_>) -> Option<usize> {
        let masked = |values: Vec<f64>| {
            let mut open = vec![false; values.len()];
            permit(&now.scene, &now.moment.facts, &mut open);
            let open = (0..values.len()).filter(|&n| open[n]);
            // The first of equals.
            open.reduce(|best, n| if values[n] > values[best] { n } else { best })
        };
        match self {
            Rival::Tether(policy) => {
                let mut scores = vec![0.0; now.moment.facts.len()];
                policy.choose(&now.scene, &now.moment.facts, 0, &mut scores).ok().map(|choice| choice.index)
            }
            Rival::Deployed(policy, reader) => reader.with(now, |scene, facts| {
                let mut scores = vec![0.0; facts.len()];
                policy.choose(scene, facts, 0, &mut scores).ok().map(|choice| choice.index)
            }),
            Rival::Rule(reader) => reader.rule(now),
            Rival::A2c(a2c) => masked(a2c.logits(now, scoring.costs)),
            Rival::Unmasked(a2c) => {
                let logits = a2c.logits(now, scoring.costs);
                (0..logits.len()).reduce(|best, n| if logits[n] > logits[best] { n } else { best })
            }
            Rival::Table(rows) => masked(rows[now.scene.task?].clone()),
            Rival::Greedy(training) => {
                let Scoring { model, actions, weights, .. } = training;
                let costs = scoring.costs;
                let association = &now.asked[now.asked.len() - 1].association;
                let moment = Moment::new(now.scene.task, association, actions, costs, model, weights);
                masked(moment.rewards)
            }
            Rival::Optimum => optimum(now.coming, &now.scene.remaining).map(|(_, n)| n),
        }
    }
}
