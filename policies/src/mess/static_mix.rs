//! The cheapest mixture of models whose mean satisfaction reaches alpha, where means and costs are known: a linear
//! programme with two constraints, whose optimum therefore mixes at most two models.

/// A model's mean satisfaction (0..1) and mean cost (any unit).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Means {
    pub satisfaction: f64,
    pub cost: f64,
}

/// `share` of the requests go to `upper`, the rest to `lower`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Mix {
    pub lower: usize,
    pub upper: usize,
    pub share: f64,
    pub means: Means,
}

/// The cheapest mix at or above `alpha`; `None` where no model reaches it.
pub fn cheapest(models: &[Means], alpha: f64) -> Option<Mix> {
    let single = |i: usize| Mix { lower: i, upper: i, share: 1.0, means: models[i] };
    let enough = |i: usize| models[i].satisfaction >= alpha;
    let singles = (0..models.len()).filter(|&i| enough(i)).map(single);
    let pairs = (0..models.len())
        .filter(|&i| !enough(i))
        .flat_map(|lower| (0..models.len()).filter(|&i| enough(i)).map(move |upper| pair(models, lower, upper, alpha)));
    singles.chain(pairs).min_by(|a, b| a.means.cost.total_cmp(&b.means.cost))
}

fn pair(models: &[Means], lower: usize, upper: usize, alpha: f64) -> Mix {
    let (low, high) = (models[lower], models[upper]);
    let share = (alpha - low.satisfaction) / (high.satisfaction - low.satisfaction);
    let blend = |low: f64, high: f64| low + share * (high - low);
    let means = Means { satisfaction: blend(low.satisfaction, high.satisfaction), cost: blend(low.cost, high.cost) };
    Mix { lower, upper, share, means }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn zoo(models: &[(f64, f64)]) -> Vec<Means> {
        models.iter().map(|&(satisfaction, cost)| Means { satisfaction, cost }).collect()
    }

    #[test]
    fn mixes_two_neighbours_in_proportion() {
        let mix = cheapest(&zoo(&[(0.5, 1.0), (0.9, 5.0), (0.95, 50.0)]), 0.8).unwrap();
        assert_eq!((mix.lower, mix.upper), (0, 1));
        assert!((mix.share - 0.75).abs() < 1e-12 && (mix.means.cost - 4.0).abs() < 1e-12);
    }

    #[test]
    fn takes_one_model_where_that_is_cheapest_and_none_where_none_reaches() {
        assert_eq!(cheapest(&zoo(&[(0.8, 1.0), (0.9, 5.0)]), 0.8).unwrap().upper, 0);
        assert_eq!(cheapest(&zoo(&[(0.8, 1.0), (0.9, 5.0)]), 0.91), None);
        assert_eq!(cheapest(&[], 0.5), None);
    }

    proptest! {
        /// No mixture of three models on a fine grid is cheaper: the closed form over pairs is the linear programme.
        #[test]
        fn no_mixture_on_a_grid_is_cheaper(
            models in prop::collection::vec((0.0f64..1.0, 0.01f64..10.0), 3),
            alpha in 0.05f64..0.95,
        ) {
            let models = zoo(&models);
            let best = cheapest(&models, alpha);
            for a in 0..=20 {
                for b in 0..=(20 - a) {
                    let weights = [f64::from(a) / 20.0, f64::from(b) / 20.0, f64::from(20 - a - b) / 20.0];
                    let mean = |of: fn(&Means) -> f64| models.iter().zip(weights).map(|(m, w)| w * of(m)).sum::<f64>();
                    if mean(|m| m.satisfaction) >= alpha + 1e-9 {
                        prop_assert!(best.unwrap().means.cost <= mean(|m| m.cost) + 1e-9);
                    }
                }
            }
        }
    }
}
