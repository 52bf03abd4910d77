//! The socket API against a whole daemon with a tiny model: shapes, limits, errors.

use serde_json::{Value, json};
use tether::testing::World;
use tether_protocol::limits::{MAX_BODY_BYTES, MAX_SENSOR_BYTES};

async fn world() -> (tempfile::TempDir, World) {
    let folder = tempfile::tempdir().unwrap();
    let world = World::start(folder.path(), "").await.unwrap();
    (folder, world)
}

#[tokio::test]
async fn a_turn_is_answered_by_the_local_model_and_says_so() {
    let (_folder, world) = world().await;
    let reply = world.ask("Hello", json!({"max_tokens": 4, "temperature": 0})).await.unwrap();
    assert_eq!(reply.status, 200, "{}", reply.text());
    let body = reply.json();
    assert_eq!(body["object"], "chat.completion");
    assert_eq!(body["choices"][0]["message"]["role"], "assistant");
    assert_eq!(body["choices"][0]["finish_reason"], "length");
    assert_eq!(body["usage"]["completion_tokens"], 4);
    assert_eq!(body["model"], world.daemon.local().unwrap().name());
    let tether = &body["tether"];
    assert_eq!((&tether["route"], &tether["views"]), (&json!("local"), &json!([])));
    assert_eq!((&tether["uplink_bytes"], &tether["usd"]), (&json!(0), &json!(0.0)));
    assert_eq!((&tether["joules"], &tether["joules_source"]), (&Value::Null, &json!("unknown")));
    assert_eq!(tether["propensity"], 1.0);
    assert_eq!(reply.headers["x-tether-route"], "local");
    assert_eq!(reply.headers["x-tether-turn-id"], tether["turn_id"].as_str().unwrap());
    let turn = world.get(&format!("/v1/turns/{}", tether["turn_id"].as_str().unwrap())).await.unwrap().json();
    assert_eq!((&turn["outcome"], &turn["usage"]["completion_tokens"]), (&json!("answered"), &json!(4)));
    assert_eq!(turn["permitted"], json!([0]), "no cloud is configured");
    assert!(turn["client"].as_str().unwrap().starts_with("uid="));
}

#[tokio::test]
async fn a_stream_has_the_shape_of_openai() {
    let (_folder, world) = world().await;
    let extra = json!({"max_tokens": 4, "temperature": 0, "stream_options": {"include_usage": true}});
    let streaming = world.stream("Hello", extra.clone()).await.unwrap();
    assert_eq!(streaming.response.headers()["content-type"], "text/event-stream");
    assert_eq!(streaming.response.headers()["x-tether-route"], "local");
    let events = streaming.events().await.unwrap();
    let (done, chunks) = events.split_last().unwrap();
    assert_eq!(done, "[DONE]");
    let first = &chunks[0];
    assert_eq!(first["choices"][0]["delta"], json!({"role": "assistant", "content": ""}));
    assert_eq!(first["tether"]["route"], "local");
    assert!(first["tether"].get("latency_ms").is_none(), "costs come last");
    for chunk in chunks {
        assert_eq!((&chunk["id"], &chunk["object"]), (&first["id"], &json!("chat.completion.chunk")));
        assert_eq!((&chunk["created"], &chunk["model"]), (&first["created"], &first["model"]));
    }
    let [text @ .., finish, usage] = &chunks[1..] else { panic!("{chunks:?}") };
    for chunk in text {
        assert_eq!(chunk["choices"][0].get("finish_reason"), Some(&Value::Null));
        assert_eq!(chunk.get("usage"), Some(&Value::Null));
    }
    assert_eq!(finish["choices"][0]["delta"], json!({}));
    assert_eq!(finish["choices"][0]["finish_reason"], "length");
    assert_eq!((&usage["choices"], &usage["usage"]["completion_tokens"]), (&json!([]), &json!(4)));
    assert!(usage["tether"]["latency_ms"].as_f64().unwrap() > 0.0);

    let whole = world.ask("Hello", json!({"max_tokens": 4, "temperature": 0})).await.unwrap().json();
    let streamed: String = text.iter().map(|chunk| chunk["choices"][0]["delta"]["content"].as_str().unwrap()).collect();
    assert_eq!(whole["choices"][0]["message"]["content"], streamed.as_str());
}

#[tokio::test]
async fn without_usage_the_finish_chunk_carries_the_costs() {
    let (_folder, world) = world().await;
    let events = world.stream("Hello", json!({"max_tokens": 2})).await.unwrap().events().await.unwrap();
    let last = &events[events.len() - 2];
    assert!(last.get("usage").is_none());
    assert!(last["tether"]["latency_ms"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn bad_requests_are_refused_in_the_shape_of_openai() {
    let (_folder, world) = world().await;
    let chat = "/v1/chat/completions";
    for (method, path, body, status, code) in [
        ("POST", chat, "{\"messages\": [}".to_owned(), 400, "invalid_json"),
        ("POST", chat, "{}".to_owned(), 400, "invalid_value"),
        ("POST", chat, json!({"messages": []}).to_string(), 400, "invalid_value"),
        ("GET", chat, String::new(), 405, "wrong_method"),
        ("GET", "/v1/nothing", String::new(), 404, "unknown_path"),
        ("GET", "/v1/turns/0", String::new(), 404, "unknown_turn"),
        ("GET", "/v1/turns?limit=0", String::new(), 400, "invalid_value"),
        ("GET", "/v1/turns?limt=1", String::new(), 400, "invalid_value"),
        ("POST", "/v1/feedback", json!({"turn_id": "x", "rating": 2}).to_string(), 400, "invalid_value"),
        ("POST", "/v1/feedback", json!({"turn_id": "x", "rating": 1}).to_string(), 404, "unknown_turn"),
        ("PUT", "/v1/cameras/frnt", "x".to_owned(), 404, "unknown_view"),
        ("PUT", "/v1/cameras/front", "GIF89a".to_owned(), 400, "invalid_image"),
        ("PUT", "/v1/sensors/arm", "{".to_owned(), 400, "invalid_sensor"),
        ("PUT", "/v1/sensors/arm", "1".repeat(MAX_SENSOR_BYTES + 1), 413, "body_too_large"),
        ("DELETE", "/v1/sessions/none", String::new(), 404, "unknown_session"),
    ] {
        let reply = world.send(method, path, body).await.unwrap();
        assert_eq!((reply.status, reply.code().as_str()), (status, code), "{method} {path}: {}", reply.text());
        assert!(reply.json()["error"]["message"].as_str().is_some_and(|message| message.len() > 8));
        assert!(reply.json()["error"].get("param").is_some(), "null or a name");
    }
    for (extra, code) in [
        (json!({"n": 2}), "unsupported_parameter"),
        (json!({"model": "gpt-9"}), "model_not_found"),
        (json!({"model": "cloud"}), "cloud_unavailable"),
        (json!({"tether": {"views": ["nose"]}}), "unknown_view"),
        (
            json!({"messages": [{"role": "user", "content": [{"type": "image_url",
            "image_url": {"url": "https://example.org/a.jpg"}}]}]}),
            "invalid_image",
        ),
    ] {
        assert_eq!(world.ask("Hello", extra.clone()).await.unwrap().code(), code, "{extra}");
    }
    assert_eq!(world.ask("Hello", json!({"max_tokens": 1})).await.unwrap().status, 200, "the daemon goes on");
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_before_it_is_read() {
    let (_folder, world) = world().await;
    let reply = world.ask("x", json!({"pad": "x".repeat(MAX_BODY_BYTES)})).await;
    // The daemon answers without reading on; a client still writing may see the closed connection instead.
    if let Ok(reply) = reply {
        assert_eq!(reply.code(), "body_too_large");
    }
    assert_eq!(world.get("/healthz").await.unwrap().status, 200);
}

#[tokio::test]
async fn a_deadline_that_passes_is_an_error() {
    let (_folder, world) = world().await;
    let long = "word ".repeat(1_500);
    let reply = world.ask(&long, json!({"max_tokens": 400, "tether": {"deadline_ms": 1}})).await.unwrap();
    assert_eq!((reply.status, reply.code().as_str()), (504, "deadline_exceeded"), "{}", reply.text());
}

#[tokio::test]
async fn the_other_endpoints_answer() {
    let (_folder, world) = world().await;
    let models = world.get("/v1/models").await.unwrap().json();
    assert_eq!(models["data"][0]["id"], "auto");
    assert_eq!(world.get("/readyz").await.unwrap().status, 200);
    assert_eq!(world.get("/version").await.unwrap().json()["protocol"], "tether/1");
    let reading = json!({"open": true}).to_string();
    assert_eq!(world.send("PUT", "/v1/sensors/gripper", reading).await.unwrap().status, 200);
    let asked = world.ask("Hello", json!({"max_tokens": 2})).await.unwrap().json();
    let turn_id = asked["tether"]["turn_id"].clone();
    let feedback = json!({"turn_id": turn_id, "rating": 0.5}).to_string();
    let rated = world.send("POST", "/v1/feedback", feedback).await.unwrap().json();
    assert_eq!(rated, json!({"turn_id": turn_id, "rating": 0.5, "replaced": null}));
    let turns = world.get("/v1/turns?limit=5").await.unwrap().json();
    assert_eq!((&turns["turns"][0]["rating"], &turns["next_before"]), (&json!(0.5), &Value::Null));
    let status = world.get("/v1/status").await.unwrap().json();
    assert_eq!((&status["turns"], &status["actions"]), (&json!(1), &json!(17)));
    assert_eq!(status["sensors"][0]["name"], "gripper");
    assert_eq!(status["problems"], json!([]));
    let metrics = world.get("/metrics").await.unwrap().text();
    for line in ["tether_decisions_total{route=\"local\"", "tether_tokens_total{route=\"local\",kind=\"completion\"} 2"]
    {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    assert!(metrics.ends_with("# EOF\n"));
}

#[tokio::test]
async fn pages_of_turns_follow_one_another() {
    let (_folder, world) = world().await;
    for _ in 0..3 {
        world.ask("Hello", json!({"max_tokens": 1})).await.unwrap();
    }
    let first = world.get("/v1/turns?limit=2").await.unwrap().json();
    assert_eq!(first["turns"].as_array().unwrap().len(), 2);
    let before = first["next_before"].as_str().unwrap();
    let second = world.get(&format!("/v1/turns?limit=2&before={before}")).await.unwrap().json();
    assert_eq!((second["turns"].as_array().unwrap().len(), &second["next_before"]), (1, &Value::Null));
}
