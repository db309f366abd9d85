//! commingle: an MCU media server for WebRTC.
//!
//! Read `ARCHITECTURE.md` first. The modules below are in the order of the layers: each imports only from those above
//! it.

// words
pub mod id;
pub mod media;
pub mod plan;
pub mod secret;
pub mod time;

// logic
pub mod audio;
pub mod container;
pub mod destination;
pub mod filter;
pub mod hls;
pub mod jitter;
pub mod layout;
pub mod overlay;
pub mod sdp;
pub mod simulcast;
pub mod speaker;
pub mod tier;

// transport
pub mod transport;

// room
pub mod room;

// contract
pub mod config;
pub mod link;
pub mod metrics;

// media
pub mod codec;
pub mod pipeline;

// network
pub mod client;
pub mod dial;
pub mod rtmp;

// media processes
pub mod input;
pub mod mixer;
pub mod output;

// serving process
pub mod fanout;
pub mod http;
pub mod net;
pub mod peer;
pub mod process;
pub mod recordings;
pub mod rooms;

// clients
pub mod bots;

// top
pub mod cli;

// no part of the product
#[cfg(any(test, fuzzing))]
pub mod fuzz;
