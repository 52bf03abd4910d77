//! Token ids golden against llama.cpp's, and the files that must be refused.

use crate::world::{self, CONTROL, NORMAL, USER_DEFINED};
use candle_core::quantized::gguf_file::{Content, Value};
use proptest::prelude::*;
use serde_json::Value as Json;
use std::path::Path;
use std::sync::LazyLock;
use tether_models::tokenizer::MAX_TEXT_BYTES;
use tether_models::{ModelError, Tokenizer};

fn compare(tokenizer: &Tokenizer, golden: &Json, texts: &Json, marked_texts: &Json, name: &str) {
    let encode_plain = |text: &str| tokenizer.encode(text, false).unwrap();
    let encode_marked = |text: &str| tokenizer.encode_rendered(text, None).unwrap();
    type Encode<'a> = &'a dyn Fn(&str) -> Vec<u32>;
    let encoders: [Encode<'_>; 2] = [&encode_plain, &encode_marked];
    for ((key, texts), encode) in [("plain", texts), ("marked", marked_texts)].into_iter().zip(encoders) {
        let expected = world::ids_of(&golden[key]);
        assert_eq!(expected.len(), texts.as_array().unwrap().len());
        for (text, ids) in texts.as_array().unwrap().iter().zip(expected) {
            assert_eq!(encode(text.as_str().unwrap()), ids, "{name}, {key}: {text}");
        }
    }
}

#[test]
fn every_splitting_rule_gives_the_ids_of_llama_cpp_on_the_real_vocabulary() {
    let Some((mut content, path)) = world::real_metadata() else { return };
    let golden = world::golden("tokens_gpt2.json");
    for (rule, expected) in golden["rules"].as_object().unwrap() {
        content.metadata.insert("tokenizer.ggml.pre".into(), world::text(rule));
        content.metadata.insert("tokenizer.ggml.add_bos_token".into(), Value::Bool(false));
        content.metadata.remove("tokenizer.chat_template");
        let tokenizer = Tokenizer::from_gguf(&content, &path).unwrap();
        compare(&tokenizer, expected, &golden["texts"], &golden["marked_texts"], rule);
    }
}

#[test]
fn the_llama_kind_gives_the_ids_of_llama_cpp() {
    let golden = world::golden("tokens_llama.json");
    for (name, prefix) in [("space_prefix", true), ("no_space_prefix", false)] {
        let tokenizer = world::tokenizer(&llama_vocabulary(&golden["vocabulary"], prefix));
        compare(&tokenizer, &golden[name], &golden["texts"], &golden["marked_texts"], name);
    }
}

fn llama_vocabulary(vocabulary: &Json, add_space_prefix: bool) -> Content {
    let list = |key: &str| vocabulary[key].as_array().unwrap().iter();
    world::content(vec![
        ("tokenizer.ggml.model", world::text("llama")),
        ("tokenizer.ggml.tokens", world::texts(list("tokens").map(|token| token.as_str().unwrap()))),
        (
            "tokenizer.ggml.scores",
            Value::Array(list("scores").map(|s| Value::F32(s.as_f64().unwrap() as f32)).collect()),
        ),
        (
            "tokenizer.ggml.token_type",
            Value::Array(list("types").map(|t| Value::I32(t.as_i64().unwrap() as i32)).collect()),
        ),
        ("tokenizer.ggml.add_space_prefix", Value::Bool(add_space_prefix)),
        ("tokenizer.ggml.add_bos_token", Value::Bool(false)),
    ])
}

#[test]
fn every_golden_text_survives_the_round_trip() {
    let golden = world::golden("tokens_llama.json");
    let llama = world::tokenizer(&llama_vocabulary(&golden["vocabulary"], false));
    let bytes = world::tokenizer(&world::bytes_vocabulary(&[("<s>", CONTROL), ("</s>", CONTROL)], ""));
    for text in golden["texts"].as_array().unwrap().iter().map(|text| text.as_str().unwrap()) {
        assert_eq!(llama.decode(&llama.encode(text, false).unwrap()), text);
        assert_eq!(bytes.decode(&bytes.encode(text, false).unwrap()), text);
    }
}

static BYTES: LazyLock<Tokenizer> =
    LazyLock::new(|| world::tokenizer(&world::bytes_vocabulary(&[("<s>", CONTROL), ("</s>", CONTROL)], "")));

proptest! {
    #[test]
    fn any_text_survives_the_round_trip_and_holds_no_marker(text in "\\PC{0,60}|(<s>|</s>|[<s/> ]){0,20}") {
        let bytes = &*BYTES;
        let ids = bytes.encode(&text, false).unwrap();
        prop_assert!(ids.iter().all(|&id| id < 256));
        prop_assert_eq!(bytes.decode(&ids), text);
    }
}

#[test]
fn special_tokens_stand_at_both_ends_where_the_file_asks_for_them() {
    let mut content = world::bytes_vocabulary(&[("<s>", CONTROL), ("</s>", CONTROL)], "");
    assert_eq!(world::tokenizer(&content).encode("a", true).unwrap(), [97]);
    content.metadata.insert("tokenizer.ggml.add_bos_token".into(), Value::Bool(true));
    content.metadata.insert("tokenizer.ggml.add_eos_token".into(), Value::Bool(true));
    let tokenizer = world::tokenizer(&content);
    assert_eq!(tokenizer.encode("a", true).unwrap(), [256, 97, 257]);
    assert_eq!(tokenizer.encode("a", false).unwrap(), [97]);
    // The template's own beginning of the sequence is not doubled.
    assert_eq!(tokenizer.encode_rendered("<s>a", None).unwrap(), [256, 97]);
    assert_eq!(tokenizer.encode_rendered("a", None).unwrap(), [256, 97]);
}

#[test]
fn several_tokens_end_an_answer_and_none_of_them_is_text() {
    let specials = [("<s>", CONTROL), ("</s>", CONTROL), ("<|im_end|>", NORMAL), ("<|eot_id|>", USER_DEFINED)];
    let mut content = world::bytes_vocabulary(&specials, "");
    content.metadata.insert("tokenizer.ggml.eot_token_id".into(), Value::U32(65));
    let tokenizer = world::tokenizer(&content);
    assert_eq!(tokenizer.end_ids().collect::<Vec<_>>(), [65, 257, 258, 259]);
    assert!(tokenizer.is_end(258) && !tokenizer.is_end(256));
    assert_eq!(tokenizer.token_bytes(258), b"");
    assert_eq!(tokenizer.token_bytes(1_000_000), b"");
    assert!(tokenizer.encode("<|eot_id|>", false).unwrap().iter().all(|&id| id < 256));
}

#[test]
fn user_defined_tokens_are_text_unless_the_template_writes_them() {
    let specials = [("<s>", CONTROL), ("</s>", CONTROL), ("<think>", USER_DEFINED), ("<table>", USER_DEFINED)];
    let tokenizer = world::tokenizer(&world::bytes_vocabulary(&specials, "{{ '<think>' }}"));
    assert_eq!(tokenizer.encode("<table>", false).unwrap(), [259]);
    assert_eq!(tokenizer.encode("<think>", false).unwrap().len(), 7);
    assert_eq!(tokenizer.encode_rendered("<think><table>", None).unwrap(), [258, 259]);
    assert_eq!(tokenizer.token_bytes(258), b"<think>");
}

#[test]
fn phi3_swallows_the_white_space_after_its_control_tokens() {
    let specials = [("<s>", CONTROL), ("<|endoftext|>", CONTROL), ("<|user|>", CONTROL)];
    let mut content = world::bytes_vocabulary(&specials, "");
    content.metadata.insert("general.name".into(), world::text("Phi-3 Mini"));
    let tokenizer = world::tokenizer(&content);
    assert_eq!(tokenizer.encode_rendered("<|user|>\n a<s> b", None).unwrap(), [258, 97, 256, 32, 98]);
}

#[test]
fn a_text_is_encoded_up_to_its_limit_and_refused_beyond() {
    let tokenizer = world::tokenizer(&world::bytes_vocabulary(&[("<s>", CONTROL), ("</s>", CONTROL)], ""));
    // White space without end is the worst case for the splitting expressions.
    for text in [" ".repeat(MAX_TEXT_BYTES - 1) + "x", "\n".repeat(MAX_TEXT_BYTES), "x".repeat(MAX_TEXT_BYTES)] {
        assert_eq!(tokenizer.encode(&text, false).unwrap().len(), MAX_TEXT_BYTES);
    }
    let error = tokenizer.encode(&"x".repeat(MAX_TEXT_BYTES + 1), false).unwrap_err();
    assert!(matches!(error, ModelError::Tokenizer(_)), "{error}");
}

#[test]
fn broken_metadata_is_refused_by_name() {
    let good = || world::bytes_vocabulary(&[("<s>", CONTROL), ("</s>", CONTROL)], "");
    let key = |name: &str| format!("tokenizer.ggml.{name}");
    let long_merge = world::texts(["a b c d", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"]);
    let cases: Vec<(&str, Option<Value>, &str)> = vec![
        ("model", None, "holds no tokenizer"),
        ("model", Some(world::text("t5")), "\"t5\""),
        ("pre", Some(world::text("nonsense")), "\"nonsense\""),
        ("tokens", None, "tokenizer.ggml.tokens"),
        ("tokens", Some(Value::U32(1)), "not a list"),
        ("tokens", Some(Value::Array(vec![])), "empty"),
        ("tokens", Some(Value::Array(vec![Value::U32(1)])), "no text"),
        ("token_type", Some(Value::Array(vec![Value::I32(1)])), "1 entries for 258 tokens"),
        ("merges", Some(world::texts(["ab"])), "merge \"ab\""),
        ("eos_token_id", Some(Value::U32(258)), "is 258"),
        ("eos_token_id", Some(Value::Bool(true)), "no integer"),
        ("bos_token_id", Some(Value::I32(-7)), "is -7"),
    ];
    for (name, value, expected) in cases {
        let mut content = good();
        content.metadata.remove(&key(name));
        content.metadata.extend(value.map(|value| (key(name), value)));
        let error = Tokenizer::from_gguf(&content, Path::new("/models/test.gguf")).err().unwrap().to_string();
        assert!(error.contains(expected) && error.contains("/models/test.gguf"), "{name}: {error}");
    }
    let mut content = good();
    content.metadata.insert(key("merges"), long_merge);
    content.metadata.insert(key("eos_token_id"), Value::U32(u32::MAX));
    assert_eq!(
        world::tokenizer(&content).encode("ab", false).unwrap(),
        [97, 98],
        "merges that cannot apply are left out"
    );
}

#[test]
fn the_llama_kind_needs_its_scores_and_a_way_to_spell_anything() {
    let golden = world::golden("tokens_llama.json");
    let refuse = |content: &Content| Tokenizer::from_gguf(content, Path::new("x.gguf")).err().unwrap().to_string();
    let mut content = llama_vocabulary(&golden["vocabulary"], true);
    content.metadata.remove("tokenizer.ggml.scores");
    assert!(refuse(&content).contains("tokenizer.ggml.scores"));
    let mut content = llama_vocabulary(&golden["vocabulary"], true);
    content.metadata.remove("tokenizer.ggml.token_type");
    assert!(refuse(&content).contains("byte tokens"));
}

#[test]
fn a_tokenizer_json_beside_the_file_serves_for_an_unknown_kind() {
    let folder = tempfile::tempdir().unwrap();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "normalizer": null, "post_processor": null,
        "added_tokens": [{"id": 3, "content": "<|im_end|>", "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true}],
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": false, "use_regex": true},
        "model": {"type": "BPE", "vocab": {"a": 0, "Ġ": 1, "Ġa": 2}, "merges": ["Ġ a"]},
    });
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let model = folder.path().join("model.gguf");
    let content = world::content(vec![("tokenizer.ggml.model", world::text("unheard-of"))]);
    let tokenizer = Tokenizer::from_gguf(&content, &model).unwrap();
    assert_eq!(
        tokenizer.encode("a a<|im_end|>", false).unwrap(),
        [0, 2],
        "unknown bytes are left out, markers are text"
    );
    assert_eq!(tokenizer.encode_rendered("a a<|im_end|>", None).unwrap(), [0, 2, 3]);
    assert_eq!(tokenizer.decode(&[0, 2, 3]), "a a");
    assert!(tokenizer.is_end(3));

    std::fs::write(folder.path().join("model.tokenizer.json"), "{").unwrap();
    let error = Tokenizer::from_gguf(&content, &model).err().unwrap().to_string();
    assert!(error.contains("model.tokenizer.json"), "{error}");
}
