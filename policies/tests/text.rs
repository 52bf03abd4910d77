//! The committed text models: they load, say what they said when they were trained, and are quick and quiet about
//! texts they know nothing of.

use proptest::prelude::*;
use tether_policies::text::{TaskClassifier, TextAssociation};

/// None of these stands word for word in the training sentences; two of them are from `make demo`.
const GOLDEN: [(&str, &str); 8] = [
    ("Please switch the lights off before you leave the house.", "Assistive System"),
    ("Could you warm up the bathroom a little?", "Assistive System"),
    ("Write one short message to Ada: breakfast is ready.", "Message Editing"),
    ("Drop my brother a line that I will not make it tonight.", "Message Editing"),
    ("Look at the front camera: what colours do you see on the counter?", "Query"),
    ("Where has my blue jacket gone?", "Query"),
    ("Which dessert would you suggest for eight guests?", "Recommendation"),
    ("Any ideas for a quick lunch?", "Recommendation"),
];

#[test]
fn the_committed_classifier_names_the_task_of_sentences_it_never_saw() {
    let model = TaskClassifier::built_in().unwrap();
    for (text, task) in GOLDEN {
        let guess = model.classify(text).unwrap_or_else(|| panic!("nothing said of {text:?}: {:?}", model.best(text)));
        assert_eq!(guess.task, task, "{text:?}: {guess:?}");
    }
}

#[test]
fn the_features_have_not_drifted_from_the_committed_weights() {
    let model = TaskClassifier::built_in().unwrap();
    let confidence = |text: &str| model.best(text).unwrap().confidence;
    for (text, expected) in [(GOLDEN[0].0, GOLDEN_CONFIDENCE[0]), (GOLDEN[7].0, GOLDEN_CONFIDENCE[1])] {
        assert!((confidence(text) - expected).abs() < 1e-4, "{text:?}: {}", confidence(text));
    }
    let estimate = TextAssociation::built_in().unwrap().estimate(GOLDEN[4].0).unwrap();
    for (camera, expected) in GOLDEN_ASSOCIATION.into_iter().enumerate() {
        assert!((estimate.camera(camera) - expected).abs() < 1e-4, "{camera}: {}", estimate.camera(camera));
    }
}

const GOLDEN_CONFIDENCE: [f32; 2] = [0.941_961_8, 0.9513436];
/// First-person, side, overhead, and the mean for a fourth camera.
const GOLDEN_ASSOCIATION: [f64; 4] = [0.220_911, 0.211_738, 0.215_011, 0.215_886];

#[test]
fn a_text_without_words_has_no_task_and_no_association() {
    assert_eq!(TaskClassifier::built_in().unwrap().classify(" \n ..."), None);
    assert_eq!(TextAssociation::built_in().unwrap().estimate("?!"), None);
}

proptest! {
    #[test]
    fn any_text_gives_a_probability_and_associations_in_range(text in "\\PC{0,120}") {
        let model = TaskClassifier::built_in().unwrap();
        if let Some(guess) = model.best(&text) {
            prop_assert!((0.25..=1.0).contains(&guess.confidence), "{guess:?}");
            prop_assert!(model.tasks().iter().any(|task| task == guess.task));
        }
        if let Some(estimate) = TextAssociation::built_in().unwrap().estimate(&text) {
            prop_assert!((0..8).all(|camera| (0.0..=1.0).contains(&estimate.camera(camera))));
        }
    }
}
