#![no_main]
use tether_protocol::wire::{StreamKind, fuzzing};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fuzzing::stream(StreamKind::ControlToServer, bytes));
