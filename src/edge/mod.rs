//! The edge process: everything that meets the network, and the rooms' state.
//!
//! Owns: sockets, peers, mixer processes, HTTP. Does not know: how media is decoded, mixed or encoded; it never starts
//! GStreamer. Offers come in by [`api`] and [`rooms`], media by [`udp`], [`tcp`] and [`peer`]; packets leave through [`fanout`].

pub mod api;
pub mod auth;
pub mod events;
pub mod fanout;
pub mod hls;
pub mod library;
mod listener;
pub mod peer;
mod places;
pub mod problem;
pub mod push;
mod rate;
pub mod rooms;
pub mod supervise;
pub mod tcp;
pub mod tls;
pub mod turn;
pub mod udp;
pub mod web;
