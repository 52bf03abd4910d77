//! A CLIP of a few thousand weights from a formula, in the files of a published one. `models/tests/clip/golden.py` has the
//! same formula and works out in numpy what the model must say.

use safetensors::tensor::TensorView;
use safetensors::{Dtype, serialize_to_file};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::path::Path;

const VOCABULARY: usize = 60;
const BEGIN: usize = 58;
const END: usize = 59;
const TEXT: Tower = Tower { name: "text_model", hidden: 16, inner: 32, layers: 2, heads: 2 };
const VISION: Tower = Tower { name: "vision_model", hidden: 24, inner: 40, layers: 2, heads: 3 };
const POSITIONS: usize = 12;
const SIDE: usize = 32;
const PATCH: usize = 16;
const PROJECTION: usize = 8;

struct Tower {
    name: &'static str,
    hidden: usize,
    inner: usize,
    layers: usize,
    heads: usize,
}

/// Writes `config.json`, `model.safetensors` and `tokenizer.json`. The tokenizer knows letters alone.
///
/// # Errors
/// The folder cannot be written.
pub fn write_tiny_clip(folder: &Path) -> std::io::Result<()> {
    std::fs::write(folder.join("config.json"), config().to_string())?;
    std::fs::write(folder.join("tokenizer.json"), tokenizer().to_string())?;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes()
        .into_iter()
        .enumerate()
        .map(|(number, (name, shape))| {
            let values = weights(number, &name, shape.iter().product());
            (name, shape, values.flat_map(f32::to_le_bytes).collect())
        })
        .collect();
    let views = tensors.iter().map(|(name, shape, bytes)| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes);
        (name.as_str(), view.expect("as many bytes as the shape says"))
    });
    let written = serialize_to_file(views, None, &folder.join("model.safetensors"));
    written.map_err(|error| std::io::Error::other(error.to_string()))
}

/// In alphabetical order.
fn shapes() -> BTreeMap<String, Vec<usize>> {
    let mut found: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let mut add = |name: String, shape: &[usize]| {
        found.insert(name, shape.to_vec());
    };
    for Tower { name, hidden, inner, layers, .. } in [TEXT, VISION] {
        for layer in (0..layers).map(|layer| format!("{name}.encoder.layers.{layer}")) {
            for projection in ["q", "k", "v", "out"] {
                add(format!("{layer}.self_attn.{projection}_proj.weight"), &[hidden, hidden]);
                add(format!("{layer}.self_attn.{projection}_proj.bias"), &[hidden]);
            }
            add(format!("{layer}.mlp.fc1.weight"), &[inner, hidden]);
            add(format!("{layer}.mlp.fc1.bias"), &[inner]);
            add(format!("{layer}.mlp.fc2.weight"), &[hidden, inner]);
            add(format!("{layer}.mlp.fc2.bias"), &[hidden]);
            for norm in ["layer_norm1", "layer_norm2"] {
                add(format!("{layer}.{norm}.weight"), &[hidden]);
                add(format!("{layer}.{norm}.bias"), &[hidden]);
            }
        }
    }
    for (norm, hidden) in [
        ("text_model.final_layer_norm", TEXT.hidden),
        ("vision_model.pre_layrnorm", VISION.hidden),
        ("vision_model.post_layernorm", VISION.hidden),
    ] {
        add(format!("{norm}.weight"), &[hidden]);
        add(format!("{norm}.bias"), &[hidden]);
    }
    let patches = (SIDE / PATCH).pow(2);
    add("text_model.embeddings.token_embedding.weight".into(), &[VOCABULARY, TEXT.hidden]);
    add("text_model.embeddings.position_embedding.weight".into(), &[POSITIONS, TEXT.hidden]);
    add("vision_model.embeddings.class_embedding".into(), &[VISION.hidden]);
    add("vision_model.embeddings.patch_embedding.weight".into(), &[VISION.hidden, 3, PATCH, PATCH]);
    add("vision_model.embeddings.position_embedding.weight".into(), &[patches + 1, VISION.hidden]);
    add("text_projection.weight".into(), &[PROJECTION, TEXT.hidden]);
    add("visual_projection.weight".into(), &[PROJECTION, VISION.hidden]);
    found
}

fn weights(number: usize, name: &str, count: usize) -> impl Iterator<Item = f32> + use<> {
    let around = if name.contains("norm") && name.ends_with("weight") { 1.0 } else { 0.0 };
    (0..count as u64).map(move |i| {
        let bits = i.wrapping_mul(2_654_435_761).wrapping_add((number as u64 + 1) * 40_503) % (1 << 32);
        (0.6 * (bits as f64 / (1u64 << 32) as f64 - 0.5) + around) as f32
    })
}

fn config() -> Value {
    let tower = |Tower { hidden, inner, layers, heads, .. }: Tower| {
        json!({
            "hidden_size": hidden, "intermediate_size": inner, "num_hidden_layers": layers,
            "num_attention_heads": heads, "hidden_act": "quick_gelu",
        })
    };
    let (mut text, mut vision) = (tower(TEXT), tower(VISION));
    text["vocab_size"] = VOCABULARY.into();
    text["max_position_embeddings"] = POSITIONS.into();
    vision["image_size"] = SIDE.into();
    vision["patch_size"] = PATCH.into();
    json!({"model_type": "clip", "projection_dim": PROJECTION, "text_config": text, "vision_config": vision})
}

/// Letters inside of a word are 0 to 25, at its end 26 to 51.
fn tokenizer() -> Value {
    let letters = ('a'..='z').enumerate();
    let mut vocabulary = serde_json::Map::new();
    for (place, letter) in letters {
        vocabulary.insert(letter.to_string(), place.into());
        vocabulary.insert(format!("{letter}</w>"), (26 + place).into());
    }
    vocabulary.insert("<|startoftext|>".into(), BEGIN.into());
    vocabulary.insert("<|endoftext|>".into(), END.into());
    let special = |id: usize, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
            "special": true,
        })
    };
    json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": [special(BEGIN, "<|startoftext|>"), special(END, "<|endoftext|>")],
        "normalizer": {"type": "Lowercase"},
        "pre_tokenizer": {"type": "Whitespace"},
        "post_processor": {
            "type": "RobertaProcessing", "sep": ["<|endoftext|>", END], "cls": ["<|startoftext|>", BEGIN],
            "trim_offsets": false, "add_prefix_space": false,
        },
        "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": "<|endoftext|>", "continuing_subword_prefix": "",
            "end_of_word_suffix": "</w>", "fuse_unk": false, "byte_fallback": false, "vocab": vocabulary, "merges": [],
        },
    })
}
