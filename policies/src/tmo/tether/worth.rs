//! What ratings teach: how much more or less an answer is worth here than where the network was trained.
//!
//! The residuals of the ratings against the training's response model are normal random effects: of each route (with a part
//! that both routes share, for people rate high or low whatever answers), and of each task and level; the posterior
//! mean is in closed form. Few ratings move little, cells without ratings move with their route.

use crate::ratings::Ratings;
use crate::tmo::honest::response::{LEVELS, ResponseModel};
use crate::tmo::paper::Weights;
use crate::tmo::tether::scene::{Facts, Ranges};

/// Variances of responses, whose mean is 1, about as M4A1 has them (.73, .05, .08): of single ratings around their kind's mean, ...
const NOISE: f64 = 0.7;
/// ... of each route, ...
const ROUTE: f64 = 0.05;
/// ... of each task and level, ...
const CELL: f64 = 0.1;
/// ... and of what both routes share, which M4A1 cannot tell: people rate high or low.
const SHARED: f64 = 0.25;

/// What an action is expected to earn in its own turn, by TMO's reward; what is not known adds nothing. The network learns
/// what is beyond that: the turns that follow, and budgets.
pub fn immediate(trained: &ResponseModel, task: Option<usize>, facts: &Facts, ranges: &Ranges) -> f32 {
    let weights = Weights::default();
    let response = trained.predict(task, facts.cloud, facts.views.len());
    let [association, latency, usage] = ranges.places(facts);
    (weights.response * response + weights.association * association
        - weights.latency * latency
        - weights.usage * usage) as f32
}

/// What to add to the value of an action of each level in this task.
pub fn corrections(
    trained: &ResponseModel,
    ratings: &Ratings,
    task_of: impl Fn(&str) -> usize,
    task: Option<usize>,
) -> [f64; LEVELS] {
    if ratings.is_empty() {
        return [0.0; LEVELS];
    }
    let views = |level: usize| level.saturating_sub(1);
    let expected = |task: Option<usize>, level: usize| trained.predict(task, level > 0, views(level));
    // By route: what the cells' residuals weigh, and their weighted sum.
    let mut weights = [0.0; 2];
    let mut sums = [0.0; 2];
    // Several names may stand for one task of the network's ("other").
    let mut own = [(0.0, 0.0); LEVELS];
    for (name, levels) in ratings.tasks() {
        let of = name.map(&task_of);
        for (level, rated) in levels.iter().enumerate().filter(|(_, rated)| rated.weight > 0.0) {
            let residual = rated.mean() - expected(of, level);
            let route = usize::from(level > 0);
            let weight = rated.weight / (NOISE + rated.weight * CELL);
            weights[route] += weight;
            sums[route] += weight * residual;
            if of == task {
                own[level].0 += rated.weight;
                own[level].1 += rated.weight * residual;
            }
        }
    }
    let routes = routes(weights, sums);
    std::array::from_fn(|level| {
        let route = routes[usize::from(level > 0)];
        let (weight, sum) = own[level];
        let share = weight * CELL / (NOISE + weight * CELL);
        if weight > 0.0 { route + share * (sum / weight - route) } else { route }
    })
}

/// The posterior mean of both routes' effects, whose prior covariance is `SHARED` beside the diagonal.
fn routes(weights: [f64; 2], sums: [f64; 2]) -> [f64; 2] {
    let (variance, shared) = (SHARED + ROUTE, SHARED);
    let determinant = variance * variance - shared * shared;
    // The prior's inverse, and what was observed.
    let (diagonal, beside) = (variance / determinant, -shared / determinant);
    let [a, b] = weights.map(|weight| diagonal + weight);
    let determinant = a * b - beside * beside;
    [(b * sums[0] - beside * sums[1]) / determinant, (a * sums[1] - beside * sums[0]) / determinant]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::synthetic;
    use crate::tmo::tether::scene::KNOWN_TASKS;
    use proptest::prelude::*;

    fn trained() -> ResponseModel {
        let data = synthetic::dataset(60, 3, 1);
        let turns: Vec<_> = data.dialogues.iter().flat_map(|dialogue| &dialogue.turns).collect();
        ResponseModel::fit(&turns, data.tasks.len())
    }

    fn task_of(name: &str) -> usize {
        name.parse().map_or(KNOWN_TASKS, |task: usize| task.min(KNOWN_TASKS))
    }

    fn told(ratings: &Ratings, task: Option<usize>) -> [f64; LEVELS] {
        corrections(&trained(), ratings, task_of, task)
    }

    #[test]
    fn nobody_rated_nothing_changes() {
        assert_eq!(told(&Ratings::default(), Some(1)), [0.0; LEVELS]);
    }

    #[test]
    fn many_ratings_win_over_what_training_knew_and_one_does_not() {
        let trained = trained();
        let expected = trained.predict(Some(2), true, 1);
        let mut ratings = Ratings::default();
        ratings.add(Some("2"), true, 1, 0.0);
        let once = told(&ratings, Some(2));
        assert!(once[2] < -0.1 * expected && once[2] > -0.7 * expected, "{once:?} of {expected}");
        assert!(once[2] < once[1] && once[1] < once[0] && once[0] < 0.0, "its own cell most, then its route: {once:?}");
        assert_eq!(
            told(&ratings, Some(1))[1],
            once[1],
            "of another task's cloud answers no more than the route is known"
        );
        (0..400).for_each(|_| ratings.add(Some("2"), true, 1, 0.0));
        let often = told(&ratings, Some(2));
        assert!((often[2] + expected).abs() < 0.05 * expected, "{often:?} of {expected}");
    }

    #[test]
    fn who_rates_everything_low_changes_no_preference_between_the_routes() {
        let trained = trained();
        let mut ratings = Ratings::default();
        for _ in 0..100 {
            for task in 0..KNOWN_TASKS {
                for level in 0..LEVELS {
                    let usual = trained.predict(Some(task), level > 0, level.saturating_sub(1));
                    ratings.add(Some(&task.to_string()), level > 0, level.saturating_sub(1), (usual - 0.4) / 2.0);
                }
            }
        }
        for correction in told(&ratings, Some(0)) {
            assert!((correction + 0.4).abs() < 0.02, "{correction}");
        }
    }

    #[test]
    fn both_routes_effects_are_the_regression_that_they_should_be() {
        // Without observations none; with one route's alone the other moves by the correlation of the prior.
        assert_eq!(routes([0.0; 2], [0.0; 2]), [0.0; 2]);
        let [local, cloud] = routes([1e9, 0.0], [1e9, 0.0]);
        assert!((local - 1.0).abs() < 1e-6 && (cloud - SHARED / (SHARED + ROUTE)).abs() < 1e-6, "{local} {cloud}");
    }

    proptest! {
        #[test]
        fn corrections_stay_within_what_was_seen(
            rated in prop::collection::vec((0usize..6, any::<bool>(), 0usize..5, 0.0f64..=1.0), 0..60),
            task in prop::option::of(0usize..=KNOWN_TASKS),
        ) {
            let mut ratings = Ratings::default();
            rated.iter().for_each(|(task, cloud, pictures, rating)| {
                let name = (*task < 5).then(|| task.to_string());
                ratings.add(name.as_deref(), *cloud, *pictures, *rating);
            });
            // Responses lie in 0..=2 and so do the trained ones: no residual is larger.
            prop_assert!(told(&ratings, task).iter().all(|correction| correction.abs() <= 2.0));
        }
    }
}
