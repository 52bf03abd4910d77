//! The real model against llama.cpp's answers, and against its own weights in f32.

use std::path::Path;
use tether_models::testing::real_model;
use tether_models::{Arithmetic, Cancel, ChatMessage, Engine, LoadOptions, OnContextFull};

/// Questions, and how llama.cpp's greedy answers from the same file begin (llama-cpp-python 0.3.36): as far as its two
/// best logits are at least 0.4 apart. Closer ones it orders differently itself, by whether it takes the prompt whole or
/// token by token. As text, and as the tokens that llama.cpp drew.
const ANSWERS: [(&str, &str, &[u32]); 3] = [
    (
        "Name the days of the week in order.",
        "The days of the week are: Monday, Tuesday, Wednesday, Thursday, Friday, Saturday, Sunday",
        &[504, 2009, 282, 260, 2605, 359, 42, 12397, 28, 14801, 28, 15083, 28, 14963, 28, 11655, 28, 14986, 28, 10528],
    ),
    (
        "Repeat after me: the red cup stands on the table beside the spoon.",
        "The spoon stands on the table beside the red cup.",
        &[504, 21967, 6443, 335, 260, 3252, 19032, 260, 2382, 7118, 30],
    ),
    (
        "Who wrote Romeo and Juliet?",
        "The story of Romeo and Juliet by William Shakespeare",
        &[504, 1977, 282, 30493, 284, 29117, 411, 4967, 12081],
    ),
];

/// Two logits closer than this may change places.
const CLOSE: f32 = 0.05;
/// Tokens of the passage that are enough here; `make bench-speed` takes all of them.
const PASSAGE_TOKENS: usize = 160;

fn load(path: &Path, arithmetic: Arithmetic) -> Engine {
    Engine::load(path, &LoadOptions { arithmetic, ..LoadOptions::default() }).unwrap()
}

fn best(logits: &[f32]) -> u32 {
    logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32
}

fn greedy(engine: &Engine, question: &str, count: usize) -> (String, Vec<u32>) {
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let messages = [message("system", "You are a helpful robot assistant. Answer briefly."), message("user", question)];
    let prompt = engine.prepare(&messages, OnContextFull::Error, 16).unwrap().tokens;
    let mut cache = engine.new_cache().unwrap();
    let mut logits = engine.prefill(&mut cache, &prompt).unwrap();
    let (mut answer, mut tokens) = (Vec::new(), Vec::new());
    while tokens.len() < count {
        let token = best(&logits);
        answer.extend_from_slice(engine.tokenizer().token_bytes(token));
        tokens.push(token);
        logits = engine.step(&mut cache, token).unwrap();
    }
    (String::from_utf8(answer).unwrap(), tokens)
}

#[test]
fn the_real_model_says_what_llama_cpp_says() {
    let Some(path) = real_model() else { return };
    let engine = load(&path, Arithmetic::Auto);
    for (question, answer, tokens) in ANSWERS {
        assert_eq!(greedy(&engine, question, tokens.len()), (answer.to_owned(), tokens.to_vec()));
    }
}

/// Nats of the token that follows each, and the best token with its lead over the next.
fn judge(engine: &Engine, tokens: &[u32]) -> (f64, Vec<(u32, f32)>) {
    let all = engine.prefill_all(&mut engine.new_cache().unwrap(), tokens, &Cancel::default()).unwrap();
    let rows = all.chunks_exact(engine.info().vocab_size);
    let mut nats = 0.0;
    for (row, &next) in rows.clone().zip(&tokens[1..]) {
        let total: f64 = row.iter().map(|&logit| f64::from(logit - row[next as usize]).exp()).sum();
        nats += total.ln();
    }
    let leads = rows.map(|row| {
        let best = best(row);
        let others = row.iter().enumerate().filter(|(token, _)| *token as u32 != best);
        (best, row[best as usize] - others.map(|(_, &logit)| logit).fold(f32::NEG_INFINITY, f32::max))
    });
    (nats / (tokens.len() - 1) as f64, leads.collect())
}

#[test]
fn quantised_activations_cost_neither_perplexity_nor_a_best_token() {
    let Some(path) = real_model() else { return };
    let (ours, reference) = (load(&path, Arithmetic::Auto), load(&path, Arithmetic::Reference));
    let mut tokens = ours.tokenizer().encode(include_str!("golden/passage.txt"), false).unwrap();
    tokens.truncate(PASSAGE_TOKENS);
    let ((our_nats, ours), (nats, reference)) = (judge(&ours, &tokens), judge(&reference, &tokens));
    let ratio = (our_nats - nats).exp();
    let differ = ours.iter().zip(&reference).filter(|(ours, theirs)| ours.0 != theirs.0 && theirs.1 >= CLOSE);
    let differ: Vec<_> = differ.map(|(_, theirs)| theirs.1).collect();
    println!(
        "perplexity {:.4} of f32's {:.4}: ratio {ratio:.5}; other best tokens: {differ:?}",
        our_nats.exp(),
        nats.exp()
    );
    assert!((ratio - 1.0).abs() < 0.005, "perplexity is {ratio} of the f32 model's");
    assert!(differ.is_empty(), "best tokens differ where f32 leads by {differ:?}");
}
