//! The far end of QUIC: a gateway before a zoo of models.

pub mod server;
