//! Budgets that hold by construction: an action is permitted only if, after it, some concrete continuation of the
//! dialogue still fits every budget at once. The cheapest action may differ by resource, so reserving the minimum of
//! each resource alone would not do.
//!
//! Costs are non-negative and in the units of what is left; an unlimited resource has `left` infinite, an unknown cost
//! is infinite.

/// Costs that no other undercuts: more of them than this are left out, which can only forbid more. X = 4 has 17
/// actions in all, and usually two or three of them are on this front.
pub const MAX_FRONT: usize = 32;
/// Steps of one search for a continuation. Fronts of up to two costs need none, three costs over twelve turns fewer
/// than 100; a search that runs out finds no continuation, which can only forbid more.
pub const MAX_STEPS: u32 = 20_000;
/// Sums that reach a budget exactly, but for rounding, are within it.
pub const ROUNDING: f64 = 1e-9;

/// The costs that a later turn may take, dominated ones removed.
#[derive(Debug, Clone, PartialEq)]
pub struct Reserve<const R: usize> {
    front: [[f64; R]; MAX_FRONT],
    /// least[at]: the least of each resource over front[at..].
    least: [[f64; R]; MAX_FRONT],
    len: usize,
}

impl<const R: usize> Reserve<R> {
    pub fn new(costs: impl IntoIterator<Item = [f64; R]>) -> Self {
        let mut reserve = Self { front: [[0.0; R]; MAX_FRONT], least: [[f64::INFINITY; R]; MAX_FRONT], len: 0 };
        costs.into_iter().for_each(|cost| reserve.insert(cost));
        let mut least = [f64::INFINITY; R];
        for at in (0..reserve.len).rev() {
            least = std::array::from_fn(|r| least[r].min(reserve.front[at][r]));
            reserve.least[at] = least;
        }
        reserve
    }

    fn insert(&mut self, cost: [f64; R]) {
        let undercuts = |a: &[f64; R], b: &[f64; R]| a.iter().zip(b).all(|(a, b)| a <= b);
        if self.front[..self.len].iter().any(|kept| undercuts(kept, &cost)) {
            return;
        }
        let mut kept = 0;
        for at in 0..self.len {
            if !undercuts(&cost, &self.front[at]) {
                self.front[kept] = self.front[at];
                kept += 1;
            }
        }
        self.len = kept;
        if self.len < MAX_FRONT {
            self.front[self.len] = cost;
            self.len += 1;
        }
    }

    /// Whether `turns` more turns, each at one of these costs, fit what is `left` of every resource jointly.
    pub fn can_finish(&self, left: [f64; R], turns: u32) -> bool {
        if turns == 0 {
            return fits(&left);
        }
        // Two costs mixed in any proportion are decided in closed form; only a mix of three or more needs the search.
        self.one_or_two(&left, turns)
            || self.len > 2 && turns > 2 && self.search(0, left, turns, &mut { MAX_STEPS }).is_some()
    }

    /// Whether some m turns at one cost and the others at another fit.
    fn one_or_two(&self, left: &[f64; R], turns: u32) -> bool {
        let n = f64::from(turns);
        let front = &self.front[..self.len];
        front.iter().enumerate().any(|(i, a)| {
            front[i..].iter().any(|b| {
                // m * (a - b) <= left - n * b for each resource bounds m from above or below.
                let (mut low, mut high) = (0.0f64, n);
                for r in 0..R {
                    let (step, room) = (a[r] - b[r], left[r] + ROUNDING - n * b[r]);
                    if a[r].is_infinite() || b[r].is_infinite() {
                        // An unknown cost is taken only where the resource is unlimited.
                        if left[r] != f64::INFINITY {
                            return false;
                        }
                    } else if step > 0.0 {
                        high = high.min(room / step);
                    } else if step < 0.0 {
                        low = low.max(room / step);
                    } else if room < 0.0 {
                        return false;
                    }
                }
                low.ceil() <= high.floor()
            })
        })
    }

    /// Order does not matter to a sum, so only multisets are searched: costs from `from` on. `None`: no continuation.
    fn search(&self, from: usize, left: [f64; R], turns: u32, steps: &mut u32) -> Option<()> {
        *steps = steps.checked_sub(1)?;
        if turns == 0 {
            return fits(&left).then_some(());
        }
        let hopeless = |at: usize| (0..R).any(|r| self.least[at][r] * f64::from(turns) > left[r] + ROUNDING);
        if hopeless(from) {
            return None;
        }
        (from..self.len).find_map(|at| self.search(at, minus(left, self.front[at]), turns - 1, steps))
    }
}

fn fits<const R: usize>(left: &[f64; R]) -> bool {
    left.iter().all(|&resource| resource >= -ROUNDING)
}

/// Whether `turns` more turns, each at one of these costs, fit what is `left` of every resource jointly.
pub fn can_finish<const R: usize>(costs: &[[f64; R]], left: [f64; R], turns: usize) -> bool {
    Reserve::new(costs.iter().copied()).can_finish(left, clamped(turns))
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
    let reserve = Reserve::new(costs.iter().copied());
    actions.iter().map(|&cost| reserve.can_finish(minus(left, cost), clamped(turns_after))).collect()
}

fn clamped(turns: usize) -> u32 {
    turns.try_into().unwrap_or(u32::MAX)
}

/// What is left after a cost; an unlimited resource stays unlimited.
pub fn minus<const R: usize>(left: [f64; R], cost: [f64; R]) -> [f64; R] {
    std::array::from_fn(|r| if left[r] == f64::INFINITY { left[r] } else { left[r] - cost[r] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Every sequence, tried: what [`can_finish`] has to agree with.
    fn exhaustive<const R: usize>(costs: &[[f64; R]], left: [f64; R], turns: usize) -> bool {
        fits(&left)
            && (turns == 0 || (0..costs.len()).any(|at| exhaustive(&costs[at..], minus(left, costs[at]), turns - 1)))
    }

    #[test]
    fn the_cheapest_of_each_alone_would_overspend() {
        // One action costs time, the other money: each alone looks affordable twice, together they are not.
        let costs = [[1.0, 0.0], [0.0, 1.0]];
        assert!(can_finish(&costs, [1.0, 1.0], 2));
        assert!(!can_finish(&costs, [1.0, 0.0], 2));
        assert_eq!(permitted(&costs, &costs, [1.0, 0.5], 0), [true, false]);
    }

    #[test]
    fn unknown_costs_fit_only_unlimited_budgets() {
        let costs = [[f64::INFINITY, 1.0]];
        assert!(can_finish(&costs, [f64::INFINITY, 3.0], 3));
        assert!(!can_finish(&costs, [1e12, 3.0], 1));
        assert_eq!(permitted(&costs, &costs, [1e12, 3.0], 0), [false]);
    }

    #[test]
    fn a_long_dialogue_is_decided_at_once() {
        let costs = [[1.0, 0.0], [0.0, 1.0]];
        assert!(can_finish(&costs, [400.0, 600.0], 1_000));
        assert!(!can_finish(&costs, [400.0, 599.0], 1_000));
    }

    proptest! {
        #[test]
        fn it_agrees_with_trying_everything(
            costs in prop::collection::vec(prop::array::uniform3(0.0f64..2.0), 1..7),
            left in prop::array::uniform3(0.0f64..6.0),
            turns in 0usize..6,
        ) {
            prop_assert_eq!(can_finish(&costs, left, turns), exhaustive(&costs, left, turns));
        }

        #[test]
        fn no_dialogue_goes_over_and_a_servable_one_is_served(
            costs in prop::collection::vec(prop::array::uniform4(0.0f64..2.0), 1..6),
            budget in prop::array::uniform4(0.0f64..8.0),
            choices in prop::collection::vec(0usize..100, 1..7),
        ) {
            let turns = choices.len();
            let mut left = budget;
            let servable = exhaustive(&costs, budget, turns);
            for (turn, choice) in choices.iter().enumerate() {
                let open: Vec<usize> = permitted(&costs, &costs, left, turns - turn - 1)
                    .into_iter().enumerate().filter(|(_, open)| *open).map(|(at, _)| at).collect();
                prop_assert_eq!(open.is_empty(), !servable, "turn {}", turn);
                if open.is_empty() { break; }
                left = minus(left, costs[open[choice % open.len()]]);
                prop_assert!(fits(&left));
            }
        }
    }
}
