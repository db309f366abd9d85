//! Long and hostile operation of the whole server: `make soak` and `make chaos`. No part of `make test`.
//!
//! Each test starts its own server and prints its figures. Bots are the clients (`commingle bots`).

#![expect(clippy::print_stdout, reason = "the figures are what these tests are read for")]

mod chaos;
mod dice;
#[expect(dead_code, reason = "the end-to-end tests use all of it")]
#[path = "../e2e/http.rs"]
mod http;
mod processes;
mod server;
mod soak;
mod storm;

use std::env;
use std::time::Duration;

/// The duration in the variable `ENDURANCE_SECONDS`.
fn seconds(default: u64) -> Duration {
    let seconds = env::var("ENDURANCE_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(default))
}
