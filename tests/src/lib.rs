//! Whole-system tests, the demo and the benchmarks: real processes, real sockets, real models. Nothing depends on
//! this crate.

pub mod bench;
pub mod bytes_bench;
pub mod caps_bench;
pub mod kill;
pub mod kitchen;
pub mod ledger_bench;
pub mod process;
pub mod quic;
pub mod relay;
pub mod replay_bench;
pub mod routed;
pub mod scene;
pub mod system;
pub mod traces;
