//! What the router sees of a text. Hashing takes microseconds and is done where it is asked for. The sentence encoder
//! takes tens of milliseconds of arithmetic: it has a thread of the blocking pool, one text at a time.

use crate::config::EncoderSettings;
use anyhow::Context;
use futures::FutureExt;
use futures::future::{BoxFuture, ready};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tether_models::SentenceEncoder;
use tether_models::registry::Registry;
use tether_models::sentence;
use tether_policies::mess::{Encoder, HashedEncoder};
use tokio::sync::Semaphore;
use tokio::time::timeout;

/// A text that does not get its turn within this time is routed by the models' means alone: all zeros say nothing of it.
const TURN_WITHIN: Duration = Duration::from_millis(500);

#[derive(Clone)]
pub(super) struct TextEncoder {
    encoder: Arc<dyn Encoder>,
    /// One permit; `None` where encoding is quick.
    desk: Option<Arc<Semaphore>>,
    unread: Arc<AtomicU64>,
}

impl TextEncoder {
    /// Blocks while weights are read.
    ///
    /// # Errors
    /// Weights that are not there, with the command that fetches them, or are not what they should be.
    pub(super) fn open(settings: &EncoderSettings) -> anyhow::Result<Self> {
        Ok(match settings {
            EncoderSettings::Hashed => Self::quick(Arc::new(HashedEncoder)),
            EncoderSettings::Sentence(files) => {
                let encoder = match files {
                    Some((weights, tokenizer)) => SentenceEncoder::open(weights, tokenizer, sentence::MINILM)?,
                    None => SentenceEncoder::from_registry(&Registry::from_env()?).with_context(|| {
                        let (weights, tokenizer) = (sentence::WEIGHTS, sentence::TOKENIZER);
                        format!(
                            "routing.encoder = \"sentence\": `tether models pull {weights}` and `tether models pull \
                             {tokenizer}` fetch what it needs"
                        )
                    })?,
                };
                Self::slow(Arc::new(Sentence(encoder)))
            }
        })
    }

    fn quick(encoder: Arc<dyn Encoder>) -> Self {
        Self { encoder, desk: None, unread: Arc::default() }
    }

    fn slow(encoder: Arc<dyn Encoder>) -> Self {
        Self { desk: Some(Arc::new(Semaphore::new(1))), ..Self::quick(encoder) }
    }

    pub(super) fn name(&self) -> &str {
        self.encoder.name()
    }

    pub(super) fn width(&self) -> usize {
        self.encoder.width()
    }

    /// Texts that did not get their turn.
    pub(super) fn unread(&self) -> u64 {
        self.unread.load(Ordering::Relaxed)
    }

    pub(super) fn read(&self, text: &str) -> BoxFuture<'static, Vec<f32>> {
        let Some(desk) = self.desk.clone() else { return ready(self.encoder.encode(text)).boxed() };
        let (this, text) = (self.clone(), text.to_owned());
        async move {
            let read = async {
                let place = timeout(TURN_WITHIN, desk.acquire_owned()).await.ok()?.ok()?;
                let encoder = Arc::clone(&this.encoder);
                let encode = move || {
                    let _place = place;
                    encoder.encode(&text)
                };
                // A panic in there has been printed.
                tokio::task::spawn_blocking(encode).await.ok()
            };
            match read.await {
                Some(values) => values,
                None => {
                    this.unread.fetch_add(1, Ordering::Relaxed);
                    tracing::debug!("the encoder is busy: this turn is routed by the models' means");
                    vec![0.0; this.width()]
                }
            }
        }
        .boxed()
    }
}

impl std::fmt::Debug for TextEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TextEncoder").field("name", &self.name()).field("unread", &self.unread()).finish()
    }
}

struct Sentence(SentenceEncoder);

impl Encoder for Sentence {
    fn name(&self) -> &str {
        sentence::WEIGHTS
    }

    fn width(&self) -> usize {
        self.0.width()
    }

    fn encode(&self, text: &str) -> Vec<f32> {
        self.0.embed(text).unwrap_or_else(|problem| {
            tracing::error!(%problem, "a text could not be encoded; its turn is routed by the models' means");
            vec![0.0; self.0.width()]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;

    /// Encodes when it is told to.
    struct Told(Mutex<Receiver<()>>, Mutex<Option<ThreadId>>);

    impl Encoder for Told {
        fn name(&self) -> &str {
            "told"
        }

        fn width(&self) -> usize {
            2
        }

        fn encode(&self, text: &str) -> Vec<f32> {
            self.0.lock().unwrap().recv().unwrap();
            *self.1.lock().unwrap() = Some(std::thread::current().id());
            vec![1.0, text.len() as f32]
        }
    }

    fn told() -> (Sender<()>, Arc<Told>, TextEncoder) {
        let (tell, listen) = channel();
        let told = Arc::new(Told(Mutex::new(listen), Mutex::new(None)));
        (tell, Arc::clone(&told), TextEncoder::slow(told))
    }

    #[tokio::test]
    async fn a_slow_encoder_works_beside_the_thread_that_serves() {
        let (tell, told, encoder) = told();
        // This thread is the runtime's only one: if it encoded, nobody could tell it to.
        let (values, ()) = tokio::join!(encoder.read("abc"), async { tell.send(()).unwrap() });
        assert_eq!(values, [1.0, 3.0]);
        assert_ne!(told.1.lock().unwrap().unwrap(), std::thread::current().id());
        assert_eq!(encoder.unread(), 0);
    }

    #[tokio::test]
    async fn a_text_that_does_not_get_its_turn_says_nothing_and_is_counted() {
        let (tell, _, encoder) = told();
        let first = tokio::spawn(encoder.read("abc"));
        while encoder.desk.as_ref().unwrap().available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(encoder.read("no turn").await, [0.0, 0.0]);
        assert_eq!(encoder.unread(), 1);
        tell.send(()).unwrap();
        assert_eq!(first.await.unwrap(), [1.0, 3.0]);
    }

    #[tokio::test]
    async fn hashing_is_done_at_once() {
        let encoder = TextEncoder::open(&EncoderSettings::Hashed).unwrap();
        let values = encoder.read("is it red?").now_or_never().expect("nothing to wait for");
        assert_eq!(values, HashedEncoder.encode("is it red?"));
    }

    #[test]
    fn weights_that_are_not_there_are_named() {
        let missing = EncoderSettings::Sentence(Some(("/no/such.safetensors".into(), "/no/tokenizer.json".into())));
        let problem = TextEncoder::open(&missing).unwrap_err();
        assert!(problem.to_string().contains("/no/such.safetensors"), "{problem:#}");
    }

    #[tokio::test]
    #[ignore = "needs the real weights: run `make test-encoder`"]
    async fn the_sentence_encoder_reads_a_text_as_its_weights_mean() {
        let encoder = TextEncoder::open(&EncoderSettings::Sentence(None)).unwrap();
        assert_eq!((encoder.name(), encoder.width()), ("all-minilm-l6-v2", 384));
        let [cat, kitten, tax] = ["A cat sits on the mat.", "A kitten lies on the rug.", "Income tax is due in May."];
        let (cat, kitten, tax) = (encoder.read(cat).await, encoder.read(kitten).await, encoder.read(tax).await);
        let near = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        assert!(near(&cat, &kitten) > near(&cat, &tax) + 0.3);
    }
}
