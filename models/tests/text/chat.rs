//! Chat templates: golden against Jinja's own rendering.

use crate::world;
use serde_json::Value as Json;
use std::path::Path;
use tether_models::{ChatMessage, ChatTemplate, ModelError};

pub(crate) fn template(name: &str) -> ChatTemplate {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/templates").join(name);
    ChatTemplate::from_source(&std::fs::read_to_string(path).unwrap()).unwrap()
}

pub(crate) fn message(role: &str, content: &str) -> ChatMessage {
    ChatMessage { role: role.to_owned(), content: content.to_owned() }
}

fn messages(json: &Json) -> Vec<ChatMessage> {
    let pairs: Vec<(String, String)> = serde_json::from_value(json.clone()).unwrap();
    pairs.iter().map(|(role, content)| message(role, content)).collect()
}

#[test]
fn every_template_renders_as_jinja_does() {
    let golden = world::golden("chat.json");
    let now: jiff::Timestamp = golden["now"].as_str().unwrap().parse().unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() >= 90);
    for case in cases {
        let template = template(case["template"].as_str().unwrap()).at(now);
        let generate = case["add_generation_prompt"].as_bool().unwrap();
        let rendered = template.render(&messages(&case["messages"]), generate, "<bos>", "<eos>");
        match case["refused"].as_str() {
            Some(words) => assert!(rendered.unwrap_err().to_string().contains(words), "{case:#}"),
            None => assert_eq!(rendered.unwrap(), case["text"].as_str().unwrap(), "{case:#}"),
        }
    }
}

#[test]
fn a_template_that_refuses_system_messages_gets_them_with_the_first_question() {
    let source = "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}\
        [{{ m.role }}]{{ m.content }}{% endfor %}";
    let template = ChatTemplate::from_source(source).unwrap();
    let dialogue = [message("system", "Be brief."), message("user", "Hi"), message("assistant", "Hello")];
    assert_eq!(template.render(&dialogue, true, "", "").unwrap(), "[user]Be brief.\n\nHi[assistant]Hello");
    let error = template.render(&dialogue[..1], true, "", "").unwrap_err();
    assert!(error.to_string().contains("no system"), "{error}");
}

#[test]
fn a_file_without_a_template_falls_back_to_chatml_and_says_so() {
    let template = ChatTemplate::from_metadata(&world::content(vec![])).unwrap();
    assert!(template.is_fallback());
    let rendered = template.render(&[message("user", "Hi")], true, "", "").unwrap();
    assert_eq!(rendered, "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n");
    let own = world::content(vec![("tokenizer.chat_template", world::text("x"))]);
    assert!(!ChatTemplate::from_metadata(&own).unwrap().is_fallback());
}

#[test]
fn broken_and_endless_templates_are_errors_that_say_where() {
    let error = ChatTemplate::from_source("{{ a }}\n{% for %}").err().unwrap();
    assert!(matches!(error, ModelError::Template(_)) && error.to_string().contains("line 2"), "{error}");
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% set c = a * b %}{% endfor %}{% endfor %}";
    let error = ChatTemplate::from_source(endless).unwrap().render(&[], true, "", "").unwrap_err();
    assert!(error.to_string().contains("fuel"), "{error}");
    let deep = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    assert!(ChatTemplate::from_source(deep).unwrap().render(&[], true, "", "").is_err());
    assert!(ChatTemplate::from_source(&" ".repeat(256 * 1024)).is_ok());
    assert!(ChatTemplate::from_source(&" ".repeat(256 * 1024 + 1)).is_err());
}
