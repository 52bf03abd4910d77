//! MESS+ as published (arXiv 2505.19947), so that it can be checked: one queue, one constant cost per model, exploration
//! that asks the whole zoo, and a predictor that learns from exploration only.

/// The paper's defaults, beside `v`, which has the unit of 1 / cost and must be tuned.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PublishedParams {
    pub alpha: f64,
    pub v: f64,
    /// Exploration with probability `min(1, c / t^(1/4))`.
    pub c: f64,
    /// Of the predictor's stochastic gradient descent.
    pub learning_rate: f32,
}

impl PublishedParams {
    pub fn new(alpha: f64, v: f64) -> Self {
        Self { alpha, v, c: 0.1, learning_rate: 0.5 }
    }
}

/// What to do with one request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PublishedChoice {
    /// Ask every model, return the largest one's answer.
    Explore,
    Exploit(usize),
}

#[derive(Debug, Clone)]
pub struct Published {
    params: PublishedParams,
    models: usize,
    width: usize,
    round: u64,
    queue: f64,
    /// One row per model: `width` weights and a bias.
    weights: Vec<f32>,
    cost_sums: Vec<f64>,
    cost_counts: Vec<f64>,
}

impl Published {
    /// `models` in the order of their size, the largest last.
    pub fn new(models: usize, width: usize, params: PublishedParams) -> Self {
        Self {
            params,
            models,
            width,
            round: 0,
            queue: 0.0,
            weights: vec![0.0; models * (width + 1)],
            cost_sums: vec![0.0; models],
            cost_counts: vec![0.0; models],
        }
    }

    pub fn queue(&self) -> f64 {
        self.queue
    }

    /// The model that answers; `u` is uniform in 0..1. The first request explores, since nothing is known before it.
    pub fn choose(&mut self, features: &[f32], u: f64) -> PublishedChoice {
        self.round += 1;
        let explore = (self.params.c / (self.round as f64).powf(0.25)).min(1.0);
        if u < explore || self.cost_counts.contains(&0.0) {
            return PublishedChoice::Explore;
        }
        if self.queue == 0.0 {
            return PublishedChoice::Exploit(self.least(|m| self.mean_cost(m)));
        }
        let objective = |m: usize| {
            let satisfaction = f64::from(self.predict(m, features));
            self.params.v * self.mean_cost(m) + self.queue * (self.params.alpha - satisfaction)
        };
        PublishedChoice::Exploit(self.least(objective))
    }

    fn least(&self, value: impl Fn(usize) -> f64) -> usize {
        (0..self.models).min_by(|&a, &b| value(a).total_cmp(&value(b))).unwrap_or(0)
    }

    fn mean_cost(&self, model: usize) -> f64 {
        self.cost_sums[model] / self.cost_counts[model].max(1.0)
    }

    fn predict(&self, model: usize, features: &[f32]) -> f32 {
        let row = &self.weights[model * (self.width + 1)..(model + 1) * (self.width + 1)];
        let score: f32 = row.iter().zip(features).map(|(w, x)| w * x).sum::<f32>() + row[self.width];
        1.0 / (1.0 + (-score).exp())
    }

    /// The satisfaction of the answer that was returned.
    pub fn served(&mut self, satisfied: f64) {
        self.queue = (self.queue + self.params.alpha - satisfied).max(0.0);
    }

    pub fn paid(&mut self, model: usize, cost: f64) {
        self.cost_sums[model] += cost;
        self.cost_counts[model] += 1.0;
    }

    /// One step of gradient descent on an explored request: a label of every model.
    pub fn learn(&mut self, features: &[f32], labels: &[f64]) {
        for (model, &label) in labels.iter().enumerate() {
            let step = self.params.learning_rate * (label as f32 - self.predict(model, features));
            let row = &mut self.weights[model * (self.width + 1)..(model + 1) * (self.width + 1)];
            row.iter_mut().zip(features.iter().chain(&[1.0])).for_each(|(w, x)| *w += step * x);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn explores_at_the_published_rate() {
        let mut router = Published::new(2, 1, PublishedParams::new(0.5, 1.0));
        let mut explored = 0;
        for round in 0..10_000u32 {
            // A sequence that fills 0..1 evenly.
            let u = (f64::from(round) * 0.618_033_988_749_895).fract();
            if router.choose(&[0.0], u) == PublishedChoice::Explore {
                explored += 1;
                (0..2).for_each(|m| router.paid(m, 1.0));
            }
        }
        // The sum of 0.1 t^(-1/4) up to 10,000 is 0.1 x 4/3 x 1,000.
        assert!((120..=147).contains(&explored), "{explored}");
    }

    #[test]
    fn an_empty_queue_takes_the_cheapest_and_a_full_one_the_best() {
        let mut router = Published::new(2, 1, PublishedParams::new(0.9, 1.0));
        (0..2).for_each(|m| router.paid(m, [1.0, 5.0][m]));
        (0..50).for_each(|_| router.learn(&[0.0], &[0.0, 1.0]));
        assert_eq!(router.choose(&[0.0], 0.99), PublishedChoice::Exploit(0));
        (0..20).for_each(|_| router.served(0.0));
        assert!((router.queue() - 18.0).abs() < 1e-9);
        assert_eq!(router.choose(&[0.0], 0.99), PublishedChoice::Exploit(1));
    }
}
