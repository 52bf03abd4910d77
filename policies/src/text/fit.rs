//! Learning a [`Linear`]: accelerated gradient descent over all examples at once, which needs no seed and no step
//! size from outside (Nesterov; the step is the inverse of a bound on the curvature).

use super::features::{BUCKETS, visit};
use super::linear::Linear;

/// A text and what the model should say about it.
#[derive(Debug, Clone)]
pub struct Example {
    /// The features of the text, each bucket once.
    row: Vec<(usize, f64)>,
    /// `[O]`
    target: Vec<f64>,
    weight: f64,
}

impl Example {
    pub fn new(text: &str, target: Vec<f64>, weight: f64) -> Self {
        let mut found = Vec::new();
        let count = visit(text, |bucket, sign| found.push((bucket, f64::from(sign))));
        found.sort_unstable_by_key(|&(bucket, _)| bucket);
        let mut row: Vec<(usize, f64)> = Vec::new();
        let scale = 1.0 / (count.max(1) as f64).sqrt();
        for (bucket, sign) in found {
            match row.last_mut() {
                Some((last, value)) if *last == bucket => *value += sign * scale,
                _ => row.push((bucket, sign * scale)),
            }
        }
        Self { row, target, weight }
    }
}

/// What is made small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// Cross-entropy of the softmax with the target's distribution.
    Softmax,
    /// Half the squared distance to the target.
    Squared,
}

/// Fits weights with `l2 / 2 * |weight|^2` added to the mean loss; the bias is free.
///
/// # Panics
/// Without examples, or if a target has not one number for each output.
pub fn fit(examples: &[&Example], outputs: &[String], loss: Loss, l2: f64, steps: usize) -> Linear {
    let width = outputs.len();
    assert!(!examples.is_empty() && examples.iter().all(|example| example.target.len() == width));
    let total: f64 = examples.iter().map(|example| example.weight).sum();
    let largest = examples.iter().map(|e| e.row.iter().map(|(_, x)| x * x).sum::<f64>() + 1.0).fold(0.0, f64::max);
    let curvature = largest * if loss == Loss::Softmax { 0.5 } else { 1.0 } + l2;
    // The last row is the bias.
    let mut at = vec![0.0; (BUCKETS + 1) * width];
    let (mut before, mut gradient, mut out) = (at.clone(), at.clone(), vec![0.0; width]);
    for step in 0..steps {
        gradient.fill(0.0);
        for example in examples {
            predict(example, &at, &mut out);
            if loss == Loss::Softmax {
                softmax(&mut out);
            }
            for (output, (out, target)) in out.iter().zip(&example.target).enumerate() {
                let error = (out - target) * example.weight / total;
                example.row.iter().for_each(|&(bucket, x)| gradient[bucket * width + output] += error * x);
                gradient[BUCKETS * width + output] += error;
            }
        }
        let momentum = step as f64 / (step as f64 + 3.0);
        for (place, (at, (before, gradient))) in at.iter_mut().zip(before.iter_mut().zip(&gradient)).enumerate() {
            let shrink = if place < BUCKETS * width { l2 * *at } else { 0.0 };
            let now = *at - (gradient + shrink) / curvature;
            *at = now + momentum * (now - *before);
            *before = now;
        }
    }
    let (weight, bias) = before.split_at(BUCKETS * width);
    let narrow = |values: &[f64]| values.iter().map(|&value| value as f32).collect();
    Linear::new(outputs.to_vec(), narrow(weight), narrow(bias))
}

fn predict(example: &Example, weights: &[f64], out: &mut [f64]) {
    let width = out.len();
    out.copy_from_slice(&weights[BUCKETS * width..]);
    for &(bucket, x) in &example.row {
        let row = &weights[bucket * width..(bucket + 1) * width];
        out.iter_mut().zip(row).for_each(|(out, weight)| *out += x * weight);
    }
}

fn softmax(scores: &mut [f64]) {
    let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    scores.iter_mut().for_each(|score| *score = (*score - top).exp());
    let total: f64 = scores.iter().sum();
    scores.iter_mut().for_each(|score| *score /= total);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn a_ridge_regression_is_at_its_minimum() {
        let texts = [("kitchen", 0.3), ("music", 0.1), ("kitchen music", 0.25)];
        let examples: Vec<Example> = texts.iter().map(|&(text, y)| Example::new(text, vec![y], 1.0)).collect();
        let examples: Vec<&Example> = examples.iter().collect();
        let model = fit(&examples, &names(&["y"]), Loss::Squared, 0.01, 4_000);
        // At the minimum the bias' gradient, the mean error, is zero.
        let errors: f32 = texts.iter().map(|&(text, y)| model.apply(text).unwrap()[0] - y as f32).sum();
        assert!(errors.abs() < 1e-4, "{errors}");
        assert!(model.apply("kitchen").unwrap()[0] > model.apply("music").unwrap()[0] + 0.1);
    }

    #[test]
    fn classes_that_can_be_told_apart_are() {
        let texts =
            [("turn on the light", 0), ("switch off the lamp", 0), ("who is at home", 1), ("where is my cup", 1)];
        let target = |class: usize| (0..2).map(|at| f64::from(u8::from(at == class))).collect();
        let examples: Vec<Example> = texts.iter().map(|&(t, class)| Example::new(t, target(class), 1.0)).collect();
        let model = fit(&examples.iter().collect::<Vec<_>>(), &names(&["do", "ask"]), Loss::Softmax, 1e-3, 300);
        for (text, class) in texts {
            let out = model.apply(text).unwrap();
            assert!(out[class] > out[1 - class], "{text}");
        }
    }
}
