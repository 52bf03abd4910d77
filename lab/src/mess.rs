//! The simulator of model zoos: streams rated requests past routers and counts satisfaction and cost.

pub mod bench;
pub mod ceiling;
pub mod cli;
pub mod contender;
pub mod data;
pub mod encoder;
pub mod page;
pub mod reference;
pub mod run;
pub mod scenario;
pub mod synthetic;
pub mod table;
