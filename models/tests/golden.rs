//! Golden tokens on the real model. The expected beginning is llama.cpp's greedy answer to the same prompt from the same
//! file (llama-cpp-python 0.3.36); it ends before the first place where the two best logits are close.

use tether_models::testing::real_model;
use tether_models::{ChatMessage, Engine, LoadOptions, OnContextFull};

const PROMPT_TOKENS: usize = 29;
const ANSWER: &str = "Bonjour! I am a helpful robot assistant";

fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.into(), content: content.into() }
}

fn greedy() -> Option<(usize, String)> {
    let engine = Engine::load(&real_model()?, &LoadOptions::default()).unwrap();
    let messages = [
        message("system", "You are a helpful robot assistant. Answer briefly."),
        message("user", "Say hello in French."),
    ];
    let prompt = engine.prepare(&messages, OnContextFull::Error, 16).unwrap().tokens;
    let mut cache = engine.new_cache().unwrap();
    let mut logits = engine.prefill(&mut cache, &prompt).unwrap();
    let mut bytes = Vec::new();
    while bytes.len() < ANSWER.len() {
        let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0 as u32;
        bytes.extend_from_slice(engine.tokenizer().token_bytes(best));
        logits = engine.step(&mut cache, best).unwrap();
    }
    Some((prompt.len(), String::from_utf8(bytes).unwrap()))
}

#[test]
fn the_real_model_says_what_llama_cpp_says() {
    let Some((prompt_tokens, answer)) = greedy() else { return };
    assert_eq!((prompt_tokens, answer.as_str()), (PROMPT_TOKENS, ANSWER));
}
