//! The whole server with real peers on loopback: Chromium, Firefox, aiortc and ffmpeg.
//!
//! Each test starts its own server and prints its measurements. Two cores carry one call at a time, so [`turn`] runs the
//! tests one by one. Browser tests are scenarios of `scenario.mjs`, which measures; the tests here check the results.

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

use commingle::time::{self, Timestamp};

/// While this is held, no other test of this binary runs. Prints the duration when dropped.
struct Turn {
    began: Timestamp,
    _held: MutexGuard<'static, ()>,
}

/// Waits until no other test of this binary is running.
fn turn() -> Turn {
    static TURN: Mutex<()> = Mutex::new(());
    let held = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    Turn { began: time::now(), _held: held }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let test = std::thread::current().name().unwrap_or("a test").to_owned();
        println!("{test} took {:.1} s", time::now().since(self.began).as_secs_f64());
    }
}

/// Runs a call up to three times until one passes: see `rooms::grid`.
fn patiently(call: impl Fn() + std::panic::RefUnwindSafe) {
    let _turn = turn();
    for _ in 0..2 {
        if std::panic::catch_unwind(&call).is_ok() {
            return;
        }
    }
    call();
}
