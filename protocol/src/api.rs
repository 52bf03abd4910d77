//! The Unix-socket API: HTTP/1.1, compatible with OpenAI's chat completions.
//!
//! Each request exists twice: the form as it is written (`serde`), and the value that is meant, which only `check()`
//! can make. Behind `check()` everything is legal: roles are known, limits hold, parameters are honoured or were
//! refused. Responses exist once. The daemon and its client share these types.

mod budget;
mod chat;
mod check;
mod device;
mod error;
mod response;

pub use budget::{BudgetList, BudgetStatus, SetBudget};
pub use chat::{
    AUTO_MODELS, ChatRequest, Content, ImageUrl, MessageForm, PartForm, PartTether, RouteChoice, Stop, StreamOptions,
    TetherRequest,
};
pub use check::{AttachedImage, ChatTurn, CheckedMessage};
pub use device::{
    CameraPushed, CloudStatus, Feedback, FeedbackRequest, GatewayRating, LocalModelStatus, MemoryStatus,
    ModelCacheStatus, ModelCard, ModelList, ModelState, SensorPushed, Status, TurnList, TurnsQuery, Version,
    ViewStatus, ZooModelStatus, ZooStatus,
};
pub use error::{ApiError, ErrorBody, ErrorObject, from_json};
pub use response::{
    AnswerMessage, ChatChunk, ChatCompletion, Choice, ChunkChoice, Delta, PromptTokensDetails, TetherAnswer,
    TetherCosts, UsageBody,
};
