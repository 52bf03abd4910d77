use super::*;
use crate::api::from_json;

fn check(body: Value) -> Result<ChatTurn, ApiError> {
    from_json::<ChatRequest>(body.to_string().as_bytes()).and_then(ChatRequest::check)
}

fn with(extra: Value) -> Result<ChatTurn, ApiError> {
    let mut body = json!({"messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    check(body)
}

fn param(result: Result<ChatTurn, ApiError>) -> (String, String) {
    let error = result.expect_err("the request should be refused");
    assert_eq!(error.status, 400, "{error}");
    (error.object.param.clone().unwrap_or_default(), error.code().to_owned())
}

#[test]
fn a_plain_request_is_legal() {
    let turn = with(json!({"model": "auto", "temperature": 0, "stop": "\n", "seed": -1})).unwrap();
    assert_eq!(turn.model, None);
    assert_eq!(turn.sampling.temperature, Some(0.0));
    assert_eq!(turn.sampling.stop, ["\n"]);
    assert_eq!(turn.sampling.seed, Some(u64::MAX));
    assert_eq!(turn.messages[0].text, "hello");
    assert!(!turn.stream && !turn.local_only);
}

#[test]
fn what_is_not_honoured_is_refused_by_name() {
    for (name, value) in [
        ("n", json!(2)),
        ("logprobs", json!(true)),
        ("tools", json!([{"type": "function"}])),
        ("response_format", json!({"type": "json_object"})),
        ("frequency_penalty", json!(0.5)),
        ("reasoning_effort", json!("low")),
        ("no_such_thing", json!(1)),
    ] {
        assert_eq!(param(with(json!({name: value}))), (name.to_owned(), "unsupported_parameter".to_owned()));
    }
}

#[test]
fn defaults_and_nulls_of_openai_pass() {
    let turn = with(json!({"n": 1, "logprobs": false, "tools": [], "tool_choice": null, "top_logprobs": null,
        "response_format": {"type": "text"}, "presence_penalty": 0, "frequency_penalty": 0.0, "stop": null,
        "stream": null, "temperature": null, "max_tokens": null, "logit_bias": {}}));
    turn.unwrap();
}

#[test]
fn numbers_hold_at_their_limits() {
    for good in [
        json!({"temperature": 2.0}),
        json!({"top_p": 1}),
        json!({"max_tokens": MAX_ANSWER_TOKENS}),
        json!({"max_tokens": 5, "max_completion_tokens": 5}),
        json!({"tether": {"deadline_ms": MAX_DEADLINE_MS}}),
        json!({"stop": vec!["a".repeat(MAX_STOP_BYTES); MAX_STOP_STRINGS]}),
        json!({"user": "u".repeat(MAX_NAME_BYTES)}),
    ] {
        with(good).unwrap();
    }
    for (name, bad) in [
        ("temperature", json!({"temperature": 2.001})),
        ("temperature", json!({"temperature": -0.1})),
        ("top_p", json!({"top_p": 1.1})),
        ("top_k", json!({"top_k": 0})),
        ("max_tokens", json!({"max_tokens": 0})),
        ("max_tokens", json!({"max_tokens": MAX_ANSWER_TOKENS + 1})),
        ("max_tokens", json!({"max_tokens": 4, "max_completion_tokens": 5})),
        ("stop", json!({"stop": vec!["a"; MAX_STOP_STRINGS + 1]})),
        ("stop", json!({"stop": "a".repeat(MAX_STOP_BYTES + 1)})),
        ("stop", json!({"stop": ""})),
        ("tether.deadline_ms", json!({"tether": {"deadline_ms": 0}})),
        ("tether.deadline_ms", json!({"tether": {"deadline_ms": MAX_DEADLINE_MS + 1}})),
        ("tether.session", json!({"tether": {"session": "../x"}})),
        ("tether.views", json!({"tether": {"views": ["a b"]}})),
        ("tether.route", json!({"tether": {"route": "cloud", "local_only": true}})),
        ("stream_options", json!({"stream_options": {"include_usage": true}})),
    ] {
        assert_eq!(param(with(bad.clone())), (name.to_owned(), "invalid_value".to_owned()), "{bad}");
    }
}

#[test]
fn bad_messages_name_their_place() {
    let user = json!({"role": "user", "content": "x"});
    for (name, messages) in [
        ("messages", json!([])),
        ("messages[0].role", json!([{"role": "wizard", "content": "x"}])),
        ("messages[1].content", json!([user, {"role": "user", "content": " \n"}])),
        ("messages[0].content", json!([{"role": "user"}])),
        ("messages[0].content", json!([{"role": "user", "content": []}])),
        ("messages[1].role", json!([user, {"role": "assistant", "content": "y"}])),
        ("messages[0].content[0].text", json!([{"role": "user", "content": [{"type": "text"}]}])),
        ("messages", Value::Array(vec![user.clone(); MAX_MESSAGES + 1])),
    ] {
        assert_eq!(param(check(json!({"messages": messages}))), (name.to_owned(), "invalid_value".to_owned()));
    }
    check(json!({"messages": vec![user; MAX_MESSAGES]})).unwrap();
    let audio = json!([{"role": "user", "content": [{"type": "input_audio"}]}]);
    assert_eq!(param(check(json!({"messages": audio}))).0, "messages[0].content[0].type");
}

#[test]
fn text_and_images_are_limited_together() {
    let half = "a".repeat(MAX_TEXT_BYTES / 2);
    let messages = |extra: &str| json!([{"role": "system", "content": half}, {"role": "user", "content": format!("{half}{extra}")}]);
    check(json!({"messages": messages("")})).unwrap();
    assert_eq!(param(check(json!({"messages": messages("b")}))).1, "text_too_long");

    let image = json!({"type": "image_url", "image_url": {"url": "data:,"}, "tether": {"view": "front"}});
    let images = |n| json!({"messages": [{"role": "user", "content": vec![image.clone(); n]}]});
    let turn = check(images(MAX_IMAGES)).unwrap();
    assert_eq!(turn.messages[0].images[0].view.as_ref().unwrap().as_str(), "front");
    assert_eq!(param(check(images(MAX_IMAGES + 1))).0, "messages");
}

#[test]
fn wrong_types_name_the_field_and_bad_json_the_line() {
    let error = from_json::<ChatRequest>(br#"{"messages":[{"role":"user","content":5}]}"#).unwrap_err();
    assert_eq!(error.object.param.as_deref(), Some("messages[0].content"));
    assert!(error.object.message.contains("a string or an array"), "{error}");
    let error = from_json::<ChatRequest>(b"{\n\"messages\": [}").unwrap_err();
    assert_eq!((error.status, error.code()), (400, "invalid_json"));
    assert!(error.object.message.contains("line 2 column"), "{error}");
    assert_eq!(from_json::<ChatRequest>(b"{\"messages\":[]} x").unwrap_err().code(), "invalid_json");
    let error = from_json::<ChatRequest>(br#"{"messages":[],"tether":{"rout":"local"}}"#).unwrap_err();
    assert!(error.object.message.contains("unknown field `rout`"), "{error}");
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    assert!(from_json::<ChatRequest>(format!("{{\"x\":{deep}}}").as_bytes()).is_err());
}

#[test]
fn readings_hold_at_their_limits() {
    let sensors = |sensors: Value| with(json!({"tether": {"sensors": sensors}}));
    let turn = sensors(json!({"grip": {"open": false}, "arm": 1.5})).unwrap();
    let read: Vec<(&str, &str)> = turn.sensors.iter().map(|(name, json)| (name.as_str(), json.as_str())).collect();
    assert_eq!(read, [("arm", "1.5"), ("grip", r#"{"open":false}"#)]);
    let many = |count: usize| sensors((0..count).map(|i| (format!("s{i}"), json!(i))).collect());
    assert_eq!(many(MAX_SENSORS).unwrap().sensors.len(), MAX_SENSORS);
    assert_eq!(param(many(MAX_SENSORS + 1)).0, "tether.sensors");
    let long = |bytes: usize| sensors(json!({"a": "x".repeat(bytes - 2)}));
    long(MAX_SENSOR_BYTES).unwrap();
    assert_eq!(param(long(MAX_SENSOR_BYTES + 1)).0, "tether.sensors.a");
    let deep = |depth: i32| sensors(json!({"a": (0..depth).fold(json!(1), |inner, _| json!([inner]))}));
    deep(MAX_SENSOR_DEPTH).unwrap();
    assert_eq!(param(deep(MAX_SENSOR_DEPTH + 1)).0, "tether.sensors.a");
    assert_eq!(param(sensors(json!({"a b": 1}))).0, "tether.sensors");
}
