//! Dialogues over one worker: whatever is kept, shared, pushed out, spilled, restored or guessed ahead, an answer is the
//! one that a fresh cache gives.

use proptest::prelude::*;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, LazyLock, mpsc};
use std::time::{Duration, Instant};
use tether_models::testing::{TinyArchitecture, TinyModel, real_model};
use tether_models::{
    Advance, Cancel, ChatMessage, DiskOptions, Engine, Event, GenerateOptions, Generated, Generation, Job, LoadOptions,
    OnContextFull, Sampler, SamplingOptions, Sequence, SlotOptions, Worker, WorkerOptions,
};

const ALL: [TinyArchitecture; 5] = [
    TinyArchitecture::Llama,
    TinyArchitecture::Qwen2,
    TinyArchitecture::Qwen3,
    TinyArchitecture::Gemma3,
    TinyArchitecture::Phi3,
];

static ENGINES: LazyLock<Vec<Arc<Engine>>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().unwrap();
    let load = |architecture| {
        // A file each: a loaded model still reads its embedding from it.
        let path = folder.path().join(format!("{architecture:?}.gguf"));
        TinyModel::new(architecture).write(&path).unwrap();
        Arc::new(Engine::load(&path, &LoadOptions::default()).unwrap())
    };
    ALL.into_iter().map(load).collect()
});

fn options(sampling: &SamplingOptions, max_tokens: usize) -> GenerateOptions {
    GenerateOptions { sampling: sampling.clone(), max_tokens, stop: Vec::new() }
}

fn warm(seed: u64) -> SamplingOptions {
    SamplingOptions { temperature: 0.8, top_p: Some(0.9), repetition_penalty: 1.1, seed, ..SamplingOptions::default() }
}

/// The answer's tokens, one step after the other over a cache of its own.
fn plain(engine: &Engine, prompt: &[u32], sampling: &SamplingOptions, max_tokens: usize) -> Vec<u32> {
    let mut cache = engine.new_cache().unwrap();
    let mut sampler = Sampler::new(sampling).unwrap();
    let mut tokens = prompt.to_vec();
    let mut logits = engine.prefill(&mut cache, prompt).unwrap();
    while tokens.len() < prompt.len() + max_tokens {
        let token = sampler.sample(&mut logits, &tokens).unwrap();
        if engine.tokenizer().is_end(token) {
            break;
        }
        tokens.push(token);
        logits = engine.step(&mut cache, token).unwrap();
    }
    tokens.split_off(prompt.len())
}

fn generated(generation: Generation<'_>) -> (String, Generated) {
    let (mut generation, mut text) = (generation, String::new());
    loop {
        match generation.advance().unwrap() {
            Advance::Prefilled => {}
            Advance::Text(more) => text.push_str(&more),
            Advance::Done(more, generated) => return (text + &more, generated),
        }
    }
}

fn answer(worker: &Worker, session: Option<&str>, prompt: &[u32], options: &GenerateOptions) -> (String, Generated) {
    let (sender, events) = mpsc::channel();
    let job = Job {
        client: 1,
        session: session.map(str::to_owned),
        prompt: prompt.to_vec(),
        options: options.clone(),
        cancel: Cancel::default(),
        sink: Box::new(move |event| sender.send(event).unwrap_or_default()),
    };
    worker.submit(job).unwrap();
    let mut text = String::new();
    for event in events {
        match event {
            Event::Started => {}
            Event::Text(more) => text.push_str(&more),
            Event::Done(generated) => return (text, generated),
            other => panic!("{other:?}"),
        }
    }
    panic!("the events ended without an end")
}

fn disk(folder: &tempfile::TempDir) -> DiskOptions {
    DiskOptions { folder: folder.path().to_owned(), max_bytes: 1 << 30, fingerprint: [1; 32] }
}

/// One page in each layer: 64 tokens.
fn page_bytes(engine: &Engine) -> usize {
    let mut cache = engine.new_cache().unwrap();
    engine.step(&mut cache, 1).unwrap();
    cache.bytes()
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what} did not come about");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn logits_computed_together_have_the_bits_of_single_steps() {
    for (engine, architecture) in ENGINES.iter().zip(ALL) {
        let tokens: Vec<u32> = (0..90).map(|i| i * 37 % 280).collect();
        let (before, ahead) = tokens.split_at(70);
        let (mut together, mut single) = (engine.new_cache().unwrap(), engine.new_cache().unwrap());
        engine.extend(&mut together, before).unwrap();
        before.iter().for_each(|&token| engine.extend(&mut single, &[token]).unwrap());
        let all = engine.prefill_all(&mut together, ahead, &Cancel::default()).unwrap();
        let vocab = engine.info().vocab_size;
        assert_eq!(all.len(), ahead.len() * vocab);
        for (row, &token) in all.chunks_exact(vocab).zip(ahead) {
            assert!(row == engine.step(&mut single, token).unwrap(), "{architecture:?}: other bits");
        }
    }
}

/// Prompts that repeat themselves, so that there is something to guess.
fn repetitive(engine: &Engine, seed: u32) -> Vec<u32> {
    let vocab = engine.info().vocab_size as u32;
    (0..60).map(|i| (i % (11 + seed) * 17 + seed) % vocab.min(250)).collect()
}

#[test]
fn guessing_ahead_changes_no_answer() {
    let mut accepted = 0;
    for (engine, architecture) in ENGINES.iter().zip(ALL) {
        for seed in 0..6 {
            for sampling in [SamplingOptions::default(), warm(seed.into())] {
                let prompt = repetitive(engine, seed);
                let wanted = plain(engine, &prompt, &sampling, 80);
                let mut sequence = Sequence::new(engine).unwrap();
                let options = options(&sampling, 80);
                let generation = Generation::new(engine, &mut sequence, prompt.clone(), &options).unwrap();
                let (text, end) = generated(generation.with_speculation());
                let case = format!("{architecture:?}, seed {seed}, {sampling:?}");
                assert_eq!(text, engine.tokenizer().decode(&wanted), "{case}");
                assert_eq!(end.completion_tokens, wanted.len(), "{case}");
                assert!(end.accepted_tokens <= end.drafted_tokens, "{case}");
                accepted += end.accepted_tokens;
                // What is left in the sequence is what was said (the end of the turn may be part of it), no more.
                let said = [&prompt[..], &wanted].concat();
                let held = sequence.tokens();
                let beyond = held.len().saturating_sub(said.len());
                assert!(held.starts_with(&said[..held.len() - beyond]) && beyond <= 1, "{case}");
                assert!(held[held.len() - beyond..].iter().all(|&token| engine.tokenizer().is_end(token)), "{case}");
            }
        }
    }
    // How many depends on times: guesses that do not pay are given up.
    assert!(accepted > 50, "only {accepted} guesses were right: this test would not see a wrong one");
}

#[test]
fn an_answer_guessed_ahead_ends_exactly_at_its_limits() {
    let engine = &ENGINES[0];
    let prompt = repetitive(engine, 1);
    let wanted = plain(engine, &prompt, &SamplingOptions::default(), 40);
    for max_tokens in 1..40 {
        let mut sequence = Sequence::new(engine).unwrap();
        let options = options(&SamplingOptions::default(), max_tokens);
        let generation = Generation::new(engine, &mut sequence, prompt.clone(), &options).unwrap();
        let (text, end) = generated(generation.with_speculation());
        assert_eq!(text, engine.tokenizer().decode(&wanted[..max_tokens]));
        assert_eq!(end.completion_tokens, max_tokens);
    }
    // The context's end, too.
    let full: Vec<u32> = prompt.iter().cycle().take(2040).copied().collect();
    let mut sequence = Sequence::new(engine).unwrap();
    let generation = Generation::new(engine, &mut sequence, full, &options(&SamplingOptions::default(), 100)).unwrap();
    assert_eq!(generated(generation.with_speculation()).1.completion_tokens, 8);
}

#[derive(Debug, Clone)]
struct Turn {
    /// `None`: the client sends everything each time.
    session: Option<u8>,
    /// Which dialogue goes on.
    dialogue: u8,
    /// Begins the dialogue anew, from the shared beginning.
    anew: bool,
    said: Vec<u32>,
    max_tokens: usize,
    seed: Option<u64>,
    forget: bool,
}

fn turns() -> impl Strategy<Value = Vec<Turn>> {
    let said = prop::collection::vec(0..40u32, 1..40);
    let turn =
        (prop::option::of(0..3u8), 0..3u8, prop::bool::weighted(0.2), said, 1..25usize, prop::option::of(0..3u64))
            .prop_flat_map(|(session, dialogue, anew, said, max_tokens, seed)| {
                prop::bool::weighted(0.1).prop_map(move |forget| Turn {
                    session,
                    dialogue: session.unwrap_or(dialogue + 3),
                    anew,
                    said: said.clone(),
                    max_tokens,
                    seed,
                    forget,
                })
            });
    prop::collection::vec(turn, 1..14)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_interleaving_of_dialogues_answers_as_fresh_caches_do(
        turns in turns(),
        which in 0..ALL.len(),
        pages in prop::sample::select(vec![0, 2, 9, 1 << 16]),
        on_disk: bool,
        speculation: bool,
        restart_at in prop::option::of(0..14usize),
    ) {
        let engine = &ENGINES[which];
        let max_bytes = pages * page_bytes(engine);
        let folder = tempfile::tempdir().unwrap();
        let start = || {
            let slots = SlotOptions { max_bytes, ..SlotOptions::default() };
            let options = WorkerOptions { slots, disk: on_disk.then(|| disk(&folder)), speculation, ..WorkerOptions::default() };
            Worker::start(engine.clone(), options).unwrap()
        };
        let mut worker = start();
        let mut dialogues: HashMap<u8, Vec<u32>> = HashMap::new();
        let beginning: Vec<u32> = (0..50).collect();
        for (index, turn) in turns.iter().enumerate() {
            if restart_at == Some(index) {
                drop(worker);
                worker = start();
            }
            let dialogue = dialogues.entry(turn.dialogue).or_insert_with(|| beginning.clone());
            if turn.anew {
                dialogue.clone_from(&beginning);
            }
            dialogue.extend(&turn.said);
            let sampling = turn.seed.map_or_else(SamplingOptions::default, warm);
            let session = turn.session.map(|session| format!("s{session}"));
            let wanted = plain(engine, dialogue, &sampling, turn.max_tokens);
            let (text, _) = answer(&worker, session.as_deref(), dialogue, &options(&sampling, turn.max_tokens));
            prop_assert_eq!(text, engine.tokenizer().decode(&wanted), "turn {} of {:?}", index, turns);
            dialogue.extend(wanted);
            if let Some(session) = session.filter(|_| turn.forget) {
                worker.forget(&session);
            }
            prop_assert!(worker.stats().slots.bytes <= max_bytes);
        }
    }
}

#[test]
fn a_dialogue_goes_on_after_a_restart_without_a_prefill() {
    let (engine, folder) = (&ENGINES[0], tempfile::tempdir().unwrap());
    let start = || {
        let options = WorkerOptions { disk: Some(disk(&folder)), ..WorkerOptions::default() };
        Worker::start(engine.clone(), options).unwrap()
    };
    let greedy = options(&SamplingOptions::default(), 10);
    let worker = start();
    let prompt: Vec<u32> = (0..200).map(|i| i * 7 % 240).collect();
    answer(&worker, Some("kitchen"), &prompt, &greedy);
    answer(&worker, None, &[5; 100], &greedy);
    drop(worker);
    let worker = start();
    assert_eq!(worker.stats().disk.count, 1, "only named sessions are kept");
    let said = plain(engine, &prompt, &greedy.sampling, 10);
    let next = [&prompt[..], &said, &[1, 2, 3]].concat();
    // The answer's last token was drawn and not computed.
    assert_eq!(answer(&worker, Some("kitchen"), &next, &greedy).1.cached_tokens, 209);
    assert_eq!(worker.stats().disk.restored, 1);
    worker.forget("kitchen");
    assert_eq!((worker.stats().disk.count, worker.stats().slots.count), (0, 0));
    drop(worker);
    let worker = start();
    assert_eq!(answer(&worker, Some("kitchen"), &next, &greedy).1.cached_tokens, 0);
}

#[test]
fn a_session_pushed_out_of_memory_comes_back_from_disk() {
    let (engine, folder) = (&ENGINES[0], tempfile::tempdir().unwrap());
    let slots = SlotOptions { max_bytes: 5 * page_bytes(engine), ..SlotOptions::default() };
    let options = WorkerOptions { slots, disk: Some(disk(&folder)), ..WorkerOptions::default() };
    let worker = Worker::start(engine.clone(), options).unwrap();
    let greedy = self::options(&SamplingOptions::default(), 4);
    let prompt = |seed: u32| -> Vec<u32> { (0..120).map(|i| (i * 7 + seed) % 240).collect() };
    for (seed, session) in ["a", "b", "c"].into_iter().enumerate() {
        answer(&worker, Some(session), &prompt(seed as u32), &greedy);
    }
    assert!(worker.stats().slots.evicted > 0);
    wait_until("the spill", || worker.stats().disk.count > 0);
    assert_eq!(answer(&worker, Some("a"), &[&prompt(0)[..], &[9]].concat(), &greedy).1.cached_tokens, 120);
    assert_eq!(worker.stats().disk.restored, 1);
}

#[test]
fn what_nobody_uses_is_dropped_at_its_time_and_not_before() {
    let (engine, folder) = (&ENGINES[0], tempfile::tempdir().unwrap());
    let options = WorkerOptions { disk: Some(disk(&folder)), ..WorkerOptions::default() };
    let worker = Worker::start(engine.clone(), options).unwrap();
    let prompt: Vec<u32> = (0..100).collect();
    answer(&worker, Some("a"), &prompt, &self::options(&SamplingOptions::default(), 4));
    worker.set_max_age(Some(Duration::from_secs(3600)));
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(worker.stats().slots.count, 1);
    // The waiting thread learns of a shorter time.
    worker.set_max_age(Some(Duration::from_millis(60)));
    wait_until("the expiry", || worker.stats().slots.count == 0);
}

#[test]
fn a_folder_that_cannot_be_used_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    std::fs::write(&file, b"").unwrap();
    let disk = DiskOptions { folder: PathBuf::from(&file), max_bytes: 1, fingerprint: [0; 32] };
    let error = Worker::start(ENGINES[0].clone(), WorkerOptions { disk: Some(disk), ..WorkerOptions::default() });
    assert!(error.err().unwrap().to_string().contains("file"));
}

/// Five turns on the real model as the daemon renders them: each finds all of what was computed before.
#[test]
fn a_real_dialogue_computes_only_what_is_new() {
    let Some(path) = real_model() else { return };
    let engine = Arc::new(Engine::load(&path, &LoadOptions::default()).unwrap());
    let worker = Worker::start(engine.clone(), WorkerOptions::default()).unwrap();
    let message = |role: &str, content: &str| ChatMessage { role: role.into(), content: content.into() };
    let mut messages = vec![message("system", "You are a helpful robot assistant. Answer briefly.")];
    let mut held = 0;
    for (turn, question) in [
        "Name three fruits.",
        "Which of them is red?",
        "Say that again, please.",
        "And which is the largest animal?",
        "Thank you. Repeat the three fruits, one on each line.",
    ]
    .into_iter()
    .enumerate()
    {
        messages.push(message("user", question));
        let prompt = engine.prepare(&messages, OnContextFull::Error, 40).unwrap().tokens;
        let sampling = SamplingOptions { temperature: 0.2, top_p: Some(0.9), seed: 7, ..SamplingOptions::default() };
        let wanted = plain(&engine, &prompt, &sampling, 40);
        let (text, end) = answer(&worker, Some("s"), &prompt, &options(&sampling, 40));
        assert_eq!(text, engine.tokenizer().decode(&wanted), "turn {turn}");
        eprintln!("turn {turn}: {} of {} prompt tokens found, {held} held: {end:?}", end.cached_tokens, prompt.len());
        // The last token of an answer cut at its limit was drawn and not computed.
        assert!(end.cached_tokens + 1 >= held, "turn {turn} found {} of {held}", end.cached_tokens);
        held = prompt.len() + wanted.len();
        messages.push(message("assistant", &text));
    }
}
