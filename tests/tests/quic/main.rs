//! The agent's and the gateway's ends of QUIC against each other, over real sockets on loopback.
#![allow(clippy::unwrap_used, reason = "a test that cannot unwrap has failed")]

mod faults;
mod limits;
mod link;
mod raw;
mod trust;
mod turns;
