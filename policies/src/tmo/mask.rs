//! Budgets that hold by construction: an action is permitted only if, after it, some concrete continuation of the
//! dialogue still fits every budget at once. The cheapest action may differ by resource, so reserving the minimum of
//! each resource alone would not do.

/// Turns that may follow one action: the search below grows with a power of them.
pub const MAX_TURNS_LEFT: usize = 12;

/// Whether `turns` more turns, each at one of these costs, fit what is `left` of every resource jointly.
///
/// Costs are non-negative, in the units of `left`. Order does not matter to a sum, so only multisets are searched.
pub fn can_finish<const R: usize>(costs: &[[f64; R]], left: [f64; R], turns: usize) -> bool {
    if left.iter().any(|&resource| resource < 0.0) {
        return false;
    }
    if turns == 0 {
        return true;
    }
    (0..costs.len()).any(|at| can_finish(&costs[at..], minus(left, costs[at]), turns - 1))
}

/// The actions after which `turns_after` further turns can still be paid, as one bool for each of `actions`.
///
/// `costs` are those of every action that a later turn may take.
pub fn permitted<const R: usize>(
    actions: &[[f64; R]],
    costs: &[[f64; R]],
    left: [f64; R],
    turns_after: usize,
) -> Vec<bool> {
    let turns = turns_after.min(MAX_TURNS_LEFT);
    actions.iter().map(|&cost| can_finish(costs, minus(left, cost), turns)).collect()
}

fn minus<const R: usize>(left: [f64; R], cost: [f64; R]) -> [f64; R] {
    std::array::from_fn(|resource| left[resource] - cost[resource])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_cheapest_of_each_alone_would_overspend() {
        // One action costs time, the other money: each alone looks affordable twice, together they are not.
        let costs = [[1.0, 0.0], [0.0, 1.0]];
        assert!(can_finish(&costs, [1.0, 1.0], 2));
        assert!(!can_finish(&costs, [1.0, 0.0], 2));
        assert_eq!(permitted(&costs, &costs, [1.0, 0.5], 0), [true, false]);
    }

    proptest! {
        #[test]
        fn no_dialogue_goes_over_and_a_servable_one_is_served(
            costs in prop::collection::vec(prop::array::uniform4(0.0f64..2.0), 1..6),
            budget in prop::array::uniform4(0.0f64..8.0),
            choices in prop::collection::vec(0usize..100, 1..7),
        ) {
            let turns = choices.len();
            let mut left = budget;
            let servable = can_finish(&costs, budget, turns);
            for (turn, choice) in choices.iter().enumerate() {
                let open: Vec<usize> = permitted(&costs, &costs, left, turns - turn - 1)
                    .into_iter().enumerate().filter(|(_, open)| *open).map(|(at, _)| at).collect();
                prop_assert_eq!(open.is_empty(), !servable, "turn {}", turn);
                if open.is_empty() { break; }
                left = minus(left, costs[open[choice % open.len()]]);
                prop_assert!(left.iter().all(|&resource| resource >= 0.0));
            }
        }
    }
}
