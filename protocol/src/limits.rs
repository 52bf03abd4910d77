//! A limit on everything that comes from outside. Each constant carries its unit and its reason; the tests of the
//! code that enforces a limit stand exactly at it.

/// Views (cameras plus the sensor bundle) a device may name. 2^8 = 256 subsets keep the action table small.
pub const MAX_VIEWS: usize = 8;
/// Bytes of a session id, a view's name, a task, a model's name, a client's name.
pub const MAX_NAME_BYTES: usize = 64;
/// Messages in one request: a dialogue of 256 exchanges.
pub const MAX_MESSAGES: usize = 512;
/// Text of one request, all messages together. 1 MiB is ten times a 32k-token prompt's worth of English.
pub const MAX_TEXT_BYTES: usize = 1024 * 1024;
/// Body of one HTTP request: the text, and eight images as base64 data URLs.
pub const MAX_BODY_BYTES: usize = 32 * 1024 * 1024;
/// One encoded image, as pushed or as carried by a data URL.
pub const MAX_IMAGE_BYTES: usize = 8 * 1024 * 1024;
/// Pixels of one decoded image: 24 megapixels, 96 MB as RGBA. Checked from the header, before decoding.
pub const MAX_IMAGE_PIXELS: u64 = 24_000_000;
/// Images in one request.
pub const MAX_IMAGES: usize = 8;
/// One sensor reading as JSON.
pub const MAX_SENSOR_BYTES: usize = 64 * 1024;
/// How deeply a sensor reading may be nested.
pub const MAX_SENSOR_DEPTH: i32 = 16;
/// Named sensors held by the daemon.
pub const MAX_SENSORS: usize = 32;
/// Stop strings in a request, and the bytes of each.
pub const MAX_STOP_STRINGS: usize = 4;
pub const MAX_STOP_BYTES: usize = 256;
/// Tokens that one answer may hold.
pub const MAX_ANSWER_TOKENS: u32 = 32_768;
/// Text of one answer from a server: 32 bytes for each of [`MAX_ANSWER_TOKENS`], far above any language's mean.
pub const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// One server-sent event: holds a whole answer escaped as JSON.
pub const MAX_SSE_EVENT_BYTES: usize = 2 * 1024 * 1024;
/// A deadline: ten minutes.
pub const MAX_DEADLINE_MS: u64 = 600_000;

/// Models in one zoo. A decision scores each of them, about a microsecond a model.
pub const MAX_ZOO_MODELS: usize = 16;
/// Tenants whose queues a router holds; the one unused for longest gives way. About 200 bytes each.
pub const MAX_TENANTS: usize = 100_000;
/// Answered turns that wait for a rating; about 700 bytes each, 35 MB in all.
pub const MAX_PENDING_RATINGS: usize = 50_000;
/// Ratings of one connection that wait for their reply: a device sends no more, a gateway may drop what exceeds them.
pub const MAX_UNANSWERED_RATINGS: usize = 16;
/// How long a turn can be rated: a day.
pub const MAX_RATING_AGE_MS: i64 = 24 * 3_600 * 1_000;
