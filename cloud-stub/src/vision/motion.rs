//! What changed since the frame before. The memory of earlier frames is the only state of a gateway: small, bounded,
//! and expiring. Another copy of the gateway that lacks it says nothing about motion, and nothing else differs.

use image::{GrayImage, imageops};
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tether_protocol::ViewName;

const SIDE: usize = 32;
/// Difference of a cell's mean luma (0 to 255) that counts as a change: above the noise of a camera.
const CHANGED_LUMA: f32 = 18.0;
/// Shift of the whole image's luma that is worth a word.
pub(super) const NOTABLE_SHIFT: f32 = 20.0;
/// Below this share nothing moved; above the other one everything did.
const MOVED_CELLS: usize = SIDE * SIDE / 200;
const EVERYWHERE_CELLS: usize = SIDE * SIDE * 6 / 10;
/// Mean distance of the changed cells from their middle beyond which they are not one place: a change that fills half
/// of the image has 12.
const SCATTERED_CELLS: usize = 13;
/// An older frame tells nothing about now.
const EXPIRY: Duration = Duration::from_secs(60);
/// 1 KiB each.
const MAX_FRAMES: usize = 4_096;

/// A frame in 32 x 32 cells of mean luma.
#[derive(Debug, Clone, PartialEq)]
pub struct Thumbnail(Box<[u8; SIDE * SIDE]>);

impl Thumbnail {
    pub fn of(luma: &GrayImage) -> Self {
        let small = imageops::resize(luma, SIDE as u32, SIDE as u32, imageops::FilterType::Triangle);
        let mut cells = Box::new([0; SIDE * SIDE]);
        cells.copy_from_slice(small.as_raw());
        Self(cells)
    }

    /// What changed from `earlier` to `self`. A shift that is common to all cells is light, not motion.
    pub fn changes_since(&self, earlier: &Thumbnail) -> Motion {
        let mut differences = [0.0f32; SIDE * SIDE];
        for (difference, (now, before)) in differences.iter_mut().zip(self.0.iter().zip(earlier.0.iter())) {
            *difference = f32::from(*now) - f32::from(*before);
        }
        let shift = median(&differences);
        let changed: Vec<usize> =
            (0..SIDE * SIDE).filter(|&cell| (differences[cell] - shift).abs() > CHANGED_LUMA).collect();
        Motion {
            changed_percent: (changed.len() * 100 / (SIDE * SIDE)) as u32,
            place: Place::of(&changed),
            brighter_by: shift,
        }
    }
}

fn median(values: &[f32]) -> f32 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    sorted[sorted.len() / 2]
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Motion {
    pub changed_percent: u32,
    /// Around where; `None`: nothing moved.
    pub place: Option<Place>,
    /// Luma by which the whole image became brighter; negative: darker.
    pub brighter_by: f32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    Everywhere,
    /// Far apart, so that no one place would be true.
    Scattered,
    /// Row and column of a 3 x 3 grid, from the upper left.
    Ninth(usize, usize),
}

impl Place {
    fn of(changed: &[usize]) -> Option<Self> {
        match changed.len() {
            count if count <= MOVED_CELLS => None,
            count if count >= EVERYWHERE_CELLS => Some(Self::Everywhere),
            count => {
                let mean =
                    |part: &dyn Fn(usize) -> usize| changed.iter().map(|&cell| part(cell)).sum::<usize>() / count;
                let (row, column) = (mean(&|cell| cell / SIDE), mean(&|cell| cell % SIDE));
                let spread = mean(&|cell| (cell / SIDE).abs_diff(row) + (cell % SIDE).abs_diff(column));
                let scattered = spread > SCATTERED_CELLS;
                Some(if scattered { Self::Scattered } else { Self::Ninth(row * 3 / SIDE, column * 3 / SIDE) })
            }
        }
    }

    pub fn as_str(self) -> &'static str {
        const NINTHS: [[&str; 3]; 3] = [
            ["around the upper left", "around the top", "around the upper right"],
            ["around the left", "around the middle", "around the right"],
            ["around the lower left", "around the bottom", "around the lower right"],
        ];
        match self {
            Self::Everywhere => "everywhere",
            Self::Scattered => "in several places",
            Self::Ninth(row, column) => NINTHS[row.min(2)][column.min(2)],
        }
    }
}

/// Whose frame it is. One token a device keeps two devices apart.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FrameKey {
    pub client: String,
    pub view: ViewName,
}

/// The newest frame of each client's views.
#[derive(Debug, Default)]
pub struct MotionMemory {
    frames: HashMap<FrameKey, (Thumbnail, Instant)>,
}

impl MotionMemory {
    /// Remembers a frame; tells what changed since the one before and how old that was, if it is remembered.
    pub fn see(&mut self, key: FrameKey, frame: &Thumbnail, now: Instant) -> Option<(Motion, Duration)> {
        if self.frames.len() >= MAX_FRAMES && !self.frames.contains_key(&key) {
            self.make_room(now);
        }
        let (earlier, seen) = self.frames.insert(key, (frame.clone(), now))?;
        let age = now.saturating_duration_since(seen);
        (age <= EXPIRY).then(|| (frame.changes_since(&earlier), age))
    }

    pub fn len(&self) -> usize {
        self.frames.len()
    }

    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Forgets what has expired; if nothing has, the oldest frame.
    fn make_room(&mut self, now: Instant) {
        self.frames.retain(|_, (_, seen)| now.saturating_duration_since(*seen) <= EXPIRY);
        if self.frames.len() >= MAX_FRAMES {
            let oldest = self.frames.iter().min_by_key(|(_, (_, seen))| *seen).map(|(key, _)| key.clone());
            oldest.map(|key| self.frames.remove(&key));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(client: &str) -> FrameKey {
        FrameKey { client: client.into(), view: ViewName::new("front").unwrap() }
    }

    fn flat(luma: u8) -> Thumbnail {
        Thumbnail(Box::new([luma; SIDE * SIDE]))
    }

    #[test]
    fn light_is_not_motion() {
        let motion = flat(150).changes_since(&flat(100));
        assert_eq!((motion.place, motion.brighter_by), (None, 50.0));
    }

    #[test]
    fn a_moved_block_is_found_where_it_is() {
        let mut after = flat(100);
        for cell in (0..8).flat_map(|row| (24..32).map(move |column| row * SIDE + column)) {
            after.0[cell] = 200;
        }
        let motion = after.changes_since(&flat(100));
        assert_eq!((motion.changed_percent, motion.place), (6, Some(Place::Ninth(0, 2))));
    }

    #[test]
    fn clients_do_not_see_one_another_and_frames_expire() {
        let now = Instant::now();
        let mut memory = MotionMemory::default();
        assert!(memory.see(key("a"), &flat(1), now).is_none());
        assert!(memory.see(key("b"), &flat(1), now).is_none());
        let later = now + Duration::from_secs(2);
        assert_eq!(memory.see(key("a"), &flat(1), later).unwrap().1, Duration::from_secs(2));
        assert!(memory.see(key("a"), &flat(1), later + EXPIRY + Duration::from_millis(1)).is_none());
    }

    #[test]
    fn the_memory_is_bounded_and_forgets_the_oldest() {
        let now = Instant::now();
        let mut memory = MotionMemory::default();
        for client in 0..MAX_FRAMES {
            memory.see(key(&client.to_string()), &flat(1), now + Duration::from_micros(client as u64));
        }
        let later = now + Duration::from_secs(1);
        assert!(memory.see(key("new"), &flat(1), later).is_none());
        assert_eq!(memory.len(), MAX_FRAMES);
        assert!(memory.see(key("1"), &flat(1), later).is_some());
        assert!(memory.see(key("0"), &flat(1), later).is_none(), "the oldest was forgotten");
    }
}
