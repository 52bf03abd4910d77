//! Tiny random weights against plain loops, and the real weights against the figures that their authors publish.

use super::*;
use rand::{Rng, SeedableRng};
use std::collections::HashMap;

const TINY: Shape = Shape { vocab: 12, width: 8, layers: 2, heads: 2, inner: 16, positions: 16 };

/// Name -> shape and values, as a safetensors file has them.
type Weights = HashMap<String, (Vec<usize>, Vec<f32>)>;

fn random_weights() -> Weights {
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(7);
    let mut weights = Weights::new();
    let mut add = |name: String, shape: &[usize]| {
        let values = (0..shape.iter().product()).map(|_| rng.random_range(-0.6..0.6f32)).collect();
        weights.insert(name, (shape.to_vec(), values));
    };
    let Shape { vocab, width, inner, positions, layers, .. } = TINY;
    for (name, rows) in [("word", vocab), ("position", positions), ("token_type", 2)] {
        add(format!("embeddings.{name}_embeddings.weight"), &[rows, width]);
    }
    let mut pair = |name: String, rows: usize, columns: usize| {
        let shape = if columns == 0 { vec![rows] } else { vec![rows, columns] };
        add(format!("{name}.weight"), &shape);
        add(format!("{name}.bias"), &[rows]);
    };
    pair("embeddings.LayerNorm".into(), width, 0);
    for layer in 0..layers {
        let at = |name: &str| format!("encoder.layer.{layer}.{name}");
        for part in ["query", "key", "value"] {
            pair(at(&format!("attention.self.{part}")), width, width);
        }
        pair(at("attention.output.dense"), width, width);
        pair(at("attention.output.LayerNorm"), width, 0);
        pair(at("intermediate.dense"), inner, width);
        pair(at("output.dense"), width, inner);
        pair(at("output.LayerNorm"), width, 0);
    }
    weights
}

fn write(folder: &Path, weights: &Weights) -> (PathBuf, PathBuf) {
    let tensors: HashMap<String, Tensor> = weights
        .iter()
        .map(|(name, (shape, values))| {
            (name.clone(), Tensor::from_vec(values.clone(), shape.as_slice(), &Device::Cpu).unwrap())
        })
        .collect();
    let (file, tokenizer) = (folder.join("tiny.safetensors"), folder.join("tokenizer.json"));
    candle_core::safetensors::save(&tensors, &file).unwrap();
    let words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "box", "is", "on", "the", "table", "##s"];
    let vocab: HashMap<&str, usize> = words.iter().copied().zip(0..).collect();
    let json = serde_json::json!({
        "version": "1.0",
        "added_tokens": [],
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true, "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {"type": "BertProcessing", "sep": ["[SEP]", 3], "cls": ["[CLS]", 2]},
        "decoder": null,
        "truncation": null,
        "padding": {"strategy": {"Fixed": 14}, "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0, "pad_type_id": 0, "pad_token": "[PAD]"},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100, "vocab": vocab},
    });
    std::fs::write(&tokenizer, json.to_string()).unwrap();
    (file, tokenizer)
}

/// BERT in plain loops of f64, from the paper's formulas alone.
struct Plain<'a>(&'a Weights);

type Rows = Vec<Vec<f64>>;

impl Plain<'_> {
    fn row(&self, name: &str, index: usize) -> Vec<f64> {
        let (shape, values) = &self.0[name];
        let width = *shape.last().unwrap();
        values[index * width..(index + 1) * width].iter().map(|&value| f64::from(value)).collect()
    }

    fn linear(&self, name: &str, rows: &Rows) -> Rows {
        let bias = self.row(&format!("{name}.bias"), 0);
        let weight = format!("{name}.weight");
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f64>();
        let one = |row: &Vec<f64>| (0..bias.len()).map(|o| dot(&self.row(&weight, o), row) + bias[o]).collect();
        rows.iter().map(one).collect()
    }

    fn norm(&self, name: &str, rows: &Rows) -> Rows {
        let (scale, shift) = (self.row(&format!("{name}.weight"), 0), self.row(&format!("{name}.bias"), 0));
        let one = |row: &Vec<f64>| {
            let mean = row.iter().sum::<f64>() / row.len() as f64;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / row.len() as f64;
            let scaled = |(i, x): (usize, &f64)| (x - mean) / (variance + 1e-12).sqrt() * scale[i] + shift[i];
            row.iter().enumerate().map(scaled).collect()
        };
        rows.iter().map(one).collect()
    }

    fn attention(&self, at: &str, rows: &Rows) -> Rows {
        let part = |name: &str| self.linear(&format!("{at}.attention.self.{name}"), rows);
        let (query, key, value) = (part("query"), part("key"), part("value"));
        let size = TINY.width / TINY.heads;
        let mut mixed = vec![vec![0.0; TINY.width]; rows.len()];
        for head in 0..TINY.heads {
            let span = head * size..(head + 1) * size;
            for (i, out) in mixed.iter_mut().enumerate() {
                let score =
                    |j: usize| span.clone().map(|d| query[i][d] * key[j][d]).sum::<f64>() / (size as f64).sqrt();
                let weights: Vec<f64> = (0..rows.len()).map(|j| score(j).exp()).collect();
                let total: f64 = weights.iter().sum();
                for d in span.clone() {
                    out[d] = (0..rows.len()).map(|j| weights[j] / total * value[j][d]).sum();
                }
            }
        }
        self.linear(&format!("{at}.attention.output.dense"), &mixed)
    }

    fn embed(&self, ids: &[usize]) -> Vec<f64> {
        let embedding = |(position, &id): (usize, &usize)| {
            let parts = [
                self.row("embeddings.word_embeddings.weight", id),
                self.row("embeddings.position_embeddings.weight", position),
                self.row("embeddings.token_type_embeddings.weight", 0),
            ];
            (0..TINY.width).map(|d| parts.iter().map(|part| part[d]).sum()).collect()
        };
        let mut rows = self.norm("embeddings.LayerNorm", &ids.iter().enumerate().map(embedding).collect());
        for layer in 0..TINY.layers {
            let at = format!("encoder.layer.{layer}");
            rows = self.norm(&format!("{at}.attention.output.LayerNorm"), &add(&self.attention(&at, &rows), &rows));
            let inner = self.linear(&format!("{at}.intermediate.dense"), &rows);
            let inner = inner.into_iter().map(|row| row.into_iter().map(gelu).collect()).collect();
            rows = self.norm(
                &format!("{at}.output.LayerNorm"),
                &add(&self.linear(&format!("{at}.output.dense"), &inner), &rows),
            );
        }
        let mean = |d: usize| rows.iter().map(|row| row[d]).sum::<f64>() / rows.len() as f64;
        let mean: Vec<f64> = (0..TINY.width).map(mean).collect();
        let length = mean.iter().map(|x| x * x).sum::<f64>().sqrt();
        mean.into_iter().map(|x| x / length).collect()
    }
}

fn add(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(x, y)| x + y).collect()).collect()
}

/// With the error function by its series, `2/sqrt(pi) sum (-1)^n x^(2n+1) / (n! (2n+1))`.
fn gelu(x: f64) -> f64 {
    let z = x / std::f64::consts::SQRT_2;
    let (mut term, mut sum) = (z, z);
    for n in 1..200 {
        term *= -z * z / f64::from(n);
        sum += term / f64::from(2 * n + 1);
    }
    0.5 * x * (1.0 + 2.0 / std::f64::consts::PI.sqrt() * sum)
}

#[test]
fn a_tiny_model_gives_what_plain_loops_give() {
    let folder = tempfile::tempdir().unwrap();
    let weights = random_weights();
    let (file, tokenizer) = write(folder.path(), &weights);
    let encoder = SentenceEncoder::open(&file, &tokenizer, TINY).unwrap();
    for (text, ids) in [
        ("The red boxs, a table", vec![2, 9, 5, 6, 11, 1, 4, 10, 3]),
        ("", vec![2, 3]),
        // Cut at the model's 16 positions, both marks included.
        (&"a ".repeat(40), [vec![2], vec![4; 14], vec![3]].concat()),
    ] {
        let found = encoder.embed(text).unwrap();
        let wanted = Plain(&weights).embed(&ids);
        let furthest = found.iter().zip(&wanted).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(found.len() == TINY.width && furthest < 1e-5, "{text:?}: {found:?} {wanted:?}");
    }
}

#[test]
fn what_does_not_fit_is_refused_by_file() {
    let folder = tempfile::tempdir().unwrap();
    let mut weights = random_weights();
    let (file, tokenizer) = write(folder.path(), &weights);
    let refused = |shape: Shape, weights: &Path, tokenizer: &Path| {
        SentenceEncoder::open(weights, tokenizer, shape).err().expect("refused").to_string()
    };
    let small = refused(Shape { vocab: 11, ..TINY }, &file, &tokenizer);
    assert!(small.contains("tiny.safetensors") || small.contains("tokenizer.json"), "{small}");
    assert!(refused(TINY, &file, &file).contains("tiny.safetensors"));
    assert!(refused(TINY, &folder.path().join("none"), &tokenizer).contains("none"));
    weights.remove("encoder.layer.1.output.dense.weight");
    let (file, tokenizer) = write(folder.path(), &weights);
    assert!(refused(TINY, &file, &tokenizer).contains("encoder.layer.1.output.dense"));
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    a.iter().zip(b).map(|(x, y)| x * y).sum()
}

/// The similarities that the library's own quick start prints for these weights, and the first numbers of the vector
/// that the model's page gives for its example.
#[test]
#[ignore = "needs all-minilm-l6-v2 (91 MB): run `make test-encoder`, which pulls it"]
fn the_real_weights_give_the_published_figures() {
    let encoder = SentenceEncoder::from_registry(&Registry::from_env().unwrap()).unwrap();
    assert_eq!(encoder.width(), 384);
    let texts = ["The weather is lovely today.", "It's so sunny outside!", "He drove to the stadium."];
    let vectors: Vec<Vec<f32>> = texts.iter().map(|text| encoder.embed(text).unwrap()).collect();
    for (i, j, wanted) in [(0, 1, 0.6660), (0, 2, 0.1046), (1, 2, 0.1411), (0, 0, 1.0)] {
        let found = cosine(&vectors[i], &vectors[j]);
        assert!((found - wanted).abs() < 1e-4, "{i} {j}: {found} {wanted}");
    }
    let example = encoder.embed("This is an example sentence").unwrap();
    for (found, wanted) in example.iter().zip([0.0676569, 0.0634959, 0.0487131]) {
        assert!((found - wanted).abs() < 1e-4, "{:?}", &example[..3]);
    }
}
