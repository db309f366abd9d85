//! The edge process: everything that meets the network, and the rooms' state.
//!
//! Owns: sockets, peers, mixer processes, HTTP. Does not know: how media is decoded, mixed or encoded; it never starts
//! GStreamer. Offers come in by [`rooms`], media by [`udp`] and [`peer`]; packets leave through [`fanout`].

pub mod fanout;
pub mod peer;
pub mod rooms;
pub mod supervise;
pub mod udp;
