//! The whole server against real peers: Chromium, Firefox, aiortc and ffmpeg, on loopback.
//!
//! Each test starts a server of its own and prints what it measured. Two cores carry one call at a time, so the tests
//! take turns by [`turn`]. Browser tests are scenarios of `scenario.mjs`: it measures, the tests here judge.

#![expect(clippy::print_stdout, reason = "the measurements are what these tests are read for")]

mod authority;
mod bots;
mod broadcast;
mod clients;
mod contract;
mod direct;
mod elsewhere;
mod faults;
mod http;
mod inputs;
mod network;
mod outputs;
mod peers;
mod reach;
mod relay;
mod relayed;
mod rooms;
mod scenario;
mod server;
mod sound;
mod startup;
mod uplink;
mod upload;
mod web;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Waits until no other test of this binary runs.
fn turn() -> MutexGuard<'static, ()> {
    static TURN: Mutex<()> = Mutex::new(());
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}
