//! What `make bench-speed` tells of our engine alone, as one JSON object: the memory's read rate and what decoding takes of it,
//! how near the model is to its own weights in f32, and joules a token where a meter can be read.
//!
//!   tether-speed-facts MODEL THREADS

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;
use tether::context::rapl;
use tether_models::testing::read_rate;
use tether_models::{Arithmetic, Cancel, Engine, LoadOptions};

/// Two logits closer than this may change places.
const CLOSE: f32 = 0.05;
const DECODED_TOKENS: u32 = 128;

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let (path, threads) = (arguments.get(1).context("MODEL")?, arguments.get(2).context("THREADS")?.parse()?);
    let load = |arithmetic| {
        Engine::load(Path::new(path), &LoadOptions { threads: Some(threads), arithmetic, ..LoadOptions::default() })
    };
    let ours = load(Arithmetic::Auto)?;
    let token_bytes = ours.info().token_bytes;
    let reads = [1 << 30, token_bytes as usize].map(|bytes| read_rate(bytes, threads));
    let (rate, joules) = decode(&ours)?;
    let tokens = ours.tokenizer().encode(include_str!("../../../models/tests/golden/passage.txt"), false)?;
    let reference = load(Arithmetic::Reference)?;
    let facts = json!({
        "token_bytes": token_bytes,
        "decode_tokens_per_s": rate,
        "read_bytes_per_s": {"gib": reads[0], "weights": reads[1]},
        "energy_j_per_token": joules.as_ref().ok(),
        "no_meter": joules.err(),
        "nearness": nearness(&judge(&ours, &tokens)?, &judge(&reference, &tokens)?),
    });
    println!("{facts}");
    Ok(())
}

/// Tokens a second of decoding, and joules a token or why nothing measured them.
fn decode(engine: &Engine) -> Result<(f64, Result<f64, String>)> {
    let mut cache = engine.new_cache()?;
    engine.prefill(&mut cache, &[1, 2, 3])?;
    let (meter, begun) = (rapl::counters(Path::new("/")), Instant::now());
    for token in 0..DECODED_TOKENS {
        engine.step(&mut cache, token + 4)?;
    }
    let rate = f64::from(DECODED_TOKENS) / begun.elapsed().as_secs_f64();
    let joules = meter.and_then(|before| {
        let grown = rapl::counters(Path::new("/"))?.since_j(&before);
        Ok(grown.ok_or("the counters changed their zones")? / f64::from(DECODED_TOKENS))
    });
    Ok((rate, joules))
}

/// What a model says of a text: the mean of nats a token, and after each token the best next one with its lead.
struct Judgement {
    nats: f64,
    best: Vec<(usize, f32)>,
}

fn judge(engine: &Engine, tokens: &[u32]) -> Result<Judgement> {
    let all = engine.prefill_all(&mut engine.new_cache()?, tokens, &Cancel::default())?;
    let rows = all.chunks_exact(engine.info().vocab_size);
    let mut nats = 0.0;
    for (row, &next) in rows.clone().zip(&tokens[1..]) {
        let total: f64 = row.iter().map(|&logit| f64::from(logit - row[next as usize]).exp()).sum();
        nats += total.ln();
    }
    let best = rows.map(|row| {
        let (mut best, mut next) = ((0, f32::NEG_INFINITY), f32::NEG_INFINITY);
        for (token, &logit) in row.iter().enumerate() {
            if logit > best.1 {
                (next, best) = (best.1, (token, logit));
            } else if logit > next {
                next = logit;
            }
        }
        (best.0, best.1 - next)
    });
    Ok(Judgement { nats: nats / (tokens.len() - 1) as f64, best: best.collect() })
}

fn nearness(ours: &Judgement, reference: &Judgement) -> Value {
    let pairs = || ours.best.iter().zip(&reference.best);
    let differ = pairs().filter(|(ours, theirs)| ours.0 != theirs.0);
    let far: Vec<f32> = differ.clone().map(|(_, theirs)| theirs.1).filter(|lead| *lead >= CLOSE).collect();
    json!({
        "perplexity_ratio": (ours.nats - reference.nats).exp(),
        "tokens": ours.best.len(),
        "differ_close": differ.count() - far.len(),
        "differ_leads": far,
    })
}
