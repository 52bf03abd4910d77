//! What ratings teach: how much more or less an answer is worth here than where the network was trained.
//!
//! The residuals of the ratings against the training's response model are normal random effects: of each route (with a part
//! that both routes share, for people rate high or low whatever answers), of each task, and of each task and level (a
//! cell); the posterior mean is in closed form. Few ratings move little; cells without ratings move with their task and
//! route. A cell that is known well is worth a little less beside it than one that nobody rated (an upper confidence
//! bound; Auer 2002): the better kind of answer may be one that was never tried.

use crate::ratings::Ratings;
use crate::tmo::honest::response::{LEVELS, ResponseModel};
use crate::tmo::paper::Weights;
use crate::tmo::tether::scene::{Facts, KNOWN_TASKS, Ranges};

/// The network's tasks, "other" and unknown among them.
const TASKS: usize = KNOWN_TASKS + 2;

/// Variances of responses, whose mean is 1: of single ratings around their kind's mean (M4A1 by maximum likelihood: .73), ...
const NOISE: f64 = 0.7;
/// ... of each route, ...
const ROUTE: f64 = 0.05;
/// ... of each task on both routes (M4A1: .042), ...
const TASK: f64 = 0.05;
/// ... of each task and level (within M4A1 .040; another place differs more from the training than that), ...
const CELL: f64 = 0.2;
/// ... and of what all share, which M4A1 cannot tell: people rate high or low.
const SHARED: f64 = 0.25;
/// How many standard deviations of what is not known of a cell count for it.
const OPTIMISM: f64 = 0.5;

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

/// What was rated of one task, by route: the precisions of its cells' means, and their residuals weighted by them.
type ByRoute = [(f64, f64); 2];

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
    // By the network's task: the weight of each level's ratings, and their weighted residuals. Several names may stand for
    // one of its tasks ("other"), and for the unknown one.
    let place = |task: Option<usize>| task.map_or(TASKS - 1, |task| task.min(TASKS - 2));
    let mut cells = [[(0.0, 0.0); LEVELS]; TASKS];
    for (name, levels) in ratings.tasks() {
        let of = name.map(&task_of);
        for (level, rated) in levels.iter().enumerate().filter(|(_, rated)| rated.weight > 0.0) {
            let residual = rated.mean() - trained.predict(of, level > 0, views(level));
            let cell = &mut cells[place(of)][level];
            *cell = (cell.0 + rated.weight, cell.1 + rated.weight * residual);
        }
    }
    let by_task = cells.map(|levels| {
        let mut routes = ByRoute::default();
        for (level, (weight, sum)) in levels.into_iter().enumerate().filter(|(_, (weight, _))| *weight > 0.0) {
            let (precision, route) = (weight / (NOISE + weight * CELL), &mut routes[usize::from(level > 0)]);
            *route = (route.0 + precision, route.1 + precision * sum / weight);
        }
        routes
    });
    let routes = routes(&by_task);
    let own = effect_of_task(&by_task[place(task)], routes);
    std::array::from_fn(|level| {
        let beside = routes[usize::from(level > 0)] + own;
        let (weight, sum) = cells[place(task)][level];
        let share = weight * CELL / (NOISE + weight * CELL);
        let known = if weight > 0.0 { beside + share * (sum / weight - beside) } else { beside };
        // Beside a cell that nobody rated, whose standard deviation is its prior's.
        known + OPTIMISM * CELL.sqrt() * ((1.0 - share).sqrt() - 1.0)
    })
}

/// The posterior mean of both routes' effects, whose prior covariance is `SHARED` beside the diagonal; the tasks' effects
/// are gone from the normal equations by their Schur complement.
fn routes(by_task: &[ByRoute]) -> [f64; 2] {
    let (variance, shared) = (SHARED + ROUTE, SHARED);
    let determinant = variance * variance - shared * shared;
    let (mut a, mut beside, mut b) = (variance / determinant, -shared / determinant, variance / determinant);
    let mut sums = [0.0; 2];
    for [local, cloud] in by_task {
        let precision = 1.0 / TASK + local.0 + cloud.0;
        let task = (local.1 + cloud.1) / precision;
        a += local.0 - local.0 * local.0 / precision;
        b += cloud.0 - cloud.0 * cloud.0 / precision;
        beside -= local.0 * cloud.0 / precision;
        sums[0] += local.1 - local.0 * task;
        sums[1] += cloud.1 - cloud.0 * task;
    }
    let determinant = a * b - beside * beside;
    [(b * sums[0] - beside * sums[1]) / determinant, (a * sums[1] - beside * sums[0]) / determinant]
}

/// The posterior mean of a task's effect on both routes, given the routes'.
fn effect_of_task(of: &ByRoute, routes: [f64; 2]) -> f64 {
    let [local, cloud] = of;
    let rest = local.1 + cloud.1 - local.0 * routes[0] - cloud.0 * routes[1];
    rest / (1.0 / TASK + local.0 + cloud.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tmo::synthetic;
    use proptest::prelude::*;

    /// What a cell that is known exactly is worth less than one that nobody rated.
    const KNOWN: f64 = OPTIMISM * 0.447_213_6;

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
        let elsewhere = told(&ratings, Some(1));
        assert!(once[1] < elsewhere[1] && elsewhere[1] < 0.0, "another task's cloud answers less: {elsewhere:?}");
        (0..400).for_each(|_| ratings.add(Some("2"), true, 1, 0.0));
        let often = told(&ratings, Some(2));
        assert!((often[2] + expected + KNOWN).abs() < 0.05 * expected, "{often:?} of {expected}");
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
        let [first, rest @ ..] = told(&ratings, Some(0));
        assert!((-0.4 - KNOWN..-0.4).contains(&first), "{first}");
        assert!(rest.iter().all(|correction| (correction - first).abs() < 0.02), "{first} {rest:?}");
    }

    #[test]
    fn of_two_kinds_that_are_as_good_the_one_that_is_not_known_is_tried() {
        let trained = trained();
        let mut ratings = Ratings::default();
        let expected = trained.predict(Some(1), true, 1);
        (0..20).for_each(|_| ratings.add(Some("1"), true, 1, expected / 2.0));
        let told = told(&ratings, Some(1));
        assert!(told[2] < told[3] - 0.1 && told[3] == told[1], "{told:?}");
    }

    /// The effects of both routes and of every task by elimination in the whole system of normal equations.
    fn eliminated(by_task: &[ByRoute]) -> Vec<f64> {
        let (variance, count) = (SHARED + ROUTE, 2 + by_task.len());
        let determinant = variance * variance - SHARED * SHARED;
        let mut rows = vec![vec![0.0; count + 1]; count];
        for (row, column, value) in [(0, 0, variance), (1, 1, variance), (0, 1, -SHARED), (1, 0, -SHARED)] {
            rows[row][column] = value / determinant;
        }
        for (task, of) in by_task.iter().enumerate() {
            rows[2 + task][2 + task] = 1.0 / TASK;
            for (route, (weight, sum)) in of.iter().enumerate() {
                for (row, column) in [(route, route), (2 + task, 2 + task), (route, 2 + task), (2 + task, route)] {
                    rows[row][column] += weight;
                }
                rows[route][count] += sum;
                rows[2 + task][count] += sum;
            }
        }
        for pivot in 0..count {
            let row = rows[pivot].clone();
            for other in (0..count).filter(|&other| other != pivot) {
                let share = rows[other][pivot] / row[pivot];
                rows[other].iter_mut().zip(&row).for_each(|(value, of)| *value -= share * of);
            }
        }
        (0..count).map(|n| rows[n][count] / rows[n][n]).collect()
    }

    proptest! {
        #[test]
        fn effects_are_those_of_the_whole_regression(
            by_task in prop::collection::vec(prop::array::uniform2((0.0f64..50.0, -50.0f64..50.0)), 0..6),
        ) {
            let (routes, whole) = (routes(&by_task), eliminated(&by_task));
            prop_assert!(routes.iter().zip(&whole).all(|(a, b)| (a - b).abs() < 1e-6), "{routes:?} {whole:?}");
            for (of, effect) in by_task.iter().zip(&whole[2..]) {
                prop_assert!((effect_of_task(of, routes) - effect).abs() < 1e-6);
            }
        }

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
            prop_assert!(told(&ratings, task).iter().all(|correction| correction.abs() <= 2.0 + KNOWN));
        }
    }
}
