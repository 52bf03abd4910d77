//! Sampling: what can be drawn, how often, and that the same seed draws the same.

use proptest::prelude::*;
use tether_models::sampling::REPETITION_WINDOW_TOKENS;
use tether_models::{ModelError, Sampler, SamplingOptions};

fn drawn(options: &SamplingOptions, logits: &[f32], draws: usize) -> Vec<u32> {
    let mut sampler = Sampler::new(options).unwrap();
    (0..draws).map(|_| sampler.sample(&mut logits.to_vec(), &[]).unwrap()).collect()
}

fn warm() -> SamplingOptions {
    SamplingOptions { temperature: 1.0, seed: 7, ..SamplingOptions::default() }
}

/// The ids ever drawn, ascending.
fn support(options: &SamplingOptions, logits: &[f32]) -> Vec<u32> {
    let mut ids = drawn(options, logits, 2000);
    ids.sort_unstable();
    ids.dedup();
    ids
}

#[test]
fn greedy_takes_the_greatest_and_the_first_among_equals() {
    let greedy = SamplingOptions::default();
    assert_eq!(drawn(&greedy, &[0.0, 3.0, 3.0, -1.0], 3), [1, 1, 1]);
    assert_eq!(drawn(&greedy, &[f32::NAN, f32::NEG_INFINITY, -5.0], 1), [2]);
    assert_eq!(drawn(&greedy, &[1.0, f32::INFINITY], 1), [1]);
}

#[test]
fn each_cut_leaves_the_tokens_it_promises() {
    // Probabilities 0.4, 0.3, 0.2, 0.1 in mixed order.
    let logits = [0.2f32.ln(), 0.4f32.ln(), 0.1f32.ln(), 0.3f32.ln()];
    assert_eq!(support(&warm(), &logits), [0, 1, 2, 3]);
    assert_eq!(support(&SamplingOptions { top_k: Some(2), ..warm() }, &logits), [1, 3]);
    assert_eq!(support(&SamplingOptions { top_p: Some(0.65), ..warm() }, &logits), [1, 3]);
    assert_eq!(support(&SamplingOptions { top_p: Some(0.75), ..warm() }, &logits), [0, 1, 3]);
    assert_eq!(support(&SamplingOptions { min_p: Some(0.6), ..warm() }, &logits), [1, 3]);
    assert_eq!(support(&SamplingOptions { top_k: Some(3), min_p: Some(0.7), ..warm() }, &logits), [1, 3]);
    assert_eq!(support(&SamplingOptions { top_p: Some(f32::MIN_POSITIVE), ..warm() }, &logits), [1]);
}

#[test]
fn draws_follow_the_probabilities() {
    let logits = [0.7f32.ln(), 0.2f32.ln(), 0.1f32.ln()];
    let ids = drawn(&warm(), &logits, 20_000);
    for (id, share) in [(0, 0.7), (1, 0.2), (2, 0.1)] {
        let seen = ids.iter().filter(|&&drawn| drawn == id).count() as f64 / 20_000.0;
        // Five standard deviations at most, and the seed is fixed.
        assert!((seen - share).abs() < 0.017, "token {id}: {seen} drawn, {share} expected");
    }
}

#[test]
fn top_p_over_a_flat_vocabulary_sorts_as_far_as_needed() {
    let flat = vec![0.0f32; 5000];
    let options = SamplingOptions { top_p: Some(0.5), ..warm() };
    let mut ids = drawn(&options, &flat, 5000);
    ids.sort_unstable();
    assert!(*ids.last().unwrap() < 2500, "equal weights are cut in the order of their ids");
    assert!(*ids.last().unwrap() > 2300);
}

#[test]
fn a_repeated_token_becomes_less_likely_within_the_window() {
    let options = SamplingOptions { repetition_penalty: 2.0, ..SamplingOptions::default() };
    let mut sampler = Sampler::new(&options).unwrap();
    assert_eq!(sampler.sample(&mut [1.5, 2.0, -1.0], &[1, 1, 1]).unwrap(), 0, "penalised once, not thrice");
    assert_eq!(sampler.sample(&mut [-1.5, -1.0], &[1]).unwrap(), 0, "negative logits move down too");
    let mut old = vec![1];
    old.extend(vec![2; REPETITION_WINDOW_TOKENS]);
    assert_eq!(sampler.sample(&mut [1.5, 2.0, -1.0], &old).unwrap(), 1, "what is long past is forgiven");
    assert_eq!(sampler.sample(&mut [1.5, 2.0], &[99]).unwrap(), 1, "an id beyond the logits is ignored");
}

#[test]
fn scores_that_are_no_numbers_are_an_error_and_never_a_panic() {
    for logits in [vec![], vec![f32::NAN; 4], vec![f32::NEG_INFINITY; 4]] {
        for options in [SamplingOptions::default(), warm()] {
            let error = Sampler::new(&options).unwrap().sample(&mut logits.clone(), &[]).unwrap_err();
            assert!(matches!(error, ModelError::Logits(_)), "{error}");
        }
    }
}

#[test]
fn a_parameter_out_of_range_is_refused_by_name() {
    let base = SamplingOptions::default;
    let cases = [
        ("temperature", SamplingOptions { temperature: -0.1, ..base() }),
        ("temperature", SamplingOptions { temperature: f32::NAN, ..base() }),
        ("temperature", SamplingOptions { temperature: f32::INFINITY, ..base() }),
        ("top_k", SamplingOptions { top_k: Some(0), ..base() }),
        ("top_p", SamplingOptions { top_p: Some(0.0), ..base() }),
        ("top_p", SamplingOptions { top_p: Some(1.1), ..base() }),
        ("top_p", SamplingOptions { top_p: Some(f32::NAN), ..base() }),
        ("min_p", SamplingOptions { min_p: Some(-0.1), ..base() }),
        ("min_p", SamplingOptions { min_p: Some(f32::NAN), ..base() }),
        ("repetition_penalty", SamplingOptions { repetition_penalty: 0.0, ..base() }),
        ("repetition_penalty", SamplingOptions { repetition_penalty: f32::NAN, ..base() }),
    ];
    for (name, options) in cases {
        match Sampler::new(&options).err().unwrap() {
            ModelError::Parameter { parameter, .. } => assert_eq!(parameter, name),
            other => panic!("{other}"),
        }
    }
    let limits =
        SamplingOptions { temperature: 100.0, top_p: Some(1.0), min_p: Some(1.0), repetition_penalty: 100.0, ..base() };
    assert!(Sampler::new(&limits).is_ok());
}

proptest! {
    #[test]
    fn any_logits_give_a_possible_token_and_the_same_seed_the_same(
        logits in proptest::collection::vec(prop_oneof![any::<f32>(), -20.0f32..20.0], 1..400),
        temperature in prop_oneof![Just(0.0f32), 0.01f32..5.0, Just(1e-30f32), Just(100.0f32)],
        top_k in proptest::option::of(1usize..500),
        top_p in proptest::option::of(0.001f32..=1.0),
        min_p in proptest::option::of(0.0f32..=1.0),
        repetition_penalty in 0.5f32..2.0,
        seed in any::<u64>(),
        history in proptest::collection::vec(0u32..500, 0..300),
    ) {
        let options = SamplingOptions { temperature, top_k, top_p, min_p, repetition_penalty, seed };
        let run = || {
            let mut sampler = Sampler::new(&options).unwrap();
            (0..3).map(|_| sampler.sample(&mut logits.clone(), &history).ok()).collect::<Vec<_>>()
        };
        let ids = run();
        prop_assert_eq!(&ids, &run());
        let possible = |id: u32| logits[id as usize] > f32::NEG_INFINITY;
        match ids[0] {
            Some(id) => prop_assert!(possible(id)),
            None => prop_assert!((0..logits.len() as u32).all(|id| !possible(id) || logits[id as usize] * repetition_penalty == f32::NEG_INFINITY)),
        }
    }
}
