//! The image-text encoder against a numpy reference (`clip/golden.py`, whose figures are in `clip/golden.json`) on tiny
//! weights, and the files that it refuses.

use image::RgbImage;
use serde_json::Value;
use std::path::Path;
use tether_models::clip::ImageText;
use tether_models::testing::write_tiny_clip;

/// Single precision against double, over two layers; pictures are scaled by two programs, whose roundings differ.
const TEXT_TOLERANCE: f64 = 1e-5;
const IMAGE_TOLERANCE: f64 = 2e-3;

fn load(folder: &Path) -> Result<ImageText, String> {
    ImageText::load(folder).map_err(|error| error.to_string())
}

fn tiny() -> (tempfile::TempDir, ImageText) {
    let folder = tempfile::tempdir().unwrap();
    write_tiny_clip(folder.path()).unwrap();
    let model = load(folder.path()).unwrap();
    (folder, model)
}

fn golden() -> Value {
    serde_json::from_str(include_str!("clip/golden.json")).unwrap()
}

fn furthest(ours: &[f32], reference: &Value) -> f64 {
    let reference: Vec<f64> = reference.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect();
    assert_eq!(ours.len(), reference.len());
    ours.iter().zip(reference).map(|(&ours, reference)| (f64::from(ours) - reference).abs()).fold(0.0, f64::max)
}

/// The picture of golden.py.
fn picture(width: u32, height: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([(x * 5 + y) % 256, (y * 7) % 256, (x * y) % 256].map(|value| value as u8))
    })
}

#[test]
fn texts_are_where_the_reference_puts_them() {
    let (_folder, model) = tiny();
    let texts = ["pan", "Open  pan", &"ab ".repeat(40)];
    for (text, golden) in texts.iter().zip(golden()["texts"].as_array().unwrap()) {
        let off = furthest(model.text(text).unwrap().values(), &golden["embedding"]);
        assert!(off < TEXT_TOLERANCE, "{text:?} is off by {off}");
    }
}

#[test]
fn pictures_are_where_the_reference_puts_them() {
    let (_folder, model) = tiny();
    for golden in golden()["images"].as_array().unwrap() {
        let side = |name: &str| golden[name].as_u64().unwrap() as u32;
        let (width, height) = (side("width"), side("height"));
        let off = furthest(model.image(&picture(width, height)).unwrap().values(), &golden["embedding"]);
        assert!(off < IMAGE_TOLERANCE, "{width} x {height} is off by {off}");
    }
}

#[test]
fn a_cosine_is_one_with_itself_and_between_the_two_spaces_at_most_one() {
    let (_folder, model) = tiny();
    let (text, image) = (model.text("pan").unwrap(), model.image(&picture(50, 40)).unwrap());
    assert!((text.cosine(&text).unwrap() - 1.0).abs() < 1e-5);
    assert!(text.cosine(&image).unwrap().abs() <= 1.0);
    assert_ne!(model.text("pan").unwrap(), model.text("pot").unwrap());
}

#[test]
fn pictures_without_pixels_and_ribbons_are_refused() {
    let (_folder, model) = tiny();
    for (width, height) in [(0, 5), (1, 1_000)] {
        let error = model.image(&RgbImage::new(width, height)).unwrap_err().to_string();
        assert!(error.contains(&format!("{width} x {height}")), "{error}");
    }
}

#[test]
fn a_folder_that_is_no_clip_is_refused_by_the_file_that_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let refused = |words: &[&str]| {
        let error = load(folder.path()).err().unwrap();
        assert!(words.iter().all(|word| error.contains(word)), "{words:?} are not all in: {error}");
    };
    refused(&["config.json"]);
    write_tiny_clip(folder.path()).unwrap();
    let good = std::fs::read(path("config.json")).unwrap();
    let config = |edit: &dyn Fn(&mut Value)| {
        let mut config: Value = serde_json::from_slice(&good).unwrap();
        edit(&mut config);
        std::fs::write(path("config.json"), config.to_string()).unwrap();
    };
    config(&|config| config["model_type"] = "bert".into());
    refused(&["config.json", "bert"]);
    config(&|config| config["vision_config"]["num_hidden_layers"] = 1_000.into());
    refused(&["config.json", "vision_config.num_hidden_layers", "1000"]);
    config(&|config| config["text_config"]["hidden_act"] = "gelu".into());
    refused(&["config.json", "text_config.hidden_act"]);
    config(&|config| config["vision_config"]["num_attention_heads"] = 5.into());
    refused(&["config.json", "not a multiple"]);
    config(&|config| config["projection_dim"] = 9.into());
    refused(&["model.safetensors"]);
    std::fs::write(path("config.json"), &good).unwrap();
    let tokenizer = std::fs::read(path("tokenizer.json")).unwrap();
    std::fs::write(path("tokenizer.json"), "{}").unwrap();
    refused(&["tokenizer.json"]);
    std::fs::write(path("tokenizer.json"), &tokenizer).unwrap();
    let weights = std::fs::read(path("model.safetensors")).unwrap();
    std::fs::write(path("model.safetensors"), &weights[..weights.len() - 4]).unwrap();
    refused(&["model.safetensors"]);
}
