//! The image-text encoder in a running daemon: a pushed picture is seen before the turn that asks about it.

use image::codecs::png::PngEncoder;
use image::{Rgb, RgbImage};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tether::testing::World;
use tether_models::clip::ImageText;
use tether_models::testing::write_tiny_clip;

const QUESTION: &str = "open pan";
const PATIENCE: Duration = Duration::from_secs(60);

/// Without transparency and orientation, so that what the daemon sees is what is drawn here.
fn picture() -> (RgbImage, Vec<u8>) {
    let drawn = RgbImage::from_fn(64, 48, |x, y| Rgb([(x * 4) as u8, (y * 5) as u8, 90]));
    let mut bytes = Vec::new();
    drawn.write_with_encoder(PngEncoder::new(&mut bytes)).unwrap();
    (drawn, bytes)
}

async fn associations(world: &World) -> Vec<Value> {
    let reply = world.ask(QUESTION, json!({"max_tokens": 1})).await.unwrap();
    let id = reply.json()["tether"]["turn_id"].as_str().unwrap().to_owned();
    let record = world.get(&format!("/v1/turns/{id}")).await.unwrap().json();
    record["context"]["views"].as_array().unwrap().iter().map(|view| view["association"].clone()).collect()
}

#[tokio::test]
async fn a_pushed_picture_is_compared_with_the_question() {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_clip(folder.path()).unwrap();
    let model = ImageText::load(folder.path()).unwrap();
    let world = World::start(folder.path(), "[association]\nclip = \".\"\n").await.unwrap();
    let before = associations(&world).await;
    let (drawn, bytes) = picture();
    assert_eq!(world.send("PUT", "/v1/cameras/side", bytes).await.unwrap().status, 200);
    let cosine = model.text(QUESTION).unwrap().cosine(&model.image(&drawn).unwrap()).unwrap();
    let expected = f64::from(cosine.max(0.0));
    let near = |value: &Value| value.as_f64().is_some_and(|value| (value - expected).abs() < 1e-5);
    assert!(!near(&before[1]), "before the picture the text alone tells");
    let begun = Instant::now();
    let after = loop {
        let after = associations(&world).await;
        if near(&after[1]) {
            break after;
        }
        assert!(begun.elapsed() < PATIENCE, "{after:?}, expected {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // The other cameras show nothing, and the sensors are text.
    assert_eq!((&after[0], &after[2], &after[3]), (&before[0], &before[2], &Value::Null));
}

#[tokio::test]
async fn a_daemon_does_not_start_with_a_clip_that_is_none() {
    let folder = tempfile::tempdir().unwrap();
    let error = World::start(folder.path(), "[association]\nclip = \"missing\"\n").await.err().unwrap().to_string();
    assert!(error.contains("[association]") && error.contains("missing"), "{error}");
}
