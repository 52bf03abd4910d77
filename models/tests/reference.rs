//! Agreement with candle-transformers' own quantised models, on whole prompts and token by token.

use candle_core::quantized::{GgmlDType, gguf_file};
use candle_core::{Device, Tensor};
use candle_transformers::models::{quantized_llama, quantized_phi3, quantized_qwen2, quantized_qwen3};
use std::fs::File;
use std::path::Path;
use tether_models::testing::{TinyArchitecture, TinyModel, real_model};
use tether_models::{Engine, LoadOptions, Requantize};

const PROMPT: [u32; 12] = [5, 99, 17, 42, 42, 7, 200, 113, 64, 250, 31, 8];

fn load(path: &Path) -> Engine {
    Engine::load(path, &LoadOptions { requantize: Requantize::Never, ..LoadOptions::default() }).unwrap()
}

/// The reference's logits: of the whole prompt, then of each further token.
type Forward = Box<dyn FnMut(&Tensor, usize) -> candle_core::Result<Tensor>>;

fn reference(path: &Path, architecture: TinyArchitecture) -> Forward {
    let mut file = File::open(path).unwrap();
    let content = gguf_file::Content::read(&mut file).unwrap();
    match architecture {
        TinyArchitecture::Llama => {
            let mut model = quantized_llama::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
            Box::new(move |x, position| model.forward(x, position))
        }
        TinyArchitecture::Qwen2 => {
            let mut model = quantized_qwen2::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
            Box::new(move |x, position| model.forward(x, position))
        }
        TinyArchitecture::Qwen3 => {
            let mut model = quantized_qwen3::ModelWeights::from_gguf(content, &mut file, &Device::Cpu).unwrap();
            Box::new(move |x, position| model.forward(x, position))
        }
        TinyArchitecture::Phi3 => {
            let mut model = quantized_phi3::ModelWeights::from_gguf(false, content, &mut file, &Device::Cpu).unwrap();
            Box::new(move |x, position| model.forward(x, position))
        }
        // candle's quantised Gemma 3 gates with SiLU instead of GELU, so it is no reference.
        TinyArchitecture::Gemma3 => unreachable!(),
    }
}

fn assert_close(ours: &[f32], theirs: &Tensor, tolerance: f32) {
    let theirs = theirs.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    assert_eq!(ours.len(), theirs.len());
    let scale = theirs.iter().fold(0.0f32, |max, value| max.max(value.abs()));
    for (index, (ours, theirs)) in ours.iter().zip(&theirs).enumerate() {
        assert!((ours - theirs).abs() <= tolerance * scale, "logit {index}: ours {ours}, theirs {theirs}");
    }
}

fn compare(path: &Path, architecture: TinyArchitecture, prompt: &[u32], further: &[u32], tolerance: f32) {
    let (engine, mut reference) = (load(path), reference(path, architecture));
    let mut cache = engine.new_cache().unwrap();
    let theirs = reference(&Tensor::from_slice(prompt, (1, prompt.len()), &Device::Cpu).unwrap(), 0).unwrap();
    assert_close(&engine.prefill(&mut cache, prompt).unwrap(), &theirs, tolerance);
    for &token in further {
        let theirs = reference(&Tensor::new(&[[token]], &Device::Cpu).unwrap(), cache.len()).unwrap();
        assert_close(&engine.step(&mut cache, token).unwrap(), &theirs, tolerance);
    }
}

fn compare_tiny(model: TinyModel) {
    compare_tiny_within(model, 1e-3);
}

fn compare_tiny_within(model: TinyModel, tolerance: f32) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tiny.gguf");
    model.write(&path).unwrap();
    compare(&path, model.architecture, &PROMPT, &[1, 2, 280, 41], tolerance);
}

fn tiny(architecture: TinyArchitecture) -> TinyModel {
    // The references know no sliding window, so the one of Phi 3 must not matter here.
    TinyModel { dtype: GgmlDType::F32, window: 1000, ..TinyModel::new(architecture) }
}

#[test]
fn llama() {
    compare_tiny(tiny(TinyArchitecture::Llama));
}

#[test]
fn llama_quantised() {
    // candle rounds activations to 8 bits, ours to 15.
    compare_tiny_within(TinyModel::new(TinyArchitecture::Llama), 0.05);
}

#[test]
fn qwen2() {
    compare_tiny(tiny(TinyArchitecture::Qwen2));
}

#[test]
fn qwen3() {
    // The reference keeps its rotary tables in f16, ours are f32.
    compare_tiny_within(tiny(TinyArchitecture::Qwen3), 0.02);
}

#[test]
fn phi3() {
    compare_tiny(tiny(TinyArchitecture::Phi3));
}

#[test]
fn the_real_model() {
    let Some(path) = real_model() else { return };
    let prompt: Vec<u32> = (0..40).map(|i| 1000 + i * 37).collect();
    compare(&path, TinyArchitecture::Llama, &prompt, &[338, 253, 1000], 0.05);
}
