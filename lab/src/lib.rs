//! The laboratory: trains, evaluates and simulates policies. `tether-lab --help` lists what it does.

pub mod link;
pub mod mess;
pub mod ope;
pub mod report;
pub mod tmo;
