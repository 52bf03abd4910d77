//! What is flown, whichever policy flies it.

use crate::config::{BudgetSettings, EnergyFile, LinkFile, OnExhausted, TokenPrices};
use crate::image_codec::{EncodeOptions, predict_bytes};
use rand::Rng;
use tether_policies::budget::Budget;
use tether_policies::encoding::Bounds;
use tether_policies::tmo::data::{BEST_SCORE, Dataset, Turn};
use tether_policies::tmo::honest::hardware::{HARDWARE, Hardware};
use tether_policies::tmo::honest::link::{IDLE_SHARE, IMAGE_BYTES, Link, TEXT_BYTES};
use tether_policies::tmo::honest::moment;
use tether_policies::tmo::honest::response::ResponseModel;
use tether_policies::tmo::paper::Profile;
use tether_policies::trace::Trace;
use tether_policies::upload::Sizes;
use tether_policies::wire::{LEAST_MTU, QuicModel, Wire};
use tether_protocol::limits::MAX_VIEWS;
use tether_protocol::{ActionSpace, Route, ViewName, ViewSet};

/// A week at a turn a second.
pub const MAX_TURNS: f64 = 604_800.0;
/// A field test rates every answer, as M4A1's did, unless it is said otherwise.
pub const RATED_SHARE: f64 = 1.0;
/// What the cameras see, before it is encoded ([`IMAGE_BYTES`]).
const CAMERA_PX: (u32, u32) = (640, 480);

/// A recorded link.
const MEASURED: Link = Link::Measured { up_mbps: f64::INFINITY, rtt_ms: 0.0 };

#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum MissionError {
    #[error("no device is named {given:?}; known: {known}")]
    Device { given: String, known: String },
    #[error("{hours} hours at {turns_per_hour} turns an hour are not between 1 and {MAX_TURNS} turns")]
    Turns { hours: f64, turns_per_hour: f64 },
    #[error("the battery must hold more than nothing")]
    Battery,
    #[error("the dialogues have {0} views, 1 to {MAX_VIEWS} are allowed")]
    Views(usize),
    #[error("two dialogues at least are needed: each is judged by what the others tell")]
    TooFew,
}

/// The machine and its battery.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Robot {
    pub hardware: Hardware,
    pub battery_j: f64,
}

impl Robot {
    /// # Errors
    /// An unknown device, or no battery.
    pub fn new(device: &str, battery_wh: f64) -> Result<Robot, MissionError> {
        let same = |hardware: &&Hardware| hardware.device.name.eq_ignore_ascii_case(device.trim());
        let Some(hardware) = HARDWARE.iter().find(same) else {
            let known: Vec<&str> = HARDWARE.iter().map(|hardware| hardware.device.name).collect();
            return Err(MissionError::Device { given: device.to_owned(), known: known.join(", ") });
        };
        if !(battery_wh.is_finite() && battery_wh > 0.0) {
            return Err(MissionError::Battery);
        }
        Ok(Robot { hardware: *hardware, battery_j: battery_wh * 3_600.0 })
    }

    /// Drawn all the time.
    pub fn idle_w(&self) -> f64 {
        self.hardware.device.power_w * IDLE_SHARE
    }
}

/// Everything that all policies share.
#[derive(Debug, Clone)]
pub struct Mission {
    pub robot: Robot,
    pub trace: Trace,
    pub data: Dataset,
    /// As a daemon's would be on this robot: the budgets, the published prices, the power of both
    /// sides (of the whole device while a turn lasts, idling included).
    pub settings: BudgetSettings,
    /// The forms in which pictures may travel, the configured one first.
    pub ladder: Vec<EncodeOptions>,
    /// Of every turn; the bytes that are left come to it turn by turn.
    pub sizes: Sizes,
    pub hours: f64,
    pub turns_per_hour: f64,
    /// Share of the answers that somebody rates.
    pub rated_share: f64,
    pub space: ActionSpace,
    /// The views of each action of `space`; `None` is local.
    pub actions: Vec<Option<ViewSet>>,
    /// By the parity of a dialogue's place: what judges its answers was fitted to the other half.
    judges: [Judge; 2],
}

/// What answers are worth.
#[derive(Debug, Clone)]
pub struct Judge {
    pub model: ResponseModel,
    /// How far the single answers that the model was fitted to lie from what it says of their kind; at least one number.
    strays: Vec<f64>,
}

impl Mission {
    /// # Errors
    /// [`MissionError`], each naming what to change.
    pub fn new(
        robot: Robot,
        trace: Trace,
        data: Dataset,
        budgets: Vec<Budget>,
        hours: f64,
        turns_per_hour: f64,
    ) -> Result<Mission, MissionError> {
        let turns = hours * turns_per_hour;
        if !(hours > 0.0 && (1.0..=MAX_TURNS).contains(&turns)) {
            return Err(MissionError::Turns { hours, turns_per_hour });
        }
        if data.dialogues.len() < 2 {
            return Err(MissionError::TooFew);
        }
        let views = data.view_count;
        let names = (0..views).map(|view| ViewName::new(format!("view{view}"))).collect::<Result<Vec<_>, _>>();
        let space = names.ok().and_then(|names| ActionSpace::new(names).ok()).filter(|_| views > 0);
        let (Some(space), Ok(actions)) = (space, moment::actions(views)) else {
            return Err(MissionError::Views(views));
        };
        let judges = [judge(&data, 1), judge(&data, 0)];
        let settings = settings(&robot, budgets, (hours * 3.6e6) as i64);
        let ladder = EncodeOptions::default().ladder();
        let sizes = sizes(&ladder, views);
        let rated_share = RATED_SHARE;
        Ok(Mission {
            robot,
            trace,
            data,
            settings,
            ladder,
            sizes,
            hours,
            turns_per_hour,
            rated_share,
            space,
            actions,
            judges,
        })
    }

    /// Pictures travel in their configured form, whatever the link and the budgets.
    #[must_use]
    pub fn with_fixed_pictures(mut self) -> Mission {
        self.ladder.truncate(1);
        self.sizes.pictures.iter_mut().for_each(|sizes| sizes.truncate(1));
        self
    }

    pub fn end_s(&self) -> f64 {
        self.hours * 3_600.0
    }

    /// How long it lasts.
    pub fn length_ms(&self) -> i64 {
        (self.end_s() * 1e3) as i64
    }

    /// What a dialogue's answers are worth, by a model that never saw it.
    pub fn judge(&self, dialogue: usize) -> &Judge {
        &self.judges[dialogue % 2]
    }
}

impl Judge {
    /// What somebody says of one answer of which the kind's response is known, from 0 to 1: people do not agree.
    pub fn rating(&self, response: f64, random: &mut impl Rng) -> f64 {
        let stray = self.strays[random.random_range(0..self.strays.len())];
        satisfaction(response + stray)
    }
}

/// A response on the rating's scale.
pub fn satisfaction(response: f64) -> f64 {
    (response / BEST_SCORE).clamp(0.0, 1.0)
}

fn settings(robot: &Robot, budgets: Vec<Budget>, mission_ms: i64) -> BudgetSettings {
    // The published table: a request without views, and the dearest step to one more. Tokens are in both.
    let usd = &Profile::default().usage_usd[1..];
    let image = usd.windows(2).map(|pair| pair[1] - pair[0]).fold(0.0, f64::max);
    BudgetSettings {
        budgets,
        mission_ms: Some(mission_ms),
        battery_floor_percent: None,
        floors_percent: Default::default(),
        latency_ms: None,
        on_exhausted: OnExhausted::Refuse,
        pacing: true,
        prices: Some(TokenPrices { prompt: 0.0, completion: 0.0, request: usd[0], image }),
        image_tokens: 0,
        energy: EnergyFile {
            local_power_w: Some(robot.hardware.device.power_w),
            cloud_power_w: Some(MEASURED.waiting_w(&robot.hardware)),
        },
    }
}

/// The form that is configured has [`IMAGE_BYTES`], the others as much less as the daemon expects of them; a new QUIC
/// connection carries them.
fn sizes(ladder: &[EncodeOptions], views: usize) -> Sizes {
    let (width, height) = CAMERA_PX;
    let predicted = |options: &EncodeOptions| predict_bytes(width, height, options) as f64;
    let bytes = |options: &EncodeOptions| (IMAGE_BYTES * predicted(options) / predicted(&ladder[0])).round() as u64;
    Sizes {
        text_bytes: TEXT_BYTES as u64,
        view_bytes: vec![0; views],
        pictures: vec![ladder.iter().map(bytes).collect(); views],
        wire: Wire::Quic { model: QuicModel::default(), mtu: LEAST_MTU },
        bounds: Bounds { upload_ms: LinkFile::default().max_upload_ms as f64, uplink_bytes: None },
    }
}

/// Fitted to the dialogues at even (0) or odd (1) places.
fn judge(data: &Dataset, parity: usize) -> Judge {
    let half = data.dialogues.iter().enumerate().filter(|(at, _)| at % 2 == parity);
    let turns: Vec<&Turn> = half.flat_map(|(_, dialogue)| &dialogue.turns).collect();
    let model = ResponseModel::fit(&turns, data.tasks.len());
    let predicted = |turn: &Turn| model.predict(Some(turn.task), turn.route == Route::Cloud, turn.views.len());
    let mut strays: Vec<f64> = turns.iter().map(|turn| turn.score - predicted(turn)).collect();
    if strays.is_empty() {
        strays.push(0.0);
    }
    Judge { model, strays }
}
