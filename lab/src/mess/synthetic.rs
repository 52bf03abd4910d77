//! Seeded zoos, so that everything runs without data: kinds of requests, each with its words, and models whose skill
//! differs from kind to kind and falls with a request's difficulty.

use super::data::{Dataset, Row, encode};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use tether_policies::mess::Encoder;

#[derive(Debug, Clone, Copy)]
pub struct Shape {
    pub rows: usize,
    pub models: usize,
    pub kinds: usize,
}

impl Default for Shape {
    fn default() -> Self {
        Self { rows: 2_000, models: 3, kinds: 12 }
    }
}

/// Words of a kind's template and of its subject; half of a prompt is shared by all prompts of its kind.
const TEMPLATE_WORDS: usize = 8;
const SUBJECT_WORDS: usize = 60;

struct Kind {
    template: Vec<String>,
    subject: Vec<String>,
    /// Log-odds of satisfaction per model, before difficulty.
    skill: Vec<f64>,
    /// Mean answer length in tokens.
    length: f64,
    share: f64,
}

/// A zoo whose models cost about 1, 8, 64.. per token, each more often right than the last.
pub fn zoo(shape: Shape, seed: u64, encoder: &dyn Encoder) -> Dataset {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let kinds: Vec<Kind> = (0..shape.kinds).map(|_| kind(&mut rng, shape.models)).collect();
    let rows = (0..shape.rows).map(|_| row(&mut rng, &kinds, shape.models, encoder)).collect();
    let models = (0..shape.models).map(|m| format!("model-{}", m + 1)).collect();
    Dataset { name: format!("synthetic zoo {seed}"), models, rows }
}

fn word(rng: &mut ChaCha8Rng) -> String {
    (0..rng.random_range(3..9)).map(|_| char::from(rng.random_range(b'a'..=b'z'))).collect()
}

fn kind(rng: &mut ChaCha8Rng, models: usize) -> Kind {
    let ease = rng.random_range(-0.5..1.5);
    let skill = |m: usize, rng: &mut ChaCha8Rng| ease + 1.1 * m as f64 + rng.random_range(-0.8..0.8);
    Kind {
        template: (0..TEMPLATE_WORDS).map(|_| word(rng)).collect(),
        subject: (0..SUBJECT_WORDS).map(|_| word(rng)).collect(),
        skill: (0..models).map(|m| skill(m, rng)).collect(),
        length: 40.0 * rng.random_range(0.0f64..2.5).exp(),
        share: rng.random_range(0.2..1.0),
    }
}

fn row(rng: &mut ChaCha8Rng, kinds: &[Kind], models: usize, encoder: &dyn Encoder) -> Row {
    let mut pick = rng.random_range(0.0..kinds.iter().map(|kind| kind.share).sum::<f64>());
    let chosen = kinds.iter().find(|kind| {
        pick -= kind.share;
        pick < 0.0
    });
    let kind = chosen.unwrap_or(&kinds[0]);
    let words = rng.random_range(6..40);
    let mut text: Vec<&str> = kind.template.iter().map(String::as_str).collect();
    text.extend((0..words).map(|_| kind.subject[rng.random_range(0..SUBJECT_WORDS)].as_str()));
    // Longer requests are harder; the rest of the difficulty cannot be read off the text.
    let difficulty = (words as f64 - 23.0) / 20.0 + rng.random_range(-1.5..1.5);
    let luck: f64 = rng.random_range(0.02..0.98);
    let satisfied = |m: usize| {
        let score: f64 = kind.skill[m] - difficulty;
        f64::from(u8::from(1.0 / (1.0 + (-score).exp()) > luck))
    };
    let satisfied = (0..models).map(satisfied).collect();
    let length = |rng: &mut ChaCha8Rng| kind.length * rng.random_range(-0.5f64..0.5).exp();
    let cost = (0..models).map(|m| 1e-6 * 8f64.powi(m as i32) * length(rng)).collect();
    Row { features: encode(encoder, &text.join(" ")), satisfied, cost }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tether_policies::mess::HashedEncoder;

    #[test]
    fn a_seed_gives_one_zoo_and_stronger_models_cost_more() {
        let make = |seed| zoo(Shape { rows: 500, ..Shape::default() }, seed, &HashedEncoder);
        let (one, again, other) = (make(3), make(3), make(4));
        assert_eq!(one.rows[499].cost, again.rows[499].cost);
        assert_ne!(one.rows[499].cost, other.rows[499].cost);
        let means = one.means();
        assert!(means.windows(2).all(|w| w[0].satisfaction < w[1].satisfaction && w[0].cost < w[1].cost), "{means:?}");
    }
}
