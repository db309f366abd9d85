//! The whole server with real peers on loopback: Chromium, Firefox, aiortc and ffmpeg.
//!
//! Each test starts its own server and prints its measurements. Two cores carry one call at a time, so [`turn`] runs
//! the tests one by one. Browser tests are scenarios of `scenario.mjs`, which measures; the tests here check the
//! results.

#![expect(clippy::print_stdout, reason = "the measurements are what these tests are read for")]

mod authority;
mod bots;
mod broadcast;
mod captions;
mod clients;
mod contract;
mod direct;
mod elsewhere;
mod faults;
mod filters;
mod http;
mod inputs;
mod live;
mod network;
mod outputs;
mod overlays;
mod people;
mod peers;
mod quarantine;
mod reach;
mod readme;
mod relay;
mod relayed;
mod rooms;
mod sandbox;
mod scenario;
mod screen;
mod server;
mod settings;
mod sound;
mod startup;
mod turns;
mod uplink;
mod upload;
mod views;
mod web;

use self::turns::{turn, with_retries};
