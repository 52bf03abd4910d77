//! How much each camera's picture has to do with a question, by CLIP, where one is configured.
//!
//! Pictures are embedded by a thread of their own after they were pushed, the newest of each camera and not too often, so
//! that a turn has its question to embed and nothing else. A camera that was not looked at lately keeps what the text alone
//! told of it.

use crate::image_codec;
use crate::views::{Frame, ViewConfig};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tether_models::ModelError;
use tether_models::clip::{Embedding, ImageText};
use tether_protocol::context::ViewContext;

/// A camera is looked at again after so long at the soonest: what it shows to a question changes slowly, and a look takes a
/// tenth of a second of all processors.
const EVERY: Duration = Duration::from_secs(2);

/// The encoder and what it last saw. Dropping it ends its thread after the picture in hand.
pub struct Sight {
    model: Arc<ImageText>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// The newest frame of each camera that was not looked at yet, and when it was pushed.
    waiting: BTreeMap<String, (Arc<Frame>, Instant)>,
    seen: BTreeMap<String, Seen>,
    looked: BTreeMap<String, Instant>,
    closed: bool,
}

#[derive(Clone)]
struct Seen {
    embedding: Embedding,
    /// When the frame was pushed.
    at: Instant,
}

enum Next {
    Look(Arc<Frame>, Instant),
    /// Until something is pushed, or a camera may be looked at again.
    Wait(Option<Duration>),
    End,
}

impl Sight {
    /// Loads a CLIP, which takes seconds, and starts the thread.
    ///
    /// # Errors
    /// The file that is missing or wrong; or no thread can be started.
    pub fn open(folder: &Path) -> Result<Self, ModelError> {
        let model = Arc::new(ImageText::load(folder)?);
        let shared = Arc::new(Shared::default());
        let (its_model, its_shared) = (model.clone(), shared.clone());
        let thread = std::thread::Builder::new().name("sight".into());
        let started = thread.spawn(move || its_shared.work(|frame| see(&its_model, frame)));
        let failed = |error: std::io::Error| ModelError::File { path: folder.to_owned(), problem: error.to_string() };
        started.map_err(failed)?;
        Ok(Self { model, shared })
    }

    /// A camera's newest frame.
    pub fn pushed(&self, frame: Arc<Frame>, now: Instant) {
        self.shared.lock().waiting.insert(frame.view.clone(), (frame, now));
        self.shared.changed.notify_one();
    }

    /// Fills in the similarity of `text` to each camera whose picture was seen within the camera's `max_age`. Pictures that
    /// came with the request were not looked at.
    pub async fn associate(&self, text: &str, config: &[ViewConfig], views: &mut [ViewContext], now: Instant) {
        let found = self.shared.fresh(config, views, now);
        if found.is_empty() {
            return;
        }
        let (model, text) = (self.model.clone(), text.to_owned());
        let embedded = tokio::task::spawn_blocking(move || model.text(&text)).await;
        match embedded {
            Ok(Ok(text)) => {
                for (place, embedding) in found {
                    views[place].association = text.cosine(&embedding).map(|cosine| f64::from(cosine.max(0.0)));
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "the question could not be embedded"),
            Err(error) => tracing::warn!(%error, "the question could not be embedded"),
        }
    }
}

impl Drop for Sight {
    fn drop(&mut self) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, see: impl Fn(&Frame) -> Option<Embedding>) {
        let mut state = self.lock();
        loop {
            match state.next(Instant::now()) {
                Next::End => return,
                Next::Wait(None) => state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Next::Wait(Some(time)) => {
                    state = self.changed.wait_timeout(state, time).unwrap_or_else(PoisonError::into_inner).0;
                }
                Next::Look(frame, at) => {
                    drop(state);
                    let seen = see(&frame);
                    state = self.lock();
                    match seen {
                        Some(embedding) => state.seen.insert(frame.view.clone(), Seen { embedding, at }),
                        None => state.seen.remove(&frame.view),
                    };
                }
            }
        }
    }

    /// Places and embeddings of the cameras that were seen lately.
    fn fresh(&self, config: &[ViewConfig], views: &[ViewContext], now: Instant) -> Vec<(usize, Embedding)> {
        let state = self.lock();
        let fresh = |(place, (config, view)): (usize, (&ViewConfig, &ViewContext))| {
            let seen = state.seen.get(view.name.as_str()).filter(|_| !view.attached)?;
            (now.saturating_duration_since(seen.at) <= config.max_age()).then(|| (place, seen.embedding.clone()))
        };
        config.iter().zip(views).enumerate().filter_map(fresh).collect()
    }
}

impl State {
    /// The camera that waits the longest among those that may be looked at again.
    fn next(&mut self, now: Instant) -> Next {
        if self.closed {
            return Next::End;
        }
        let due = |view: &String| self.looked.get(view).map_or(now, |looked| *looked + EVERY);
        let first = self.waiting.keys().min_by_key(|view| due(view)).cloned();
        let Some(view) = first else { return Next::Wait(None) };
        let wait = due(&view).saturating_duration_since(now);
        if !wait.is_zero() {
            return Next::Wait(Some(wait));
        }
        let Some((frame, at)) = self.waiting.remove(&view) else { return Next::Wait(None) };
        self.looked.insert(view, now);
        Next::Look(frame, at)
    }
}

/// Nothing of a picture that cannot be read: the turn that sends it says what is wrong.
fn see(model: &ImageText, frame: &Frame) -> Option<Embedding> {
    let picture = image_codec::upright(frame).map_err(|error| error.to_string());
    let seen = picture.and_then(|picture| model.image(&picture).map_err(|error| error.to_string()));
    seen.inspect_err(|problem| tracing::warn!(view = %frame.view, problem, "a frame could not be embedded")).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image_codec::testing::{picture, png};

    fn frame(view: &str) -> Arc<Frame> {
        Arc::new(Frame::new(view, png(picture(4, 4)), 0).unwrap())
    }

    #[test]
    fn the_newest_frame_of_each_camera_is_looked_at_and_none_too_often() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(matches!(state.next(start), Next::Wait(None)));
        let newest = frame("a");
        for frame in [frame("a"), newest.clone(), frame("b")] {
            state.waiting.insert(frame.view.clone(), (frame, start));
        }
        let Next::Look(first, _) = state.next(start) else { panic!("a camera waits") };
        assert!(Arc::ptr_eq(&first, &newest));
        state.waiting.insert("a".into(), (frame("a"), start));
        assert!(matches!(state.next(start), Next::Look(frame, _) if frame.view == "b"));
        let later = start + EVERY / 4;
        assert!(matches!(state.next(later), Next::Wait(Some(time)) if time == EVERY - EVERY / 4));
        assert!(matches!(state.next(start + EVERY), Next::Look(frame, _) if frame.view == "a"));
        state.closed = true;
        assert!(matches!(state.next(start), Next::End));
    }
}
