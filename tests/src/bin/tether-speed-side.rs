//! Our side of `make bench-speed`: one request a line on standard input, one JSON answer a line; the same as
//! `tests/peers/speed.py serve`, which is llama.cpp's side.
//!
//!   tether-speed-side MODEL THREADS

use anyhow::{Context, Result};
use serde_json::{Value, json};
use std::io::BufRead;
use std::path::Path;
use std::time::Instant;
use tether_models::generate::PREFILL_CHUNK_TOKENS;
use tether_models::{Engine, LoadOptions, Sampler, SamplingOptions};

fn main() -> Result<()> {
    println!("{}", json!({"ready": true}));
    let arguments: Vec<String> = std::env::args().collect();
    let (path, threads) = (arguments.get(1).context("MODEL")?, arguments.get(2).context("THREADS")?.parse()?);
    let (before_kb, start) = (peak_kb()?, Instant::now());
    let engine = Engine::load(Path::new(path), &LoadOptions { threads: Some(threads), ..LoadOptions::default() })?;
    println!("{}", json!({"load_s": start.elapsed().as_secs_f64()}));
    let (mut cache, mut held) = (engine.new_cache()?, Vec::<u32>::new());
    let mut sampler = Sampler::new(&SamplingOptions::default())?;
    for line in std::io::stdin().lock().lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let prompt: Vec<u32> = serde_json::from_value(request["prompt"].clone())?;
        let generate = request["generate"].as_u64().context("generate")?;
        let fresh = request["fresh"].as_bool().unwrap_or(false);
        let common = held.iter().zip(&prompt).take_while(|(a, b)| a == b).count().min(prompt.len() - 1);
        let common = if fresh { 0 } else { common };
        cache.truncate(common);
        let start = Instant::now();
        let last = (prompt.len() - 1 - common) / PREFILL_CHUNK_TOKENS * PREFILL_CHUNK_TOKENS + common;
        for chunk in prompt[common..last].chunks(PREFILL_CHUNK_TOKENS) {
            engine.extend(&mut cache, chunk)?;
        }
        let mut logits = engine.prefill(&mut cache, &prompt[last..])?;
        let mut answer = vec![sampler.sample(&mut logits, &[])?];
        let first = start.elapsed().as_secs_f64();
        for _ in 0..generate {
            let mut logits = engine.step(&mut cache, answer[answer.len() - 1])?;
            answer.push(sampler.sample(&mut logits, &[])?);
        }
        let decode = start.elapsed().as_secs_f64() - first;
        held = [&prompt[..], &answer[..answer.len() - 1]].concat();
        let peak = peak_kb()? - before_kb;
        println!("{}", json!({"prefill_s": first, "decode_s": decode, "answer": answer, "peak_kb": peak}));
    }
    Ok(())
}

/// The most memory that this process had, mapped pages included.
fn peak_kb() -> Result<i64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
